"""The definition of an attribution method: a description, and the function that computes its maps.

A method is one module in `workers.attribution.methods` that defines `METHOD`, and one line in
`workers.attribution.registry`. The web process reads the descriptions, so a module imports torch and
everything that needs torch inside its function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.requests.parameters import MAX_NUMBER, MethodDescription, Parameter

if TYPE_CHECKING:
    from workers.attribution.maps import Attribution, Inputs


@dataclass(frozen=True, kw_only=True)
class Method(MethodDescription):
    """One attribution method.

    Attributes:
        unit: unit of the map's values, in words; a function of the parameters if it depends on them.
        compute: makes the maps, with colors reduced to one value per pixel.
    """

    unit: str | Callable[[Mapping[str, Any]], str]
    compute: "Callable[[Inputs], Attribution]"

    def unit_of(self, parameters: Mapping[str, Any]) -> str:
        """The unit of a map's values, in words."""
        return self.unit if isinstance(self.unit, str) else self.unit(parameters)


def colors(default: str) -> Parameter:
    """The parameter that sets how a gradient's three colors are reduced to one value per pixel."""
    return Parameter(
        "colours",
        default,
        "How the three color channels are reduced to one value per pixel: largest absolute value (max_abs) "
        "or signed sum.",
        choices=("max_abs", "sum"),
        label="color reduction",
        words=("absolute max", "signed sum"),
    )


SEED = Parameter("seed", 0, "Random seed of the noise, which is the same for every image.", 0, MAX_NUMBER)
DTYPE = Parameter(
    "dtype",
    "float32",
    "Precision of the forward and backward passes; bfloat16 is faster on hardware that supports it.",
    choices=("float32", "bfloat16"),
    label="precision",
)
BASELINE = Parameter(
    "baseline",
    "mean",
    "Value of a missing pixel: the mean that the model subtracts, black, or the blurred image.",
    choices=("mean", "black", "blur"),
)
