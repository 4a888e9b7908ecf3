"""Attribution methods by name: their parameters with defaults, ranges and meaning, and where they come from.

Imports no torch: pages, the command line and the HTTP interface offer and check methods by this table, and
`workers.attribution.attribute` computes them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.suggestions import hint

Value = float | int | str

# Part of a map's name: goes up when a method computes other numbers from the same request.
ATTRIBUTION_VERSION = 2


class WrongRequest(ValueError):
    """A request cannot be understood; the message names what was given and what is valid."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method. `choices` for a text, `low` and `high` (inclusive) for a number.

    A text without choices is a layer's name; empty means the default that `help` names. Forms call it by its `label`
    and its choices by `words`, in their order, where the names do not speak for themselves.
    """

    name: str
    default: Value
    help: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    label: str = ""
    words: tuple[str, ...] = ()

    def parse(self, given: Any) -> Value:
        """`given`, typed by a person or read from JSON, as this parameter's value.

        Raises:
            WrongRequest: it is of another type or outside the range.
        """
        if isinstance(self.default, str):
            known = (
                given in self.choices
                if self.choices
                else re.fullmatch(r"[\w.-]{0,200}", str(given), re.ASCII)
            )
            if isinstance(given, str) and known:
                return given
            expected = f"one of {', '.join(self.choices)}" if self.choices else "a layer's name"
            raise WrongRequest(f"{self.name}: expected {expected}, got {given!r}{hint(given, self.choices)}")
        whole = isinstance(self.default, int)
        try:
            if isinstance(given, bool):
                raise ValueError
            value = int(given) if whole else float(given)
            if whole and not isinstance(given, str) and value != given:
                raise ValueError
            if not self.low <= value <= self.high:
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            kind = "a whole number" if whole else "a number"
            raise WrongRequest(
                f"{self.name}: expected {kind} from {self.low:g} to {self.high:g}, got {given!r}"
            ) from error
        return value


@dataclass(frozen=True)
class Method:
    """One attribution method. `reference` is where it was published; `seeded` says that it draws noise."""

    name: str
    title: str
    reference: str
    parameters: tuple[Parameter, ...]
    seeded: bool = False

    def parse(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """All parameters of the method, those not given at their defaults.

        Raises:
            WrongRequest: a name that the method has not, or a value out of range.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                have = ", ".join(known) or "none"
                raise WrongRequest(f"{self.name} has no parameter {name!r}: it has {have}{hint(name, known)}")
        return {
            name: parameter.parse(given[name]) if name in given else parameter.default
            for name, parameter in known.items()
        }


def _colours(default: str) -> Parameter:
    return Parameter(
        "colours",
        default,
        "How three colours become one value a pixel: the largest absolute value (max_abs), or their signed sum.",
        choices=("max_abs", "sum"),
        label="color reduction",
        words=("absolute max", "signed sum"),
    )


_SEED = Parameter(
    "seed", 0, "Seed of the noise; the same seed draws the same noise for every image.", 0, 2**31 - 1
)
_DTYPE = Parameter(
    "dtype",
    "float32",
    "Precision of the passes; bfloat16 is faster where the hardware has it.",
    choices=("float32", "bfloat16"),
    label="precision",
)
_BASELINE = Parameter(
    "baseline",
    "mean",
    "What stands for a missing pixel: the mean that the model subtracts, black, or the image blurred.",
    choices=("mean", "black", "blur"),
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "smoothgrad",
            "SmoothGrad",
            "Smilkov et al., SmoothGrad: removing noise by adding noise, 2017",
            (
                Parameter("samples", 25, "Most noisy copies of the image.", 1, 1000),
                Parameter(
                    "noise_level",
                    0.15,
                    "Sigma of the noise divided by (max - min) of the normalised input of that image.",
                    0.0,
                    1.0,
                ),
                _SEED,
                Parameter(
                    "variant",
                    "mean",
                    "mean: SmoothGrad; squared: the mean of squared gradients (Hooker et al., NeurIPS 2019); "
                    "variance: VarGrad (Adebayo et al., 2018).",
                    choices=("mean", "squared", "variance"),
                ),
                Parameter(
                    "agreement",
                    0.5,
                    "Stop before all samples once two halves of them rank the pixels alike: Spearman's correlation "
                    "of the halves, corrected to the whole by Spearman and Brown. 0 never stops early.",
                    0.0,
                    0.999,
                    label="stop at agreement",
                ),
                _colours("max_abs"),
                _DTYPE,
            ),
            seeded=True,
        ),
        Method(
            "gradient",
            "Gradient",
            "Simonyan et al., Deep inside convolutional networks, 2014",
            (_colours("max_abs"), _DTYPE),
        ),
        Method(
            "gradient_x_input",
            "Gradient × Input",
            "Shrikumar et al., Not just a black box, 2016",
            (_colours("sum"),),
        ),
        Method(
            "integrated_gradients",
            "Integrated Gradients",
            "Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017",
            (
                Parameter(
                    "steps", 50, "Points of the Gauss-Legendre rule on the way from the baseline.", 1, 1000
                ),
                _BASELINE,
                _colours("sum"),
            ),
        ),
        Method(
            "guided_backprop",
            "Guided Backprop",
            "Springenberg et al., Striving for simplicity: the all convolutional net, 2015",
            (_colours("max_abs"),),
        ),
        Method(
            "gradcam",
            "Grad-CAM",
            "Selvaraju et al., Grad-CAM: visual explanations from deep networks, ICCV 2017",
            (
                Parameter(
                    "layer",
                    "",
                    "A layer, or any module by its path in the network (layer4.1); empty takes the last map whose "
                    "every position reaches the class, after the residual join.",
                ),
            ),
        ),
        Method(
            "occlusion",
            "Occlusion",
            "Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014",
            (
                Parameter("window", 32, "Side of the square that is hidden, in input pixels.", 1, 512),
                Parameter("stride", 16, "Pixels between two squares.", 1, 512),
                _BASELINE,
            ),
        ),
    )
}
DEFAULT_METHOD = "smoothgrad"


def parse_method(name: str, given: Mapping[str, Any]) -> dict[str, Value]:
    """The parameters of method `name`, complete and checked.

    Raises:
        WrongRequest: no such method, or a parameter that it has not or that is out of range.
    """
    if name not in METHODS:
        raise WrongRequest(f"method: expected one of {', '.join(METHODS)}, got {name!r}{hint(name, METHODS)}")
    return METHODS[name].parse(given)
