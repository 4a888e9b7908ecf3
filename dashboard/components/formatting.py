"""Format numbers and dates for display."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from db.plurals import count as count


def activation(value: float | None) -> str:
    """An activation with four significant digits: `12.31`, `0.00412`, `1,204`."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value and abs(value) < 0.001:
        return f"{value:.2e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def percent(share: float | None) -> str:
    """A fraction as a percentage: `65 %`; small ones get enough digits to differ from zero."""
    if share is None:
        return "–"
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def probability(share: float) -> str:
    """A probability or share of pixels with one decimal: `62.5 %`."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def short_epsilon(epsilon: float) -> str:
    """An epsilon with three significant digits: `0.003`."""
    return f"{epsilon:.3g}"


def epsilon_words(epsilon: float) -> str:
    """An epsilon as a decimal and in gray levels: `0.003 (0.77/255)`."""
    levels = f"{epsilon * 255:.2f}".rstrip("0").rstrip(".")
    return f"{short_epsilon(epsilon)} ({levels}/255)"


def named_class(name: str | None, index: int | None) -> str:
    """A class with its index, because names repeat: `crane (134)`."""
    return f"{name or 'class'} ({index})"


def box_words(box: Mapping[str, Any] | None) -> str:
    """A half-open box in input pixels: `y 12–55, x 0–43 px`."""
    if box is None:
        return "–"
    if box["y0"] >= box["y1"] or box["x0"] >= box["x1"]:
        return "in the padding"
    return f"y {box['y0']}–{box['y1']}, x {box['x0']}–{box['x1']} px"


def pixels(size: tuple[float | None, float | None]) -> str:
    """One length, or two if they differ: `43 px`, `43 × 21 px`."""
    y, x = size
    if y is None or x is None:
        return "global"
    return f"{y:g} px" if y == x else f"{y:g} × {x:g} px"


def field_size(layer: Mapping[str, Any]) -> str:
    """A layer's theoretical receptive field: `43 px`, `≤ 43 px` if only a bound is known, `global`."""
    if layer["rf_global"]:
        return "global"
    size = pixels((layer["rf_size_y"], layer["rf_size_x"]))
    return size if layer["rf_exact"] else f"≤ {size}"


def byte_size(number: int | None) -> str:
    """A byte count in the most readable unit."""
    if number is None:
        return "–"
    size = float(number)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def when(moment: datetime | None) -> str:
    """A time in UTC: `2026-11-23 07:35 UTC`."""
    if moment is None:
        return "–"
    return moment.replace(tzinfo=UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float | None) -> str:
    """A duration in the most readable unit."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def rough_duration(seconds: float) -> str:
    """A duration for estimates and ages, in whole units: `12 s`, `3 min`, `2 h`, `5 days`."""
    if seconds < 90:
        return f"{round(seconds)} s" if seconds >= 1 else "under 1 s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h" if seconds < 36 * 3600 else f"{round(seconds / 86400)} days"


def patch_sentence(patch: Mapping[str, Any]) -> str:
    """Everything known about a patch, in one line."""
    told = [
        f"rank {patch['rank']}: {patch['label'] or 'no label'}",
        f"activation {activation(patch['activation'])}",
    ]
    if patch["class_index"] is not None:
        told.append(f"class {patch['class_index']}")
    if patch["wnid"]:
        told.append(patch["wnid"])
    return ", ".join(
        [
            *told,
            f"image {patch['image_id']} {patch['name']}",
            f"position row {patch['y']} column {patch['x']}",
            f"field {box_words(patch['box'])}",
            f"effective {box_words(patch['erf_box'])}",
        ]
    )
