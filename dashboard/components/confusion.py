"""Confusion matrix limited to the classes that fit on a page, computed from all pairs of classes that occur."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.state.context import Record


@dataclass(frozen=True)
class MatrixClass:
    """A row of the matrix and its column. `key` identifies the class in the set: its WNID, or its name."""

    index: int
    key: str
    name: str
    images: int


@dataclass(frozen=True)
class Matrix:
    """`counts[i][j]` images of class i are predicted as class j; `others[i]` as a class without a column.

    `left_out` is the number of classes in the set without a row.
    """

    classes: tuple[MatrixClass, ...]
    counts: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    left_out: int


def confusion_matrix(pairs: Sequence[Record], most: int) -> Matrix:
    """The matrix of at most `most` classes: those with the most frequent confusions, sorted by index.

    Args:
        pairs: rows of `db.queries.overview.confusions`, most frequent first.
    """
    known: dict[int, tuple[str, str]] = {}
    images: Counter[int] = Counter()
    counted: Counter[tuple[int, int]] = Counter()
    for row in pairs:
        known[row["class_index"]] = (row["class"], row["label"])
        images[row["class_index"]] += row["images"]
        counted[row["class_index"], row["predicted_index"]] += row["images"]
    chosen: dict[int, None] = {}
    wrong = [(row["class_index"], row["predicted_index"]) for row in pairs]
    wrong = [pair for pair in wrong if pair[0] != pair[1]]
    # both classes of each confusion while there is room, then the largest classes without confusions
    for index in [
        *(index for pair in wrong for index in pair),
        *(index for index, _ in images.most_common()),
    ]:
        if len(chosen) < most and index in known:
            chosen[index] = None
    order = sorted(chosen)
    counts = tuple(tuple(counted[true, said] for said in order) for true in order)
    return Matrix(
        tuple(MatrixClass(index, *known[index], images[index]) for index in order),
        counts,
        tuple(images[true] - sum(line) for true, line in zip(order, counts, strict=True)),
        len(known) - len(order),
    )
