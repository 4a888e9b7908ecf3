"""What the browser needs to draw a grid of patches: channels down, ranks across.

The grid is drawn from these records by `assets/grid.js`, not from Dash components: a page holds up to 600
cells, and as components they take the browser several times as long. Text goes into the page as text there,
never as HTML.

One picture holds a channel's whole row. Each cell shows its part of it, so the cells can be of any size and
wrap on a narrow screen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.address import ChannelAddress, ImageAddress, PatchesAddress
from dashboard.pictures import row_address
from dashboard.words import activation, percent

Record = Mapping[str, Any]
FIT = 96
FIT_MANY = 64
LARGEST = 384


@dataclass(frozen=True)
class GridRow:
    """One channel: its statistics, how much its patches agree (None: no labels), and its patches by rank."""

    channel: Record
    agreement: Record | None
    patches: Sequence[Record]


def tile_pixels(address: PatchesAddress) -> int:
    """Pixels of a tile in the row's picture; the browser asks for twice as many on a fine screen."""
    if address.tile != "fit":
        return int(address.tile)
    return FIT if address.k <= 12 else FIT_MANY


def grid_records(run: Record, address: PatchesAddress, rows: Iterable[GridRow]) -> dict[str, Any]:
    """The whole grid. Cells link to `image` followed by their image's number; heads link to their channel."""
    image = ImageAddress(model=address.model, images=address.images, id=1).href().removesuffix("1")
    return {
        "k": address.k,
        "tile": address.tile,
        "image": image,
        "rows": [_row(run, address, row) for row in rows],
    }


def _row(run: Record, address: PatchesAddress, row: GridRow) -> dict[str, Any]:
    number = row.channel["channel"]
    tile = tile_pixels(address)
    picture, fine = (
        row_address(dict(run), address.layer, number, k=address.k, crop=address.crop, tile=pixels)
        for pixels in (tile, min(LARGEST, 2 * tile))
    )
    return {
        "channel": number,
        "href": ChannelAddress(
            model=address.model, images=address.images, layer=address.layer, channel=number, crop=address.crop
        ).href(),
        "dead": row.channel["dead"],
        "lines": summary(row),
        "picture": picture,
        "fine": fine,
        "cells": [cell(patch) for patch in row.patches],
    }


def summary(row: GridRow) -> list[str]:
    """What stands below a channel's number: its strongest activation and what its patches agree on."""
    if row.channel["dead"]:
        return ["dead"]
    lines = [f"max {activation(row.channel['max'])}"]
    agreed = row.agreement
    if agreed is not None and agreed["majority_label"]:
        if agreed["classes"] == agreed["labelled"]:
            lines.append("all different" if agreed["labelled"] > 1 else agreed["majority_label"])
        else:
            lines += [agreed["majority_label"], percent(agreed["majority_share"])]
    return lines


def cell(patch: Record) -> list[Any]:
    """One patch: what hovering shows, in the order that `grid.js` names."""
    return [
        patch["rank"],
        activation(patch["activation"]),
        patch["image_id"],
        patch["label"],
        patch["class_index"],
        patch["wnid"],
        patch["name"],
        patch["y"],
        patch["x"],
        box(patch["box"]),
        box(patch["erf_box"]),
    ]


def box(found: Record | None) -> list[int] | None:
    """A half-open box as y0, x0, y1, x1."""
    return None if found is None else [found["y0"], found["x0"], found["y1"], found["x1"]]
