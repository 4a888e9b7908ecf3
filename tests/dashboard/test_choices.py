"""Selecting images by a condition: user SQL over the columns of the Images page."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from dashboard.state.context import Context
from db.atlas.store import Query


def chosen(client: FlaskClient, where: str) -> dict[str, Any]:
    """Return what the route answers, for the simulated ConvNeXt over `painted`."""
    asked = {"images": "painted", "model": "synthetic", "where": where}
    answer: dict[str, Any] = client.get("/choices/where.json", query_string=asked).get_json()
    return answer


def numbers(told: str) -> list[int]:
    """Return the numbers that a compact list of ranges stands for."""
    ends = [part.split("-") for part in told.split(",") if part]
    return [n for end in ends for n in range(int(end[0]), int(end[-1]) + 1)]


def test_a_condition_selects_the_images_that_satisfy_it(client: FlaskClient, context: Context) -> None:
    rows = context.atlas.fetch(Query("SELECT image_id, width, label FROM images ORDER BY image_id"))
    wide = [row["image_id"] for row in rows if row["width"] > 260]
    assert 0 < len(wide) < len(rows)
    found = chosen(client, "width > 260")
    assert numbers(found["ids"]) == wide
    assert found["images"] == len(wide)
    right = context.atlas.fetch(
        Query("SELECT image_id FROM predictions WHERE rank = 1 AND is_label ORDER BY image_id")
    )
    assert numbers(chosen(client, "verdict = 'right'")["ids"]) == [row["image_id"] for row in right]


def test_no_condition_is_all_images(client: FlaskClient, context: Context) -> None:
    (row,) = context.atlas.fetch(Query("SELECT count(*) AS images FROM images"))
    assert chosen(client, " ") == {"ids": f"0-{row['images'] - 1}", "images": row["images"]}


def test_a_condition_may_query_other_tables(client: FlaskClient) -> None:
    assert chosen(client, "image_id IN (SELECT image_id FROM attacks)") == {"ids": "", "images": 0}


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
    client: FlaskClient, where: str, sentence: str
) -> None:
    told = chosen(client, where)
    assert set(told) == {"error"}
    assert told["error"].startswith("where: ")
    assert sentence in told["error"]
