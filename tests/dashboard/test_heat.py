"""Colors of maps, against NumPy and plotly's own interpolation; and maps of constant value."""

import numpy as np
import plotly.colors
import pytest

from dashboard.pictures import heat


@pytest.mark.parametrize("name", list(heat.COLOUR_MAPS))
def test_a_colour_map_is_linear_between_plotlys_stops(name: str) -> None:
    table = np.array(heat.COLOUR_MAPS[name])
    assert table.shape == (256, 3)
    stops = heat._STOPS[name]
    for place in (0, 51, 128, 200, 255):
        (expected,) = plotly.colors.sample_colorscale(
            [plotly.colors.label_rgb(plotly.colors.hex_to_rgb(s)) if s.startswith("#") else s for s in stops],
            [place / 255],
        )
        assert np.abs(table[place] - np.array(plotly.colors.unlabel_rgb(expected))).max() <= 1


def test_the_uniform_maps_get_brighter_from_end_to_end() -> None:
    for name in ("inferno", "viridis", "magma", "cividis", "grey"):
        brightness = np.array(heat.COLOUR_MAPS[name]) @ np.array([0.2126, 0.7152, 0.0722])
        assert (np.diff(brightness) > -0.75).all()
        assert brightness[-1] - brightness[0] > 100


def test_the_diverging_map_is_blue_below_pale_in_the_middle_and_red_above() -> None:
    low, middle, high = (heat.COLOUR_MAPS["rdbu"][at] for at in (0, 128, 255))
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert min(middle) > 240


@pytest.mark.parametrize("clip", [50, 99, 100])
def test_the_upper_end_is_a_percentile_of_the_magnitudes(clip: float) -> None:
    values = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    expected = np.sort(np.abs(values).ravel())
    assert heat.highest(values, clip) == pytest.approx(
        np.interp(clip / 100 * (expected.size - 1), np.arange(expected.size), expected)
    )


@pytest.mark.parametrize(("name", "places"), [("viridis", (255, 255, 128, 0)), ("rdbu", (0, 255, 191, 128))])
def test_magnitudes_run_from_zero_and_signs_keep_zero_in_the_middle(
    name: str, places: tuple[int, ...]
) -> None:
    values = np.array([[-9, 9, 0.5, 0]], np.float32)
    shown = heat.colourise(values, colours=name, high=1)
    assert [tuple(pixel) for pixel in shown[0].tolist()] == [heat.COLOUR_MAPS[name][at] for at in places]


@pytest.mark.parametrize("colours", ["rdbu", "grey"])
def test_a_constant_map_divides_by_nothing(colours: str) -> None:
    values = np.zeros((4, 4), np.float32)
    shown = heat.colourise(values, colours=colours, high=heat.highest(values, 99))
    assert (shown == shown[0, 0]).all()


def test_an_overlay_mixes_red_with_red() -> None:
    """Nothing is in OpenCV's channel order: a red image stays red, also when read back from its PNG."""
    red, blue = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 100
    assert heat.overlay(red, blue, 0).tolist() == red.tolist()
    assert heat.overlay(red, blue, 1).tolist() == blue.tolist()
    assert heat.overlay(red, blue, 0.25)[0, 0].tolist() == [150, 0, 25]
    decoded = heat.read_png(heat.png(red))
    assert decoded is not None
    assert decoded.tolist() == red.tolist()


def test_a_damaged_png_reads_as_none() -> None:
    assert heat.read_png(b"") is None
    assert heat.read_png(b"no picture") is None
