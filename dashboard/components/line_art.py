"""Lines drawn in Python as SVG, in the colors of the theme.

Dash has no SVG elements, and an SVG image does not see the page's colors. So the image is the mask of an
element: its lines let the element's background through, whose color is set in CSS.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from dash import html

from dashboard.components.elements import Component, attributes

Point = tuple[float, float]


def line_art(
    lines: Iterable[Sequence[Point]],
    *,
    size: Point,
    className: str,
    width: float = 1,
    dashes: str = "",
    stretch: bool = False,
) -> Component:
    """An element of that class that shows polylines, each a sequence of (x, y).

    Args:
        size: width and height of the drawing, in the unit of the points.
        width: of a line, in CSS pixels if the drawing is stretched, else in the unit of the points.
        dashes: lengths of dashes and gaps, such as `4 3`; empty for solid lines.
        stretch: fill the element in both directions, instead of keeping the proportions.
    """
    shapes = "".join(
        f"<polyline points={quoteattr(' '.join(f'{x:.6g},{y:.6g}' for x, y in line))}/>" for line in lines
    )
    fit = ' preserveAspectRatio="none"' if stretch else ""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:g} {size[1]:g}"{fit}>'
        f"<style>polyline{{fill:none;stroke:#000;stroke-width:{width:g};stroke-dasharray:{dashes or 'none'};"
        f"vector-effect:non-scaling-stroke}}</style>{shapes}</svg>"
    )
    mask = f'url("data:image/svg+xml,{quote(svg)}")'
    return html.Div(
        className=f"line-art {className}",
        style={"maskImage": mask, "maskSize": "100% 100%"},
        **attributes(aria_hidden="true"),
    )
