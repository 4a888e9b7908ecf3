"""Probe images show what their names state, verified by Fourier transform, areas and PIL's own colors."""

import math

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from convscope import convscope
from db.atlas.store import Atlas, Query
from db.first_run import STIMULI
from db.settings import Settings
from db.stores.decoding import read_rgb
from db.stores.images import ImageStore
from precompute.images import stimuli
from precompute.images.stimuli import KINDS, Stimulus, design, import_stimuli, paint, parse

LUMA = np.array([0.299, 0.587, 0.114])


def pattern(told: str) -> np.ndarray:
    """Return the luminance of an image in [0, 1]."""
    return paint(parse(told), 224) @ LUMA / 255


def peak(picture: np.ndarray) -> tuple[float, float]:
    """Return frequency, in cycles per image, and orientation of the stripes, in degrees, of the strongest component.

    The image is windowed and padded to 4 times its size, so the resolution is a quarter of a cycle.
    """
    side = len(picture)
    window = np.hanning(side)[:, None] * np.hanning(side)
    spectrum = np.abs(np.fft.fft2((picture - picture.mean()) * window, (4 * side, 4 * side)))
    row, column = np.unravel_index(np.argmax(spectrum), spectrum.shape)
    cycles = np.fft.fftfreq(4 * side, 1 / side)
    across_y, across_x = -cycles[row], cycles[column]  # y up
    return math.hypot(across_x, across_y), (math.degrees(math.atan2(across_y, across_x)) + 90) % 180


@pytest.mark.parametrize("orientation", [0, 15, 30, 90, 120.5, 179])
@pytest.mark.parametrize("frequency", [5, 12, 44])
def test_a_grating_has_its_orientation_and_frequency(orientation: float, frequency: float) -> None:
    told = f"grating/orientation={orientation},frequency={frequency},phase=40,contrast=1,colour=luminance.png"
    found_frequency, found = peak(pattern(told))
    assert found_frequency == pytest.approx(frequency, abs=0.2)
    away = abs(found - orientation) % 180
    assert min(away, 180 - away) < math.degrees(0.3 / frequency)


def test_a_texture_lies_around_its_orientation_and_frequency() -> None:
    told = "texture/orientation=60,frequency=16,bandwidth=0.3,contrast=0.3,colour=luminance,draw={}.png"
    found = np.array([peak(pattern(told.format(draw))) for draw in range(8)])
    assert np.median(found[:, 0]) == pytest.approx(16, rel=0.15)
    assert np.median(found[:, 1]) == pytest.approx(60, abs=8)


@pytest.mark.parametrize("contrast", [0.1, 0.5, 1.0])
def test_contrast_is_michelsons(contrast: float) -> None:
    seen = pattern(f"grating/orientation=90,frequency=2,phase=0,contrast={contrast},colour=luminance.png")
    assert (seen.max() - seen.min()) / (seen.max() + seen.min()) == pytest.approx(contrast, abs=0.01)


@pytest.mark.parametrize("colour", ["red-green", "blue-yellow"])
def test_opponent_gratings_keep_their_luma(colour: str) -> None:
    told = f"grating/orientation=20,frequency=4,phase=0,contrast=1,colour={colour}.png"
    assert np.abs(pattern(told) - 0.5).max() < 0.01
    assert paint(parse(told), 224).astype(int).std(axis=(0, 1)).max() > 50


@pytest.mark.parametrize("exponent", [0, 1, 2])
def test_noise_has_its_spectrum(exponent: float) -> None:
    side = 224
    mean = np.zeros((side, side))
    for draw in range(6):
        told = f"noise/exponent={exponent},contrast=0.15,colour=luminance,draw={draw}.png"
        seen = pattern(told)
        assert seen.std() / seen.mean() == pytest.approx(0.15, abs=0.02)
        mean += np.abs(np.fft.fft2(seen - seen.mean()))
    cycles = np.fft.fftfreq(side, 1 / side)
    far = np.hypot(cycles[:, None], cycles)
    inside = (far >= 4) & (far <= 40)
    slope = np.polyfit(np.log(far[inside]), np.log(mean[inside]), 1)[0]
    assert -slope == pytest.approx(exponent, abs=0.1)


def test_colours_have_their_hue() -> None:
    for hue in range(0, 360, 15):
        seen = Image.fromarray(paint(parse(f"colour/hue={hue},saturation=1,value=1.png"), 8)).convert("HSV")
        found = np.asarray(seen)[0, 0]
        assert found[0] / 255 * 360 == pytest.approx(hue, abs=1.5)
        assert (found[1], found[2]) == (255, 255)


