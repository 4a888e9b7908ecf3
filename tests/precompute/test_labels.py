"""Labels from folder and file names; the expected values are written out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precompute.images.labels import read_places
from precompute.images.wordnet import Label

TENCH, SNAKE = "n01440764", "n01751748"


def said(names: list[str]) -> list[tuple[str | None, str | None, str | None]]:
    """Return (split, WNID, class name) of each image."""
    return [
        (place.split, place.label and place.label.wnid, place.label and place.label.name)
        for place in read_places(names)
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(
            [f"{TENCH}/a.jpg", f"{SNAKE}/b.jpg"],
            [(None, TENCH, "tench"), (None, SNAKE, "sea snake")],
            id="folders of WNIDs",
        ),
        pytest.param(
            ["cat/a.jpg", "crane/b.jpg", "crane/more/c.jpg"],
            [(None, None, "cat"), (None, None, "crane"), (None, None, "crane")],
            id="folders of names, as in ImageFolder",
        ),
        pytest.param(
            [f"train/{TENCH}/a.jpg", f"val/{SNAKE}/b.jpg"],
            [("train", TENCH, "tench"), ("val", SNAKE, "sea snake")],
            id="splits",
        ),
        pytest.param(
            ["imagenet/ILSVRC/train/cat/a.jpg", "imagenet/ILSVRC/Validation/dog/b.jpg"],
            [("train", None, "cat"), ("val", None, "dog")],
            id="folders around everything",
        ),
        pytest.param(
            ["train/a.jpg", "car/b.jpg", "test/c.jpg"],
            [(None, None, "train"), (None, None, "car"), (None, None, "test")],
            id="train is a vehicle beside car",
        ),
        pytest.param(["a.jpg", "b.jpg"], [(None, None, None)] * 2, id="flat"),
        pytest.param(["photos/a.jpg", "photos/b.jpg"], [(None, None, None)] * 2, id="flat, wrapped"),
        pytest.param(["val/a.jpg", "val/b.jpg"], [("val", None, None)] * 2, id="flat, in a split"),
        pytest.param([f"{TENCH}/a.jpg"], [(None, TENCH, "tench")], id="one class by WNID"),
        pytest.param(
            [f"root/{TENCH}/a.jpg", f"root/{TENCH}/b.jpg"],
            [(None, TENCH, "tench")] * 2,
            id="one class by WNID, wrapped",
        ),
        pytest.param(
            [f"train/{TENCH}/images/a.jpg", "val/images/b.jpg"],
            [("train", TENCH, "tench"), ("val", None, None)],
            id="a folder next to WNIDs is not a class",
        ),
        pytest.param(
            ["n02085620-Chihuahua/a.jpg", f"{TENCH}_tench/b.jpg"],
            [(None, "n02085620", "Chihuahua"), (None, TENCH, "tench")],
            id="WNID and name in one folder",
        ),
        pytest.param(
            [f"{TENCH}_10026.JPEG", f"ILSVRC2012_val_00000001_{SNAKE}.JPEG", "holiday.jpg"],
            [(None, TENCH, "tench"), (None, SNAKE, "sea snake"), (None, None, None)],
            id="WNIDs in file names",
        ),
        pytest.param([], [], id="nothing"),
    ],
)
def test_places_say_split_and_class(names: list[str], expected: list[tuple[str | None, ...]]) -> None:
    assert said(names) == expected


def test_a_name_is_not_looked_up_because_names_repeat() -> None:
    place = read_places(["crane/a.jpg", "maillot/b.jpg"])[0]
    assert place.label == Label(wnid=None, index=None, name="crane")


def test_the_index_is_the_place_among_sorted_wnids() -> None:
    labels = [place.label for place in read_places(["n02012849/a.jpg", "n03126707/b.jpg", "n00000001/c.jpg"])]
    assert [label and label.index for label in labels] == [134, 517, None]  # both are cranes


part = st.sampled_from(["train", "val", "cat", "dog", "x", TENCH, SNAKE, "..", ""])
paths = st.lists(
    st.tuples(st.lists(part, max_size=4), st.integers(0, 9)).map(lambda p: "/".join([*p[0], f"{p[1]}.jpg"])),
    max_size=8,
)


@given(paths)
def test_a_folder_around_everything_is_not_a_class(names: list[str]) -> None:
    if len({name.split("/")[0] for name in names if "/" in name}) > 1:
        assert said([f"root/{name}" for name in names]) == said(names)


@given(paths, st.randoms())
def test_the_order_of_names_does_not_matter(names: list[str], random: object) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(zip(shuffled, said(shuffled), strict=True), key=repr) == sorted(
        zip(names, said(names), strict=True), key=repr
    )
