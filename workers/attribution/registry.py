"""The attribution methods, in the order in which forms list them."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from workers.attribution.method import Method
from workers.requests.parameters import Value, choose

# Part of a map's key. Increase it when a method computes different numbers for the same request.
ATTRIBUTION_VERSION = 2
DEFAULT_METHOD = "smoothgrad"

# One line per method: its module in `workers.attribution.methods`.
_MODULES = (
    "smoothgrad",
    "gradient",
    "gradient_x_input",
    "integrated_gradients",
    "guided_backprop",
    "gradcam",
    "occlusion",
)
_FOUND: tuple[Method, ...] = tuple(
    import_module(f"workers.attribution.methods.{name}").METHOD for name in _MODULES
)
METHODS: dict[str, Method] = {method.name: method for method in _FOUND}


def parse_method(name: str, given: Mapping[str, Any]) -> dict[str, Value]:
    """The parameters of method `name`, checked and with defaults filled in.

    Raises:
        InvalidRequest: unknown method or parameter, or a parameter out of range.
    """
    return choose(name, METHODS).parse(given)
