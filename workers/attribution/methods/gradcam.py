"""Grad-CAM at any layer (`workers.attribution.gradcam`)."""

import functools
from typing import TYPE_CHECKING

from workers.attribution.method import Method
from workers.requests.parameters import Parameter

if TYPE_CHECKING:
    from workers.attribution.maps import Attribution, Inputs


def _compute(inputs: "Inputs") -> "Attribution":
    import torch

    from workers.attribution.gradcam import choose_map, gradcam
    from workers.attribution.maps import Attribution, in_chunks

    at = choose_map(inputs.model, str(inputs.options["layer"]))
    heat = in_chunks(inputs, functools.partial(gradcam, at=at))
    heat = heat.to("cpu", torch.float32)
    layer = str(inputs.options["layer"]) or at.name
    return Attribution(heat, False, None, (1,) * len(heat), (None,) * len(heat), layer)


METHOD = Method(
    "gradcam",
    "Grad-CAM",
    "Selvaraju et al., Grad-CAM: visual explanations from deep networks, ICCV 2017",
    (
        Parameter(
            "layer",
            "",
            "A layer, or the path of any module (layer4.1); if empty, the last map after a residual "
            "addition all of whose positions reach the class.",
        ),
    ),
    unit="weighted activation of the layer",
    compute=_compute,
)
