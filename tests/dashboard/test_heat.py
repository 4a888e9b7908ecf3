"""Colours of maps, against NumPy and plotly's own interpolation; and maps without extent."""

import numpy as np
import plotly.colors
import pytest

from dashboard import heat


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


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("clip", [50, 99, 100])
def test_limits_are_percentiles_and_zero_keeps_its_place(signed: bool, clip: float) -> None:
    values = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    low, high = heat.limits(values, clip=clip, signed=signed)
    expected = np.sort(np.abs(values).ravel())
    assert high == pytest.approx(
        np.interp(clip / 100 * (expected.size - 1), np.arange(expected.size), expected)
    )
    assert low == (-high if signed else 0)
    share = heat.scaled(np.zeros((1, 1), np.float32), low, high)[0, 0]
    assert share == (0.5 if signed else 0)


def test_values_beyond_the_limits_take_the_colours_of_the_ends() -> None:
    values = np.array([[-9, 0, 1, 9]], np.float32)
    shown = heat.colourise(values, colours="viridis", low=0, high=1)
    table = heat.COLOUR_MAPS["viridis"]
    assert [tuple(pixel) for pixel in shown[0].tolist()] == [table[0], table[0], table[255], table[255]]


@pytest.mark.parametrize("signed", [False, True])
def test_a_constant_map_divides_by_nothing(signed: bool) -> None:
    values = np.zeros((4, 4), np.float32)
    low, high = heat.limits(values, clip=99, signed=signed)
    colours = "rdbu" if signed else "grey"
    shown = heat.colourise(values, colours=colours, low=low, high=high)
    assert (shown == shown[0, 0]).all()


def test_an_overlay_mixes_red_with_red() -> None:
    """Nothing is in OpenCV's order: a red picture stays red, and comes back red from its PNG."""
    red, blue = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 100
    assert heat.overlay(red, blue, 0).tolist() == red.tolist()
    assert heat.overlay(red, blue, 1).tolist() == blue.tolist()
    assert heat.overlay(red, blue, 0.25)[0, 0].tolist() == [150, 0, 25]
    decoded = heat.read_png(heat.png(red))
    assert decoded is not None
    assert decoded.tolist() == red.tolist()


def test_a_damaged_png_is_none() -> None:
    assert heat.read_png(b"") is None
    assert heat.read_png(b"no picture") is None
