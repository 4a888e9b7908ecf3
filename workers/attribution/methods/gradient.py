"""The gradient of a class's logit with respect to the pixels."""

from typing import TYPE_CHECKING

from workers.attribution.method import DTYPE, Method, colors

if TYPE_CHECKING:
    from workers.attribution.maps import Attribution, Inputs


def _compute(inputs: "Inputs") -> "Attribution":
    from workers.attribution.gradients import precision
    from workers.attribution.maps import as_maps, in_chunks

    with precision(inputs.options["dtype"], inputs.pixels.device):
        gradient = in_chunks(inputs)
    return as_maps(gradient, inputs.options["colours"])


METHOD = Method(
    "gradient",
    "Gradient",
    "Simonyan et al., Deep inside convolutional networks, 2014",
    (colors("max_abs"), DTYPE),
    unit="gradient of the class's logit with respect to pixels in [0, 1]",
    compute=_compute,
)
