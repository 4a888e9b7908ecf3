"""Layout options of the user, parsed from the values given on the command line and in the API."""

from pathlib import Path

from precompute.images.layouts.layout import LayoutOptions
from precompute.images.layouts.tables import class_list
from precompute.images.sources.source import MAX_TRUTH_BYTES, Columns, ImportRefused
from precompute.images.wordnet import Label, imagenet_wnids, label_of_index
from workers.requests.image_sets import labels_problem

IMAGENET = "imagenet-1k"


def layout_options(
    *,
    labels: Path | None = None,
    labels_name: str | None = None,
    label_column: str | None = None,
    image_column: str | None = None,
    class_level: int | None = None,
    split_from: str | None = None,
    class_names: str | None = None,
) -> LayoutOptions:
    """Parse the user's options; see `LayoutOptions`.

    Args:
        labels_name: display name of the file at `labels`, if it differs from the file's own name.
        split_from: `none`, a folder level, or a column of a table.
        class_names: `imagenet-1k`, or the path of a file with one class name per line.

    Raises:
        ImportRefused: a file cannot be read.
    """
    level = split_from is not None and split_from.lstrip("-").isdecimal()
    column = None if split_from is None or level or split_from == "none" else split_from
    if level and int(split_from or 0) == 0:
        raise ImportRefused(
            "--split-from: expected none, a folder level (1 is the outermost) or a column, got 0"
        )
    return LayoutOptions(
        labels=None if labels is None else _labels(labels, labels_name or labels.name),
        columns=Columns(image_column, label_column, column, _names(class_names)),
        class_level=class_level,
        split_level=int(split_from or 0) if level else None,
        no_split=split_from == "none",
    )


def _labels(path: Path, name: str) -> tuple[str, bytes]:
    content = _content("--labels", path)
    problem = labels_problem(name, len(content))
    if problem is not None:
        raise ImportRefused(f"--labels: {problem}")
    return name, content


def _names(given: str | None) -> tuple[Label, ...] | None:
    if given is None:
        return None
    if given == IMAGENET:
        return tuple(label_of_index(index) for index in range(len(imagenet_wnids())))
    text = _content("--class-names", Path(given)).decode("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ImportRefused(f"--class-names: {given} is empty: expected one class name per line")
    return tuple(class_list(lines))


def _content(option: str, path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ImportRefused(f"{option}: there is no file at {path}")
        if path.stat().st_size > MAX_TRUTH_BYTES:
            raise ImportRefused(
                f"{option}: {path} has {path.stat().st_size:,} bytes, the limit is {MAX_TRUTH_BYTES:,}"
            )
        return path.read_bytes()
    except OSError as error:
        raise ImportRefused(f"{option}: {path} cannot be opened ({error.strerror})") from error
