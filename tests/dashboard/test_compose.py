"""Rendering of patch tiles and rows of tiles."""

import cv2
import numpy as np
import pytest

from dashboard.pictures import compose
from dashboard.pictures.geometry import Placement, View

EVERYTHING = Placement((1.0, 1.0), (0.0, 0.0), (224, 224))


def ramp(height: int, width: int) -> compose.Pixels:
    """Blue encodes the column, green the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def test_a_whole_image_at_its_size_is_unchanged() -> None:
    picture = ramp(224, 224)
    shown = View((0, 0, 224, 224), (0, 0, 224, 224))
    assert np.array_equal(compose.tile(picture, EVERYTHING, shown, 224), picture)


@pytest.mark.parametrize("box", [(10, 20, 14, 24), (100, 50, 143, 93), (0, 0, 56, 56), (168, 168, 224, 224)])
def test_an_enlarged_tile_shows_the_pixels_of_its_box(box: tuple[int, int, int, int]) -> None:
    picture = ramp(224, 224)
    made = compose.tile(picture, EVERYTHING, View(box, box), 128)
    y0, x0, y1, x1 = box
    expected = cv2.resize(picture[y0:y1, x0:x1], (128, 128), interpolation=cv2.INTER_LINEAR)
    assert np.abs(made[8:-8, 8:-8].astype(int) - expected[8:-8, 8:-8]).max() <= 3


def test_a_reduced_tile_is_the_mean_of_its_pixels() -> None:
    picture = ramp(224, 224)
    made = compose.tile(picture, EVERYTHING, View((0, 0, 192, 192), (0, 0, 192, 192)), 48)
    expected = picture[:192, :192].reshape(48, 4, 48, 4, 3).mean(axis=(1, 3))
    assert np.abs(made - expected).max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (48, 31), (128, 128)])
@pytest.mark.parametrize("source", [(224, 224), (197, 230), (130, 128)])
def test_the_quick_reduction_is_the_area_filter(source: tuple[int, int], size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*source, 3)).astype(np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 2.5).astype(np.uint8)
    expected = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(compose.reduced(picture, size) - expected).mean() < 1


def test_pixels_outside_the_receptive_field_are_faded() -> None:
    picture = ramp(224, 224)
    made = compose.tile(picture, EVERYTHING, View((0, 0, 128, 128), (0, 0, 64, 128)), 128)
    assert np.array_equal(made[:64], picture[:64, :128])
    expected = picture[64:128, :128] * (1 - compose.FADING) + np.array(compose.BLANK) * compose.FADING
    assert np.abs(made[64:] - expected).max() <= 1


@pytest.mark.parametrize("seen", [(0, 0, 0, 64), (128, 0, 128, 128), (0, 128, 128, 128)])
def test_a_unit_that_sees_padding_alone_has_a_tile_faded_all_over(seen: tuple[int, int, int, int]) -> None:
    picture = ramp(224, 224)
    made = compose.tile(picture, EVERYTHING, View((0, 0, 128, 128), seen), 128)
    expected = picture[:128, :128] * (1 - compose.FADING) + np.array(compose.BLANK) * compose.FADING
    assert np.abs(made - expected).max() <= 1


def test_where_the_image_does_not_reach_a_tile_is_blank() -> None:
    small = Placement((1.0, 1.0), (-40.0, 0.0), (144, 224))
    made = compose.tile(ramp(144, 224), small, View((0, 0, 224, 224), (0, 0, 224, 224)), 224)
    assert (made[:39] == compose.BLANK).all()
    assert (made[185:] == compose.BLANK).all()
    assert np.abs(made[41:183].astype(int) - ramp(144, 224)[1:143]).max() <= 2


def test_boxes_are_drawn_in_their_colours() -> None:
    boxes = ((32.0, 32.0, 192.0, 192.0), (96.0, 96.0, 128.0, 128.0))
    made = compose.tile(ramp(224, 224), EVERYTHING, View((0, 0, 224, 224), (0, 0, 224, 224), boxes), 224)
    assert tuple(made[32, 100]) == compose.FIELD_COLOUR
    assert tuple(made[96, 110]) == compose.EFFECTIVE_COLOUR


def test_no_tile_bleeds_into_its_neighbour() -> None:
    tiles = [np.full((48, 48, 3), colour, np.uint8) for colour in ((0, 0, 250), (250, 0, 0), (0, 250, 0))]
    made = cv2.imdecode(np.frombuffer(compose.row(tiles), np.uint8), cv2.IMREAD_COLOR)
    assert made is not None
    for number, tile in enumerate(tiles):
        shown = made[:, 48 * number : 48 * number + 48].astype(int)
        assert np.abs(shown - tile).max() <= 6


def test_tile_sizes_are_whole_jpeg_blocks() -> None:
    assert all(size % 8 == 0 for size in compose.TILE_SIZES)


@pytest.mark.parametrize("size", compose.TILE_SIZES)
def test_a_missing_image_has_a_placeholder_tile(size: int) -> None:
    assert compose.missing(size).shape == (size, size, 3)
