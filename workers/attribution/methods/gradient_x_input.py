"""The gradient times the normalized input."""

from typing import TYPE_CHECKING

from workers.attribution.method import Method, colors

if TYPE_CHECKING:
    from workers.attribution.maps import Attribution, Inputs


def _compute(inputs: "Inputs") -> "Attribution":
    """Uses the normalized input: zero is the mean color, so a black pixel contributes."""
    from workers.attribution.maps import as_maps, in_chunks

    gradient = in_chunks(inputs)
    return as_maps((inputs.pixels - inputs.model.mean) * gradient, inputs.options["colours"])


METHOD = Method(
    "gradient_x_input",
    "Gradient × Input",
    "Shrikumar et al., Not just a black box, 2016",
    (colors("sum"),),
    unit="gradient × (pixel - mean), in logits",
    compute=_compute,
)
