"""Diagram of the network: nested stages and blocks, laid out in reading order.

Layers of a block are placed side by side in the order of the forward pass, blocks and stages below each
other. A network of 58 layers therefore fits into a narrow column, and the browser needs no layout engine.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
WIDTH = 320
GUTTER = 50
PILL_HEIGHT = 24
GAP = 9
EDGE = 6  # room for outlines at the right edge
BLOCK_PADDING = 6
BLOCK_GAP = 10
STAGE_PADDING = 8
STAGE_HEAD = 20
STAGE_GAP = 22
MAX_IN_ROW = 4
LETTER = 6.2  # mean width of a character at 11 px


@dataclass(frozen=True)
class Drawing:
    """Cytoscape elements with positions in pixels, and the height of the diagram."""

    elements: list[dict[str, Any]]
    height: int
    width: int = WIDTH


def draw(
    layers: Sequence[Record],
    edges: Iterable[tuple[str, str]],
    *,
    indexed: Collection[str] | None = None,
    model: str = "",
) -> Drawing:
    """Lay out `layers`, given in the order of the forward pass, and mark those not in `indexed`.

    Ids start with `model`: Cytoscape cannot move an element to another block if the next model contains the
    same name.
    """
    nodes: list[dict[str, Any]] = []
    spots: dict[str, tuple[int, int]] = {}  # layer -> (row, column)
    top, line = 10, 0
    for (number, stage), members in _runs(layers, lambda layer: layer["stage"]):
        stage_id = None
        if stage is not None:
            stage_id = f"{model} stage {number} {stage}"
            data = {"id": stage_id, "label": stage, "shift": _label_shift(stage, members)}
            nodes.append({"data": data, "classes": "stage", "selectable": False})
            top += STAGE_HEAD
        for (place, block), inside in _runs(members, lambda layer: layer["block"]):
            parent = stage_id
            if block is not None:
                parent = f"{model} block {number} {place} {block}"
                nodes.append(
                    {
                        "data": {"id": parent, "label": block} | ({"parent": stage_id} if stage_id else {}),
                        "classes": "block",
                        "selectable": False,
                    }
                )
            for chunk in _chunks(inside):
                wide = _pill_width(len(chunk))
                for column, layer in enumerate(chunk):
                    left = GUTTER + STAGE_PADDING + BLOCK_PADDING + column * (wide + GAP)
                    if block is None and len(chunk) == 1:
                        left = GUTTER + STAGE_PADDING + BLOCK_PADDING
                    pill = _pill(
                        f"{model}{layer['layer']}",
                        layer,
                        parent,
                        x=left + wide / 2,
                        y=top + PILL_HEIGHT / 2,
                        width=wide,
                    )
                    if indexed is not None and layer["layer"] not in indexed:
                        pill["classes"] += " unindexed"
                    nodes.append(pill)
                    spots[layer["layer"]] = (line, column)
                top += PILL_HEIGHT + GAP
                line += 1
            top += BLOCK_GAP + BLOCK_PADDING - GAP + (BLOCK_PADDING if block is not None else 0)
        top += STAGE_GAP - BLOCK_GAP
    lines = [
        _edge(source, target, spots, model) for source, target in edges if source in spots and target in spots
    ]
    return Drawing(nodes + lines, height=top + 4)


def as_picture(drawing: Drawing) -> dict[str, Any]:
    """The diagram without Cytoscape: positioned pills and headings, and edges that need no routing."""
    pills = [element for element in drawing.elements if element.get("classes", "").startswith("layer")]
    names = {
        element["data"]["id"]: element["data"] for element in drawing.elements if "label" in element["data"]
    }
    nodes: list[dict[str, Any]] = []
    for pill in pills:
        data, place = pill["data"], pill["position"]
        inside = names.get(data.get("parent", ""), {})
        stage = names.get(inside.get("parent", ""), inside)
        if stage and not any(node["id"] == stage["id"] for node in nodes):
            left = place["x"] - data["width"] / 2
            top = place["y"] - PILL_HEIGHT / 2 - BLOCK_PADDING
            nodes.append({"id": stage["id"], "label": stage["label"], "x": left, "y": top, "head": True})
        nodes.append({"id": data["layer"], "label": data["label"], "width": data["width"], **place})
    layers = {pill["data"]["id"]: pill["data"]["layer"] for pill in pills}
    edges = [
        {"source": layers[element["data"]["source"]], "target": layers[element["data"]["target"]]}
        for element in drawing.elements
        if element.get("classes") in ("beside", "down")
    ]
    return {"nodes": nodes, "edges": edges, "width": drawing.width, "height": drawing.height, "left": GUTTER}


def _label_shift(stage: str, members: Sequence[Record]) -> int:
    """Horizontal shift of a stage's label from the middle of its box to the left corner."""
    lines = [_chunks(list(inside)) for _, inside in itertools.groupby(members, lambda layer: layer["block"])]
    inner = GUTTER + STAGE_PADDING + BLOCK_PADDING
    widest = max(len(line) * (_pill_width(len(line)) + GAP) - GAP for chunks in lines for line in chunks)
    left = 2 if any(layer["block"] is not None for layer in members) else inner - STAGE_PADDING
    right = inner + widest + STAGE_PADDING + BLOCK_PADDING
    return round(left + 4 + LETTER * len(stage) / 2 - (left + right) / 2)


def _runs(layers: Iterable[Record], of: Any) -> list[tuple[tuple[int, str | None], list[Record]]]:
    """Consecutive layers that share a group, numbered: a group that reappears later is drawn again."""
    grouped = itertools.groupby(layers, of)
    return [((number, name), list(members)) for number, (name, members) in enumerate(grouped)]


def _chunks(layers: Sequence[Record]) -> list[Sequence[Record]]:
    """Lines of nearly equal length, at most MAX_IN_ROW each."""
    lines = -(-len(layers) // MAX_IN_ROW)
    size = -(-len(layers) // lines)
    return [layers[start : start + size] for start in range(0, len(layers), size)]


def _pill_width(count: int) -> int:
    room = WIDTH - GUTTER - 2 * STAGE_PADDING - 2 * BLOCK_PADDING - EDGE
    width = (room - (max(count, 3) - 1) * GAP) // max(count, 3) if count > 1 else room
    return width - width % 2  # centers on whole pixels keep the text sharp


def _pill(
    pill_id: str, layer: Record, parent: str | None, *, x: float, y: float, width: int
) -> dict[str, Any]:
    name = layer["label"].rsplit(" > ", 1)[-1]
    fits = max(4, int(width / LETTER))
    data = {"id": pill_id, "layer": layer["layer"], "label": _shortened(name, fits), "width": width}
    if parent is not None:
        data["parent"] = parent
    return {"data": data, "position": {"x": x, "y": y}, "classes": "layer", "grabbable": False}


def _shortened(name: str, length: int) -> str:
    """`name` cut to `length`: leading parts first, because names of a block differ at their end."""
    while len(name) > length and "." in name:
        name = name.partition(".")[2]
    return name if len(name) <= length else name[: length - 1] + "…"


def _edge(source: str, target: str, spots: Mapping[str, tuple[int, int]], model: str) -> dict[str, Any]:
    """An edge to the side, down to the next line, or past several lines (a shortcut)."""
    (row, column), (row_to, column_to) = spots[source], spots[target]
    if row == row_to:
        kind = "beside" if abs(column - column_to) == 1 else "over"
    else:
        kind = "down" if row_to - row == 1 else "past"
    ends = {"source": f"{model}{source}", "target": f"{model}{target}"}
    return {"data": {"id": f"{model}{source} -> {target}", **ends}, "classes": kind}
