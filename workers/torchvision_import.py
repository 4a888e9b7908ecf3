"""Makes `import torchvision` work next to a torch from a different build.

torchvision's wheel on PyPI is compiled for one CUDA build of torch. With a CPU build its compiled operators
do not load, and `import torchvision` fails where it registers shape functions for `torchvision::nms` and
`torchvision::qnms`, two detection operators that no classifier calls. timm and transformers import
torchvision too, so call this before importing them. Declaring the two schemas without an implementation is
enough: calling `nms` still raises an error, and everything in Python works.
"""

import importlib
from functools import cache
from types import ModuleType
from typing import Any

import torch

_MISSING = ("nms", "qnms")
# A library's definitions disappear when it is garbage-collected.
_KEPT: list[torch.library.Library] = []


@cache
def import_torchvision() -> ModuleType:
    """The torchvision package; the two schemas are declared only if a plain import fails.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in _MISSING:
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _KEPT.append(library)
    return importlib.import_module("torchvision")


def import_library(name: str) -> Any:
    """Module `name` of timm, transformers or torchvision, untyped: their annotations are partial.

    Raises:
        ImportError: the module is not installed.
    """
    import_torchvision()
    return importlib.import_module(name)
