"""The attacks, in the order in which forms list them, and the validation of a request. Imports no torch."""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from workers.attacks.attack import Attack
from workers.requests.epsilons import LEVELS, grid_of
from workers.requests.parameters import InvalidRequest, Value, choose

# Part of an attack's key. Increase it when the same request gives a different result.
ATTACK_VERSION = 2
DEFAULT_ATTACK = "fgsm"

# One line per attack: its module in `workers.attacks.methods`.
_MODULES = (
    "fgsm",
    "pgd",
)
_FOUND: tuple[Attack, ...] = tuple(
    import_module(f"workers.attacks.methods.{name}").ATTACK for name in _MODULES
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _FOUND}


def parse_attack(name: str, given: Mapping[str, Any]) -> dict[str, Value]:
    """All parameters that an attack with this method depends on, without those that the mode does not read.

    Raises:
        InvalidRequest: unknown method or parameter, or no epsilon is left to try.
    """
    method = choose(name, ATTACKS)
    values = method.parse(given)
    if "grid" not in given and ("step" in given or values["levels"] == "8-bit"):
        values["grid"] = "linear"
    elif values["mode"] == "smallest" and values["levels"] == "8-bit" and values["grid"] != "linear":
        raise InvalidRequest(
            f"grid: expected linear where levels is 8-bit, because its epsilons are n/255, got {values['grid']!r}"
        )
    for part, why in unread(values).items():
        if part in given and values[part] != _default(method, part):
            raise InvalidRequest(f"{part}: not used where {why}")
        del values[part]
    if values["levels"] == "8-bit":
        for part, rounded in (("epsilon", round), ("step", round), ("cap", _floor), ("minimum", _ceil)):
            if part in values:
                level = rounded(float(values[part]) * LEVELS)
                values[part] = max(level, 1 if part == "step" else 0) / LEVELS
    grid_of(values)
    return values


def unread(values: Mapping[str, Value]) -> dict[str, str]:
    """The parameters that a request with these values of all does not read, and why."""
    if values["mode"] == "fixed":
        return dict.fromkeys(("grid", "ratio", "parts", "step", "cap", "minimum", "scan"), "mode is fixed")
    why = f"grid is {values['grid']}"
    others = ("step",) if values["grid"] == "geometric" else ("ratio", "parts")
    return {"epsilon": "mode is smallest"} | dict.fromkeys(others, why)


def _floor(value: float) -> int:
    return math.floor(value + 1e-6)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-6)


def _default(method: Attack, name: str) -> Value:
    return next(parameter.default for parameter in method.parameters if parameter.name == name)
