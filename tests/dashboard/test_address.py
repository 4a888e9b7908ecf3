"""Page state in the URL: parsed, serialized and validated."""

import pytest
from dash.exceptions import PreventUpdate
from hypothesis import given
from hypothesis import strategies as st

from dashboard import shell
from dashboard.pages import images, patches
from dashboard.pictures.geometry import CROPS
from dashboard.state.address import (
    Address,
    ChannelAddress,
    ChannelsError,
    ImageAddress,
    ImagesAddress,
    PatchesAddress,
    parse_channels,
)
from db.queries.patches import CHANNEL_ORDERS

words = st.text(max_size=20)


@given(
    st.builds(
        PatchesAddress,
        model=words.filter(bool),
        images=words.filter(bool),
        layer=words.filter(bool),
        channels=words.filter(bool),
        page=st.integers(1, 1000),
        k=st.integers(1, 20),
        sort=st.sampled_from(sorted(CHANNEL_ORDERS)),
        crop=st.sampled_from(sorted(CROPS)),
        tile=st.sampled_from(["fit", "48", "192"]),
    )
)
def test_addresses_round_trip(address: PatchesAddress) -> None:
    path, _, search = address.href().partition("?")
    assert path == "/"
    assert PatchesAddress.read("?" + search) == (address, {})


@pytest.mark.parametrize("kind", [PatchesAddress, ChannelAddress, ImagesAddress, ImageAddress])
def test_defaults_are_left_out_of_the_address(kind: type[Address]) -> None:
    assert kind().href() == kind.path
    assert kind.read("") == kind.read(None) == (kind(), {})


@pytest.mark.parametrize(
    ("search", "field", "sentence"),
    [
        ("?k=99", "k", "k: expected a whole number from 1 to 20, got “99”."),
        ("?k=-1", "k", "k: expected a whole number from 1 to 20, got “-1”."),
        ("?k=ten", "k", "k: expected a whole number from 1 to 20, got “ten”."),
        ("?k=٣", "k", "k: expected a whole number from 1 to 20, got “٣”."),
        (
            "?sort=best",
            "sort",
            "sort: expected one of index, strongest, selectivity, dead_last, got “best”.",
        ),
        ("?crop=", "", ""),
        ("?tile=1000", "tile", "tile: expected one of fit, 48, 64, 96, 128, 192, got “1000”."),
    ],
)
def test_a_value_that_cannot_be_used_is_named_and_replaced_by_the_default(
    search: str, field: str, sentence: str
) -> None:
    address, problems = PatchesAddress.read(search)
    assert address == PatchesAddress()
    assert problems == ({field: sentence} if field else {})


def test_unknown_names_in_the_address_are_ignored() -> None:
    assert PatchesAddress.read("?utm=x&k=3") == (PatchesAddress(k=3), {})


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("", None),
        ("  ", None),
        ("0-3", [0, 1, 2, 3]),
        ("5,17, 9", [5, 9, 17]),
        ("3-3", [3]),
        (" 1 - 2 , 2-4", [1, 2, 3, 4]),
        ("19", [19]),
    ],
)
def test_channels_are_ranges_and_lists_from_the_lowest_up(text: str, channels: list[int] | None) -> None:
    assert parse_channels(text, 20) == channels


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1-x", "Expected a range such as 0-29 or a list such as 5, 17, got “1-x”."),
        ("1,,2", "Expected a range such as 0-29"),
        ("-1", "Expected a range such as 0-29"),
        ("5-2", "Expected a range from low to high, got “5-2”."),
        ("0-20", "Expected numbers from 0 to 19, which this layer has, got 20."),
        ("99999999999", "Expected a range such as 0-29"),
        ("²", "Expected a range such as 0-29"),
    ],
)
def test_invalid_channels_give_one_error_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ChannelsError) as caught:
        parse_channels(text, 20)
    assert sentence in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_for_channels_is_read_or_refused(text: str) -> None:
    try:
        channels = parse_channels(text, 50)
    except ChannelsError:
        return
    assert channels is None or (len(set(channels)) == len(channels) and all(0 <= c < 50 for c in channels))


def test_a_control_of_the_patches_page_that_was_changed_is_written_to_its_address() -> None:
    shown = {"channels": "", "sort": "strongest", "k": "10", "crop": "field", "tile": "fit"}
    chosen = {"layer": "stem", "shown": shown}
    search = "?model=m&images=painted&layer=stem&sort=strongest&page=3"

    def choose(**given: str) -> str:
        return patches.choose(**shown | given, chosen=chosen, search=search)

    # a default is left out of the address, as the number of the page is
    assert choose(sort="index") == "?model=m&images=painted&layer=stem"
    assert choose(k="20") == "?model=m&images=painted&layer=stem&k=20&sort=strongest"
    assert choose(channels=" 5 ").endswith("&layer=stem&channels=5&sort=strongest")
    for nothing in ({}, {"channels": " "}):
        with pytest.raises(PreventUpdate):
            choose(**nothing)
    with pytest.raises(PreventUpdate):
        patches.choose("5", "index", "10", "field", "fit", None, search)


def test_another_model_or_set_drops_what_means_nothing_for_it() -> None:
    filled = {"model": "a", "images": "x"}
    search = "?model=a&images=x&layer=stem&k=20&label=cat&page=2&p_n=1,2"
    assert shell.pick("b", "x", filled, search) == "?model=b&images=x&k=20&label=cat&p_n=1,2"
    assert shell.pick("a", "y", filled, search) == "?model=a&images=y&layer=stem&k=20&p_n=1,2"
    for nothing in (filled, None):
        with pytest.raises(PreventUpdate):
            shell.pick("a", "x", nothing, search)


def test_a_control_of_the_images_page_that_was_changed_is_written_to_its_address() -> None:
    shown = {"search": "", "verdict": "any", "sort": "id", "view": "grid"}
    search = "?model=m&images=painted&page=3&label=n1"
    found = images.choose("", "wrong", "id", "grid", shown, search)
    assert found == "?model=m&images=painted&label=n1&verdict=wrong"
    assert images.choose(" cat ", "any", "id", "grid", shown, search).endswith("&search=cat")
    for before in (shown, None):
        with pytest.raises(PreventUpdate):
            images.choose(None, "any", "id", "grid", before, search)
