"""Integrated Gradients, with Captum: the gradient along the path from a baseline to the image."""

from typing import TYPE_CHECKING

from workers.attribution.method import BASELINE, Method, colors
from workers.requests.parameters import Parameter

if TYPE_CHECKING:
    from workers.attribution.maps import Attribution, Inputs


def _compute(inputs: "Inputs") -> "Attribution":
    from captum.attr import IntegratedGradients

    from workers.attribution.baselines import baseline_pixels
    from workers.attribution.maps import as_maps, watched

    steps = int(inputs.options["steps"])
    total = len(inputs.pixels) * steps
    found = IntegratedGradients(watched(inputs.model, inputs.on_progress, total)).attribute(
        inputs.pixels,
        baselines=baseline_pixels(inputs.pixels, inputs.model.mean, inputs.options["baseline"]),
        target=inputs.targets,
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=max(inputs.size, len(inputs.pixels)),
    )
    return as_maps(found, inputs.options["colours"])


METHOD = Method(
    "integrated_gradients",
    "Integrated Gradients",
    "Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017",
    (
        Parameter("steps", 50, "Number of Gauss-Legendre points on the path from the baseline.", 1, 1000),
        BASELINE,
        colors("sum"),
    ),
    unit="share of the logit's change from the baseline",
    compute=_compute,
)
