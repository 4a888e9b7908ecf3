"""Vision models: their sources, preprocessing and class vocabularies.

`load_model` and `VisionModel` can be imported from here. They load torch, so they are imported on first use:
the web process imports `names` from this package and must not load torch.
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
