"""Selecting images by a condition: user SQL over the columns of the Images page."""

import re

import pytest

from dashboard.state.context import Context
from dashboard.state.image_choices import images_where
from db.atlas.store import Query
from workers.requests.parameters import InvalidRequest


def chosen(context: Context, where: str) -> list[int]:
    """Return the images of `painted`, with the predictions of the simulated ConvNeXt."""
    return images_where(context, "synthetic", "painted", where)


def test_a_condition_selects_the_images_that_satisfy_it(context: Context) -> None:
    rows = context.atlas.fetch(Query("SELECT image_id, width, label FROM images ORDER BY image_id"))
    wide = [row["image_id"] for row in rows if row["width"] > 260]
    assert 0 < len(wide) < len(rows)
    assert chosen(context, "width > 260") == wide
    right = context.atlas.fetch(
        Query("SELECT image_id FROM predictions WHERE rank = 1 AND is_label ORDER BY image_id")
    )
    assert chosen(context, "verdict = 'right'") == [row["image_id"] for row in right]


def test_no_condition_is_all_images(context: Context) -> None:
    (row,) = context.atlas.fetch(Query("SELECT count(*) AS images FROM images"))
    assert chosen(context, "") == list(range(row["images"]))


def test_a_condition_may_query_other_tables(context: Context) -> None:
    assert chosen(context, "image_id IN (SELECT image_id FROM attacks)") == []


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("tint = 'red'", 'Referenced column "tint" not found'),
        ("label = (SELECT content FROM read_text('/etc/passwd'))", "read_text() is refused"),
        ("name IN (FROM '/etc/passwd')", "there is no table"),
        ("true) UNION ALL SELECT size FROM glob('/*') WHERE (true", "glob() is refused"),
        ("true); DROP TABLE images; SELECT (1", "statements"),
        ("getenv('HOME') = ''", "getenv() is refused"),
    ],
)
def test_a_condition_that_cannot_be_or_must_not_is_refused(
    context: Context, where: str, sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"^where: .*{re.escape(sentence)}"):
        chosen(context, where)