@pytest.mark.parametrize(
    ("symbol", "area"),
    [
        ("circle", math.pi / 4),
        ("square", 1.0),
        ("cross", 5 / 9),
        ("ring", math.pi / 4 * 0.75),
        ("triangle", 3 * math.sqrt(3) / 16),
    ],
)
def test_shapes_have_their_size_and_place(symbol: str, area: float) -> None:
    told = f"shape/symbol={symbol},hue=0,orientation=33,size=0.4,x=0.1,y=-0.2.png"
    red = paint(parse(told), 224).astype(float)[..., 0]
    share = (red - red[0, 0]) / (0.95 * 255 - red[0, 0])
    assert share.sum() / 224**2 == pytest.approx(area * 0.4**2, rel=0.02)
    rows, columns = np.indices(share.shape)
    middle = (
        ((columns * share).sum() / share.sum() + 0.5) / 224,
        ((rows * share).sum() / share.sum() + 0.5) / 224,
    )
    assert middle == pytest.approx((0.6, 0.7), abs=0.01)


def test_bars_edges_and_dots_have_their_size() -> None:
    bar = pattern("bar/orientation=0,size=0.25,x=0,y=0,polarity=light.png")
    assert (bar > 0.5).mean() == pytest.approx(0.25, abs=0.01)
    assert (bar > 0.5).all(axis=1).any(), "orientation 0 lies along x"
    edge = pattern("edge/orientation=0,contrast=1,colour=luminance.png")
    assert edge[:100].min() > 0.95, "light above where it points along x"
    assert edge[-100:].max() < 0.05
    dots = pattern("dots/orientation=0,frequency=7,size=0.5,polarity=dark.png")
    assert (dots < 0.4).mean() == pytest.approx(math.pi / 4 * 0.25, rel=0.05)


def test_an_image_is_determined_by_its_name() -> None:
    for one in design(400, seed=3):
        again = parse(one.name)
        assert again == one
        assert again.name == one.name
    for kind in KINDS:
        one = next(found for found in reversed(design(400, seed=3)) if found.kind == kind)
        assert np.array_equal(paint(one, 64), paint(parse(one.name), 64)), one.name
        assert paint(one, 64).std() > 0 or kind == "colour", f"{one.name} shows nothing"


def test_a_longer_design_begins_with_the_shorter_and_a_seed_decides_the_rest() -> None:
    short, long, other = design(400), design(700), design(400, seed=1)
    assert long[:400] == short
    assert len({one.name for one in long}) == 700
    fixed = len(stimuli.ORIENTATIONS) * len(stimuli.FREQUENCIES) * len(stimuli.PHASES) + len(stimuli.HUES)
    assert short[:fixed] == other[:fixed]
    assert not set(map(str, short[fixed:])) & set(map(str, other[fixed:]))
    drawn = [one.kind for one in long[fixed:]]
    assert max(drawn.count(kind) for kind in KINDS) - min(drawn.count(kind) for kind in KINDS) <= 1


@pytest.mark.parametrize("count", [0, 399, 50_001])
def test_other_counts_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="expected 400 to 50,000 images, got"):
        design(count)


def test_the_view_has_the_parameters_and_a_second_time_adds_nothing(
    atlas: Atlas, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stimuli, "SIDE", 32)
    report = import_stimuli(atlas, store, count=400)
    assert (report.added, report.labelled, report.refused) == (400, 400, ())
    rows = atlas.fetch(
        Query(
            "SELECT * FROM stimuli JOIN images USING (image_set, image_id) "
            "WHERE image_set = 'stimuli' ORDER BY image_id"
        )
    )
    wanted = sorted(design(400), key=lambda one: one.name)
    assert len(rows) == 400
    names = {name for one in wanted for name in one.values}
    for row, one in zip(rows, wanted, strict=True):
        assert (row["kind"], row["label"], row["name"]) == (one.kind, one.kind, one.name)
        assert {name: row[name] for name in names if row[name] is not None} == dict(one.values)
    assert names <= set(rows[0])
    path = store.original_path(str(rows[0]["path"]))
    assert np.array_equal(np.asarray(read_rgb(path.read_bytes())), paint(wanted[0], 32))
    again = import_stimuli(atlas, store, count=400)
    assert (again.added, again.known) == (0, 400)


def test_other_names_are_not_stimuli(atlas: Atlas) -> None:
    assert Stimulus("edge", {"orientation": 1.5}).name == "edge/orientation=1.5.png"
    with atlas.publish() as connection:
        for place, name in enumerate(["a/b.png", "a/b=1.jpg", "x/a/b=1.png", "a/b=1,.png", "a/size=big.png"]):
            connection.execute(
                "INSERT INTO images (image_set, image_id, name) VALUES ('s', ?, ?)", [place, name]
            )
    [row] = atlas.fetch(Query("SELECT image_id, kind, size FROM stimuli"))
    assert row == {"image_id": 4, "kind": "a", "size": None}


def test_stimulus_options_are_refused_for_samples(settings: Settings) -> None:
    run = CliRunner().invoke
    home = {"CONVSCOPE_HOME": str(settings.home)}
    wrong = run(convscope, ["images", "make", "samples", "--count", "500"], env=home)
    assert (wrong.exit_code, wrong.output.splitlines()[-1]) == (
        2,
        "Error: --count and --seed are only for stimuli, got samples",
    )
    few = run(convscope, ["images", "make", STIMULI, "--count", "5"], env=home)
    assert few.exit_code == 2
    assert "400<=x<=50000" in few.output
