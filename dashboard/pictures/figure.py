"""Export figure of a grid of maps, for use in a report: images down, models across.

Pixels and text in, an image out; independent of ledger and addresses.
"""

import functools
import importlib.util
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dashboard.pictures import heat
from dashboard.pictures.heat import Pixels

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

CELL = 224
GAP = 12
MARGIN = 24
LINE = 17
TEXT, SMALL, HEAD = 13, 12, 15
INK, QUIET, FAULT, PAPER, BLANK = "#16191d", "#5b646e", "#b4321f", "#ffffff", "#eceef0"
BAR_WIDTH, BAR_HEIGHT = 256, 12


@dataclass(frozen=True)
class FigureCell:
    """One image with lines of text below it; if `pixels` is None, the text `instead` is shown."""

    pixels: Pixels | None
    lines: tuple[str, ...] = ()
    instead: str = ""


@dataclass(frozen=True)
class FigureRow:
    """One image: its description, then a cell for each column."""

    cells: tuple[FigureCell, ...]


@dataclass(frozen=True)
class ColourBar:
    """A figure's color map, with labels at both ends and in the middle."""

    colours: str
    low: str
    middle: str
    high: str


def compose(
    columns: Sequence[str], rows: Sequence[FigureRow], *, bar: ColourBar, caption: Sequence[str]
) -> Image.Image:
    """The complete figure: column headings, rows of cells, color bar, caption."""
    lines = max((len(cell.lines) for row in rows for cell in row.cells), default=0)
    row_height = CELL + 4 + lines * LINE + GAP
    width = MARGIN * 2 + len(columns) * (CELL + GAP) - GAP
    width = max(width, MARGIN * 2 + 2 * CELL + GAP)
    text, head = _font(TEXT), _font(HEAD)
    told = [line for sentence in caption for line in wrapped(sentence, text, width - 2 * MARGIN)]
    above = MARGIN + LINE + 10
    below = BAR_HEIGHT + LINE + 22
    height = above + len(rows) * row_height + below + len(told) * (LINE + 1) + MARGIN
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    for at, name in enumerate(columns):
        draw.text((_left(at), MARGIN), shortened(name, head, CELL), font=head, fill=INK)
    for number, row in enumerate(rows):
        top = above + number * row_height
        for at, cell in enumerate(row.cells):
            _draw_cell(picture, draw, cell, _left(at), top)
    top = above + len(rows) * row_height + 6
    _draw_bar(picture, draw, bar, top)
    for number, line in enumerate(told):
        draw.text((MARGIN, top + below - 6 + number * (LINE + 1)), written(line), font=text, fill=INK)
    return picture


def _left(column: int) -> int:
    return MARGIN + column * (CELL + GAP)


def _draw_cell(
    picture: Image.Image, draw: ImageDraw.ImageDraw, cell: FigureCell, left: int, top: int
) -> None:
    small = _font(SMALL)
    if cell.pixels is None:
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=BLANK)
        for number, line in enumerate(wrapped(cell.instead, small, CELL - 24)[:10]):
            draw.text((left + 12, top + 12 + number * LINE), written(line), font=small, fill=FAULT)
    else:
        shown = Image.fromarray(cell.pixels)
        if shown.size != (CELL, CELL):
            shown = shown.resize((CELL, CELL), Image.Resampling.LANCZOS)
        picture.paste(shown, (left, top))
    for number, line in enumerate(cell.lines):
        where = (left, top + CELL + 4 + number * LINE)
        draw.text(where, shortened(line, small, CELL), font=small, fill=INK if number == 0 else QUIET)


def _draw_bar(picture: Image.Image, draw: ImageDraw.ImageDraw, bar: ColourBar, top: int) -> None:
    small = _font(SMALL)
    table = np.array(heat.COLOUR_MAPS[bar.colours], np.uint8)
    stripe: Pixels = np.repeat(table[np.newaxis], BAR_HEIGHT, axis=0)
    picture.paste(Image.fromarray(stripe), (MARGIN, top))
    draw.rectangle((MARGIN - 1, top - 1, MARGIN + BAR_WIDTH, top + BAR_HEIGHT), outline="#c3c9d0")
    below = top + BAR_HEIGHT + 3
    draw.text((MARGIN, below), written(bar.low), font=small, fill=QUIET)
    for words, share in ((bar.middle, 0.5), (bar.high, 1.0)):
        length = small.getlength(written(words))
        draw.text((MARGIN + share * (BAR_WIDTH - length), below), written(words), font=small, fill=QUIET)


def shortened(text: str, font: Font, width: float) -> str:
    """`text`, truncated to at most `width` pixels."""
    text = written(text)
    if font.getlength(text) <= width:
        return text
    end = written("…")
    while text and font.getlength(text + end) > width:
        text = text[:-1]
    return text.rstrip() + end


def wrapped(text: str, font: Font, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels; wider words are truncated."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(written(longer)) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, font, width))
    return lines


def written(text: str) -> str:
    """`text` limited to what the font can render: ASCII if DejaVu is missing, which would show boxes otherwise."""
    if _dejavu() is not None:
        return text
    plain = text.translate({ord("×"): "x", ord("–"): "-", ord("…"): "...", ord("≤"): "<="})
    return unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()


@functools.lru_cache(maxsize=1)
def _dejavu() -> Path | None:
    """DejaVu Sans from Matplotlib's files (a dependency of Captum); Pillow's own font lacks × and é."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return path if path.exists() else None


@functools.lru_cache(maxsize=8)
def _font(size: int) -> Font:
    path = _dejavu()
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def png(picture: Image.Image) -> bytes:
    """The image as a PNG."""
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=4)
    return out.getvalue()
