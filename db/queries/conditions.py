"""Selects images by a user-written SQL condition, which runs where all user SQL runs."""

from db.queries.images import images_where
from db.sql.runner import SQLRunner

# Enough for 10 million image ids: the effective limit on a condition is its time.
MAX_BYTES = 100_000_000


def images_matching(
    runner: SQLRunner, image_set: str, run: int | None, condition: str, *, most: int
) -> tuple[list[int], bool]:
    """Ids of at most `most` images that satisfy a condition, and whether there are more.

    Args:
        run: the run whose predictions the condition may use; None for none.
        condition: SQL over the columns of the Images page: name, label, wnid, split, width, height, bytes,
            predicted, probability, verdict. It may also query other tables.

    Raises:
        RefusedSQL: the condition is not allowed; SQLFailed: it failed, or took too long.
    """
    query = images_where(image_set, run, condition)
    result = runner.run(query.sql, query.values, rows=most, size=MAX_BYTES)
    found = result.table().column("image_id").to_pylist()
    return found, result.more
