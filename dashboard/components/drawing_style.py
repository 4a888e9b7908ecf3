"""Stylesheet of the diagram of the network, for Cytoscape.

Cytoscape draws on a canvas and knows no CSS: `browser/drawing.js` replaces each `var(--name)` by the value that
the page's theme gives to it.
"""

from typing import Any

_BOX = {
    "shape": "round-rectangle",
    "background-opacity": 1,
    "border-color": "var(--line)",
    "border-width": 1,
    "label": "data(label)",
    "color": "var(--quiet)",
    "events": "no",
}
_STYLES: dict[str, dict[str, Any]] = {
    "node": {
        "font-family": "var(--font)",
        "font-size": 11,
        "color": "var(--text)",
        "min-zoomed-font-size": 4,
    },
    "node.stage": _BOX
    | {
        "background-color": "var(--sunken)",
        "text-valign": "top",
        "text-halign": "center",
        "text-margin-y": -4,
        "text-margin-x": "data(shift)",
        "font-size": 11,
        "font-weight": 600,
        "padding": 8,
    },
    "node.block": _BOX
    | {
        "background-color": "var(--panel)",
        "text-valign": "center",
        "text-halign": "left",
        "text-margin-x": -3,
        "font-size": 9.5,
        "padding": 6,
    },
    "node.layer": {
        "shape": "round-rectangle",
        "width": "data(width)",
        "height": 24,
        "background-color": "var(--raised)",
        "border-color": "var(--line-strong)",
        "border-width": 1,
        "label": "data(label)",
        "text-valign": "center",
        "text-halign": "center",
        "overlay-opacity": 0,
    },
    "node.layer:active": {"overlay-opacity": 0, "border-color": "var(--accent)", "border-width": 2},
    "edge": {
        "width": 1,
        "line-color": "var(--line-strong)",
        "target-arrow-color": "var(--line-strong)",
        "target-arrow-shape": "triangle",
        "arrow-scale": 0.55,
        "curve-style": "straight",
        "events": "no",
    },
    "edge.down": {"curve-style": "taxi", "taxi-direction": "downward", "taxi-turn": "50%"},
    "edge.past, edge.over": {
        "curve-style": "unbundled-bezier",
        "line-style": "dashed",
        "line-dash-pattern": [3, 3],
        "control-point-distances": -26,
        "control-point-weights": 0.5,
        "line-opacity": 0.5,
        "target-arrow-shape": "none",
    },
    "node.layer.unindexed": {"opacity": 0.4},
    "node.layer.chosen": {
        "background-color": "var(--accent)",
        "border-color": "var(--accent)",
        "color": "var(--on-accent)",
        "font-weight": 600,
    },
}
STYLESHEET = [{"selector": selector, "style": style} for selector, style in _STYLES.items()]
