"""Occlusion, with Captum: how much the logit drops when a square is hidden."""

from typing import TYPE_CHECKING

from workers.attribution.method import BASELINE, Method
from workers.requests.parameters import InvalidRequest, Parameter

if TYPE_CHECKING:
    from workers.attribution.maps import Attribution, Inputs


def _compute(inputs: "Inputs") -> "Attribution":
    """How much the logit drops when a square is hidden; a pixel gets the mean over the squares that cover it."""
    import torch
    from captum.attr import Occlusion

    from workers.attribution.baselines import baseline_pixels
    from workers.attribution.maps import Attribution, watched

    window, stride = int(inputs.options["window"]), int(inputs.options["stride"])
    height, width = inputs.pixels.shape[2:]
    if window > min(height, width):
        raise InvalidRequest(f"window: expected at most {min(height, width)}, the input's side, got {window}")
    if stride > window:
        raise InvalidRequest(
            f"stride: expected at most the window's {window}, to leave no gaps, got {stride}"
        )
    size = inputs.chunk or 4 * inputs.size  # no graph is kept
    channels = inputs.pixels.shape[1]
    squares = (-(-(height - window) // stride) + 1) * (-(-(width - window) // stride) + 1)
    with torch.no_grad():
        found = Occlusion(
            watched(inputs.model, inputs.on_progress, len(inputs.pixels) * (squares + 1))
        ).attribute(
            inputs.pixels,
            sliding_window_shapes=(channels, window, window),
            strides=(channels, stride, stride),
            baselines=baseline_pixels(inputs.pixels, inputs.model.mean, inputs.options["baseline"]),
            target=inputs.targets,
            perturbations_per_eval=max(1, size // len(inputs.pixels)),
        )
    drop = found[:, 0].to("cpu", torch.float32)  # the same for all colors: they are hidden together
    return Attribution(drop, True, None, (1,) * len(drop), (None,) * len(drop))


METHOD = Method(
    "occlusion",
    "Occlusion",
    "Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014",
    (
        Parameter("window", 32, "Side of the occluded square, in input pixels.", 1, 512),
        Parameter("stride", 16, "Distance between squares, in input pixels.", 1, 512),
        BASELINE,
    ),
    unit="drop of the logit when the pixel is occluded",
    compute=_compute,
)
