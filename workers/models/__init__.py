"""Vision models: where they come from, what they are fed, and which classes they know.

`load_model` and `VisionModel` are importable from here. They load torch, so they are imported on first use: the web
process reads `names` beside them and must not.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.models.vision import VisionModel, load_model

__all__ = ["VisionModel", "load_model"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from workers.models import vision

        return getattr(vision, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
