"""Which region of the input and of the image a unit's tile shows."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dashboard.pictures.geometry import (
    LayerGeometry,
    cut,
    placement,
    read_layer_geometry,
    read_preprocessing,
    view,
)
from dashboard.state.context import Context
from db.atlas.store import Query
from workers.models.preprocessing import Preprocessing

SQUARE = Preprocessing((224, 224), 256, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
EXACT = dataclasses.replace(SQUARE, resize=(240, 300))
IDENTITY = LayerGeometry((224, 224), (224, 224), (1, 1), (1.0, 1.0), (0.0, 0.0), 1)
WIDE = LayerGeometry((224, 224), (28, 28), (128, 128), (8.0, 8.0), (-60.0, -60.0), 29)
GLOBAL = LayerGeometry((224, 224), (7, 7), None, None, None, 100)

geometries = st.builds(
    lambda size, jump, start, erf: LayerGeometry((224, 224), (14, 14), (size, size), jump, start, erf),
    st.integers(1, 600),
    st.tuples(st.floats(1, 32), st.floats(1, 32)),
    st.tuples(st.floats(-300, 10), st.floats(-300, 10)),
    st.integers(1, 224),
)
places = st.tuples(st.integers(0, 13), st.integers(0, 13))


def test_the_field_of_an_identity_layer_is_its_pixel() -> None:
    assert IDENTITY.field(3, 5) == (3, 5, 4, 6)
    assert view(IDENTITY, 3, 5, "field").window == (3, 5, 4, 6)


def test_a_global_field_is_the_whole_input_and_its_effective_field_sits_over_its_cell() -> None:
    assert GLOBAL.field(0, 6) == (0, 0, 224, 224)
    assert GLOBAL.effective_field(0, 6) == (16 - 50, 208 - 50, 16 + 50, 208 + 50)


def test_a_global_field_with_a_local_part_has_its_effective_field_in_the_middle_of_that() -> None:
    layer = dataclasses.replace(GLOBAL, jump=(32.0, 32.0), start=(0.5, 0.5))
    assert layer.field(0, 6) == (0, 0, 224, 224)
    assert layer.effective_field(0, 6) == (-50, 192 - 50, 50, 192 + 50)


def test_a_field_across_the_edge_keeps_its_scale_and_visible_part() -> None:
    shown = view(WIDE, 0, 0, "field")
    assert shown.window == (0, 0, 128, 128)
    assert shown.visible == (0, 0, 68, 68)


@given(geometries, places, st.sampled_from(["field", "effective", "image"]))
def test_a_window_is_inside_the_input_and_contains_the_visible_part(
    layer: LayerGeometry, place: tuple[int, int], crop: str
) -> None:
    shown = view(layer, *place, crop)  # type: ignore[arg-type]
    top, left, bottom, right = shown.window
    assert 0 <= top < bottom <= 224 + 1e-9
    assert 0 <= left < right <= 224 + 1e-9
    # whole pixels of the visible box may exceed a window with fractional bounds by less than one
    for low, seen_low, seen_high, high in zip(
        (top, left), shown.visible[:2], shown.visible[2:], (bottom, right), strict=True
    ):
        assert low - 1 - 1e-6 <= seen_low <= seen_high <= high + 1 + 1e-6


def test_a_field_wholly_in_the_padding_shows_the_nearest_pixels_and_sees_none_of_them() -> None:
    layer = dataclasses.replace(IDENTITY, start=(-3.0, 300.0))
    shown = view(layer, 0, 5, "field")
    assert shown.window == (0, 223, 1, 224)
    assert shown.visible == (0, 224, 0, 224)


@given(geometries, st.lists(places, min_size=2, max_size=2))
def test_all_tiles_of_a_layer_have_one_scale(layer: LayerGeometry, both: list[tuple[int, int]]) -> None:
    sizes = []
    for place in both:
        window = view(layer, *place, "field").window
        sizes.append((window[2] - window[0], window[3] - window[1]))
    assert sizes[0] == pytest.approx(sizes[1])


@pytest.mark.parametrize("preprocessing", [SQUARE, EXACT])
@given(width=st.integers(40, 700), height=st.integers(40, 700), y=st.integers(0, 200), x=st.integers(0, 200))
def test_boxes_follow_the_preprocessing(
    preprocessing: Preprocessing, width: int, height: int, y: int, x: int
) -> None:
    box = (float(y), float(x), y + 24.0, x + 24.0)
    thumbnail = (height / 2, width / 2)
    where = placement(preprocessing, (height, width), (round(thumbnail[0]), round(thumbnail[1])))
    expected = preprocessing.box_in_image(box, width, height)
    scale = (where.size[0] / height, where.size[1] / width)
    limits = (where.size[0], where.size[1]) * 2
    found = [min(max(edge, 0), limit) for edge, limit in zip(where.box(box), limits, strict=True)]
    assert found == pytest.approx([edge * scale[side % 2] for side, edge in enumerate(expected)], abs=1e-6)


def test_the_placement_locates_the_network_input() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)).resize(
        (400, 300)
    )
    where = placement(SQUARE, (300, 400), (300, 400))
    top, left, bottom, right = where.box((0, 0, 224, 224))
    # the same region taken directly from the photo, as an independent reading
    region = image.resize((224, 224), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    seen = SQUARE(image)
    assert np.abs(np.asarray(region).astype(int) - seen).mean() < 6


def test_boxes_agree_with_the_atlas_for_every_layer(context: Context) -> None:
    catalogue = context.catalogue()
    run = catalogue.runs[0]
    rows = context.atlas.fetch(
        Query(
            "SELECT layer, y, x, box, erf_box FROM patches WHERE run = $run AND rank <= 3",
            {"run": run["run"]},
        )
    )
    layers = {layer["layer"]: read_layer_geometry(layer, run) for layer in catalogue.layers[run["model"]]}
    assert len({row["layer"] for row in rows}) == 58
    for row in rows:
        layer = layers[row["layer"]]
        for name, box in (
            ("box", layer.field(row["y"], row["x"])),
            ("erf_box", layer.effective_field(row["y"], row["x"])),
        ):
            expected = tuple(float(row[name][edge]) for edge in ("y0", "x0", "y1", "x1"))
            assert cut(box, layer.input_size) == expected


def test_preprocessing_is_read_from_the_atlas(context: Context) -> None:
    found = read_preprocessing(context.catalogue().runs[0])
    assert (found.input_size, found.resize, found.interpolation) == ((224, 224), 236, "bicubic")
    assert found.mean == pytest.approx((0.485, 0.456, 0.406))
    exact = read_preprocessing(context.catalogue().runs[0] | {"resize_height": 224, "resize_width": 200})
    assert exact.resize == (224, 200)
