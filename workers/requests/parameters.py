"""Parameters of methods: defaults, ranges and meaning. Imports no torch.

Attribution methods and attacks describe themselves with these (`workers.attribution.registry`,
`workers.attacks.registry`). Forms, command options, request validation and the pages about methods are
generated from the description.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from db.suggestions import hint

Value = float | int | str
MAX_NUMBER = 2**31 - 1  # the largest number of a row, and the largest seed: columns have 32 bits


class InvalidRequest(ValueError):
    """A request is invalid; the message states what was given and what is valid."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method. `choices` applies to text, `low` and `high` (inclusive) to numbers.

    A text without choices is a layer name; empty selects the default that `help` names. Forms show `label`
    for the parameter and `words` for its choices, in the same order, where the names are not clear enough.
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
        """`given`, typed by a user or read from JSON, as a value of this parameter.

        Raises:
            InvalidRequest: it has the wrong type or is out of range.
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
    """A method as users see it. `reference` is its publication; `seeded` means that it draws noise."""

    name: str
    title: str
    reference: str
    parameters: tuple[Parameter, ...]
    seeded: bool = False

    def parse(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """All parameters of the method, with defaults for those not given.

        Raises:
            InvalidRequest: an unknown name, or a value out of range.
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
        """The description as JSON, without the functions that compute."""
        return {
            "name": self.name,
            "title": self.title,
            "reference": self.reference,
            "parameters": [asdict(parameter) for parameter in self.parameters],
            "seeded": self.seeded,
        }


_Method = TypeVar("_Method", bound=MethodDescription)


def choose(name: Any, known: Mapping[str, _Method]) -> _Method:
    """The method with that name.

    Raises:
        InvalidRequest: there is none.
    """
    if name not in known:
        raise InvalidRequest(f"method: expected one of {', '.join(known)}, got {name!r}{hint(name, known)}")
    return known[name]
