"""Images chosen by a condition that a person wrote: SQL, and so run where people's SQL is run."""

from db.queries.images import images_where
from db.sql.runner import SQLRunner

# As of 10 million image numbers: the condition's limit is its time.
MAX_BYTES = 100_000_000


def images_matching(
    runner: SQLRunner, image_set: str, run: int | None, condition: str, *, most: int
) -> tuple[list[int], bool]:
    """Numbers of the images for which a condition holds, up to `most` of them, and whether there are more.

    Args:
        run: whose predictions the condition may name; None for none.
        condition: SQL over the columns of the Images page: name, label, wnid, split, width, height, bytes, predicted,
            probability, verdict; it may also ask other tables.

    Raises:
        RefusedSQL: it is not run; SQLFailed: it cannot be run, or takes too long.
    """
    query = images_where(image_set, run, condition)
    result = runner.run(query.sql, query.values, rows=most, size=MAX_BYTES)
    found = result.table().column("image_id").to_pylist()
    return found, result.more
