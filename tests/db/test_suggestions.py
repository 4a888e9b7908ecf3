"""A name that is nearly right is answered with the one that was meant."""

import pytest

from db.suggestions import choices, meant


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ("sample", ["samples", "stimuli"], "samples"),
        ("STIMULI", ["samples", "stimuli"], "stimuli"),
        ("smooth_grad", ["gradcam", "smoothgrad"], "smoothgrad"),
        ("-", ["+", "-"], "-"),
        ("zebra", ["samples", "stimuli"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_name_is_suggested(given: str, known: list[str], expected: str | None) -> None:
    assert meant(given, known) == expected


def test_known_names_are_listed_and_long_lists_truncated() -> None:
    assert choices("sampels", ["samples", "stimuli"]) == "did you mean 'samples'? there are samples, stimuli"
    assert choices("zebra", ["samples"], nouns="sets are") == "sets are samples"
    assert choices("a", []) == "none exist yet"
    assert choices("zebra", [f"class{n}" for n in range(14)]).endswith("class11 and 2 more")
