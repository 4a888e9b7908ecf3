"""Color maps: from a map's values to colors.

All server-side coloring happens here; `browser/heat.js` must match it. Pixels are uint8 H,W,3 in R, G, B.
"""

import cv2
import numpy as np
import numpy.typing as npt
import plotly.colors

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]

LOWEST_CLIP, HIGHEST_CLIP = 50.0, 100.0
DEFAULT_CLIP = 99.5
# Perceptually uniform color maps first; the last is diverging, for signed maps.
_STOPS = {
    "inferno": plotly.colors.sequential.Inferno,
    "viridis": plotly.colors.sequential.Viridis,
    "magma": plotly.colors.sequential.Magma,
    "cividis": plotly.colors.sequential.Cividis,
    "grey": ["#000000", "#ffffff"],
    "rdbu": plotly.colors.diverging.RdBu[::-1],
}
DIVERGING = "rdbu"  # of signed maps
PLAIN = "inferno"  # of others


def table_for(*, signed: bool) -> str:
    """The color map of maps if nobody chose one."""
    return DIVERGING if signed else PLAIN


def _table(stops: list[str]) -> tuple[tuple[int, int, int], ...]:
    """256 colors, linearly interpolated between the stops."""
    rgb = np.array(
        [
            plotly.colors.hex_to_rgb(stop) if stop.startswith("#") else plotly.colors.unlabel_rgb(stop)
            for stop in stops
        ],
        float,
    )
    at = np.linspace(0, len(rgb) - 1, 256)
    channels = [np.interp(at, np.arange(len(rgb)), rgb[:, channel]) for channel in range(3)]
    return tuple((int(r), int(g), int(b)) for r, g, b in np.floor(np.stack(channels, 1) + 0.5))


COLOUR_MAPS: dict[str, tuple[tuple[int, int, int], ...]] = {
    name: _table(stops) for name, stops in _STOPS.items()
}


def highest(values: Values, clip: float) -> float:
    """The value at the upper end of the color map: the `clip`-th percentile of the absolute values."""
    return float(np.percentile(np.abs(values), clip))


def scaled(values: Values, high: float, *, diverging: bool) -> npt.NDArray[np.float64]:
    """Color map positions in [0, 1]: of magnitudes from 0 to `high`, or of values from -`high` to `high`.

    If `high` is 0, all values lie at the lower end, or in the middle if diverging.
    """
    wide = values.astype(np.float64)
    share = np.divide(wide if diverging else np.abs(wide), high) if high > 0 else np.zeros(values.shape)
    return np.clip((share + 1) / 2 if diverging else share, 0, 1)


def colourise(values: Values, *, colours: str, high: float) -> Pixels:
    """The map in color; only the diverging color map shows signs, all others show magnitudes."""
    table = np.array(COLOUR_MAPS[colours], np.uint8)
    places = scaled(values, high, diverging=colours == DIVERGING)
    coloured: Pixels = table[np.floor(places * 255 + 0.5).astype(np.intp)]
    return coloured


def overlay(picture: Pixels, coloured: Pixels, strength: float) -> Pixels:
    """`coloured` blended over `picture`: strength 0 shows the image alone, 1 the map alone."""
    mixed = picture * (1 - strength) + coloured * strength
    return np.floor(mixed + 0.5).astype(np.uint8)


def png(pixels: Pixels) -> bytes:
    """`pixels` as a PNG."""
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))
    assert encoded, "PNG takes every array of bytes"
    return data.tobytes()


def read_png(data: bytes) -> Pixels | None:
    """Pixels of a PNG; None if it is damaged."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    return None if decoded is None else np.ascontiguousarray(decoded[:, :, ::-1]).astype(np.uint8, copy=False)
