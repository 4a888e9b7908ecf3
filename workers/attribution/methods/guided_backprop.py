"""Guided Backprop (`workers.attribution.guided`), for every activation.

Captum's version modifies only `nn.ReLU` and silently returns the plain gradient for networks with ReLU6,
GELU, SiLU or `F.relu`.
"""

from typing import TYPE_CHECKING

from workers.attribution.method import Method, colors
from workers.requests.parameters import InvalidRequest

if TYPE_CHECKING:
    from workers.attribution.maps import Attribution, Inputs


def _compute(inputs: "Inputs") -> "Attribution":
    from workers.attribution.guided import positive_gradients
    from workers.attribution.maps import as_maps, in_chunks

    with positive_gradients(inputs.model.network) as found:
        guided = in_chunks(inputs)
    if not found:
        raise InvalidRequest(
            "guided_backprop: expected a model with activations such as ReLU or GELU, found none"
        )
    return as_maps(guided, inputs.options["colours"])


METHOD = Method(
    "guided_backprop",
    "Guided Backprop",
    "Springenberg et al., Striving for simplicity: the all convolutional net, 2015",
    (colors("max_abs"),),
    unit="guided gradient of the class's logit with respect to pixels in [0, 1]",
    compute=_compute,
)
