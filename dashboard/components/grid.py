"""Records from which the browser draws the patch grid: channels down, ranks across.

`browser/grid.js` draws the grid from these records instead of Dash components: a page has up to 600 cells, and
as components they take the browser several times as long. Text is inserted as text, never as HTML.

One image contains a channel's whole row. Each cell shows its part of it, so cells can have any size and wrap
on a narrow screen.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.components.formatting import activation, box_words, percent
from dashboard.pictures.geometry import Box, LayerGeometry, cut
from dashboard.pictures.routes import row_address
from dashboard.state.address import ChannelAddress, ImageAddress, PatchesAddress

Record = Mapping[str, Any]
FIT = 96
FIT_MANY = 64
LARGEST = 384


@dataclass(frozen=True)
class GridRow:
    """One channel: its statistics, and all its patches by rank."""

    channel: Record
    cells: Sequence[Record]


def tile_pixels(address: PatchesAddress) -> int:
    """Tile size in pixels in the row's image; on a high-resolution screen the browser requests twice that."""
    if address.tile != "fit":
        return int(address.tile)
    return FIT if address.k <= 12 else FIT_MANY


def grid_records(
    run: Record, address: PatchesAddress, geometry: LayerGeometry, rows: Iterable[GridRow]
) -> dict[str, Any]:
    """The whole grid. Cells link to `image` followed by their image's id; row headings link to their channel."""
    image = ImageAddress(model=address.model, images=address.images, id=1).href().removesuffix("1")
    return {
        "k": address.k,
        "tile": address.tile,
        "image": image,
        "rows": [_row(run, address, geometry, row) for row in rows],
    }


def _row(run: Record, address: PatchesAddress, geometry: LayerGeometry, row: GridRow) -> dict[str, Any]:
    number = row.channel["channel"]
    tile = tile_pixels(address)
    picture, fine = (
        row_address(dict(run), address.layer, number, k=address.k, crop=address.crop, tile=pixels)
        for pixels in (tile, min(LARGEST, 2 * tile))
    )
    return {
        "channel": number,
        "href": address.at(ChannelAddress, channel=number).href(),
        "dead": row.channel["dead"],
        "lines": summary(row),
        "picture": picture,
        "fine": fine,
        "cells": [cell(patch, geometry) for patch in row.cells[: address.k]],
    }


def summary(row: GridRow) -> list[str]:
    """Text below a channel's number: its maximum activation and what its patches have in common."""
    if row.channel["dead"]:
        return ["dead"]
    lines = [f"max {activation(row.channel['max'])}"]
    if tied(row.cells):
        return [*lines, f"all {len(row.cells)} tied"]
    agreed = agreement(row.cells)
    if agreed is not None and agreed.labelled > 1:
        lines += (
            ["all different"] if agreed.classes == agreed.labelled else [agreed.label, percent(agreed.share)]
        )
    return lines


def tied(cells: Sequence[Record]) -> bool:
    """Whether all of a channel's top-k have the same activation; they are then simply the lowest image ids."""
    return len(cells) > 1 and bool(cells[0]["activation"] == cells[-1]["activation"])


@dataclass(frozen=True)
class Agreement:
    """The most frequent class among the labeled images of a channel's top-k, as in the view `selectivity`."""

    labelled: int
    classes: int
    label: str
    share: float


def agreement(cells: Sequence[Record]) -> Agreement | None:
    """How far `cells` agree on a class; None if no image has a label."""
    labels = {
        cell["wnid"] or cell["label"]: cell["label"] or cell["wnid"]
        for cell in cells
        if cell["wnid"] or cell["label"]
    }
    counts = Counter(key for cell in cells if (key := cell["wnid"] or cell["label"]))
    if not counts:
        return None
    first = min(counts, key=lambda key: (-counts[key], key))
    return Agreement(counts.total(), len(counts), labels[first], counts[first] / counts.total())


def cell(patch: Record, geometry: LayerGeometry) -> dict[str, Any]:
    """One patch: its image, and names and values of what is known about it; the first pair is the heading."""
    place = (patch["y"], patch["x"])
    field = cut(geometry.field(*place), geometry.input_size)
    effective = cut(geometry.effective_field(*place), geometry.input_size)
    facts = [
        (patch["label"] or "no label", f"rank {patch['rank']}"),
        ("activation", activation(patch["activation"])),
        ("class", "" if patch["class_index"] is None else str(patch["class_index"])),
        ("WNID", patch["wnid"]),
        ("image", f"{patch['image_id']} · {patch['name'].rpartition('/')[2]}"),
        ("position", f"row {patch['y']}, column {patch['x']}"),
        ("field", _box_words(field)),
        ("effective", _box_words(effective)),
    ]
    return {"image": patch["image_id"], "facts": [fact for fact in facts if fact[1]]}


def _box_words(box: Box) -> str:
    return box_words(dict(zip(("y0", "x0", "y1", "x1"), map(int, box), strict=True)))
