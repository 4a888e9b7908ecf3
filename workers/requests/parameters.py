"""What can be asked of a method: parameters with defaults, ranges and meaning. Imports no torch.

A method of attribution or attack describes itself by these (`workers.attribution.registry`,
`workers.attacks.registry`). Forms, options of commands, checks of requests and the pages about methods are made from
the description.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from db.suggestions import hint

Value = float | int | str


class InvalidRequest(ValueError):
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
            InvalidRequest: it is of another type or outside the range.
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
            raise InvalidRequest(
                f"{self.name}: expected {expected}, got {given!r}{hint(given, self.choices)}"
            )
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
            raise InvalidRequest(
                f"{self.name}: expected {kind} from {self.low:g} to {self.high:g}, got {given!r}"
            ) from error
        return value


@dataclass(frozen=True)
class MethodDescription:
    """A method as people see it. `reference` is where it was published; `seeded` says that it draws noise."""

    name: str
    title: str
    reference: str
    parameters: tuple[Parameter, ...]
    seeded: bool = False

    def parse(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """All parameters of the method, those not given at their defaults.

        Raises:
            InvalidRequest: a name that the method has not, or a value out of range.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                have = ", ".join(known) or "none"
                raise InvalidRequest(
                    f"{self.name} has no parameter {name!r}: it has {have}{hint(name, known)}"
                )
        return {
            name: parameter.parse(given[name]) if name in given else parameter.default
            for name, parameter in known.items()
        }

    def facts(self) -> dict[str, Any]:
        """The description as JSON holds it: without what computes."""
        return {
            "name": self.name,
            "title": self.title,
            "reference": self.reference,
            "parameters": [asdict(parameter) for parameter in self.parameters],
            "seeded": self.seeded,
        }


_Method = TypeVar("_Method", bound=MethodDescription)


def choose(name: Any, known: Mapping[str, _Method]) -> _Method:
    """The one of the `known` methods that has that name.

    Raises:
        InvalidRequest: there is none.
    """
    if name not in known:
        raise InvalidRequest(f"method: expected one of {', '.join(known)}, got {name!r}{hint(name, known)}")
    return known[name]
