"""Tables next to the images: Hugging Face imagefolder metadata, `labels.csv`, files of Roboflow and COCO."""

from dataclasses import replace

from db.plurals import count
from precompute.images.labels import split_of
from precompute.images.layouts.class_folders import with_split_lists
from precompute.images.layouts.layout import NOTHING, Layout, Scene
from precompute.images.layouts.matching import Matcher
from precompute.images.layouts.tables import Stated, Table, read_stated, read_table
from precompute.images.sources.source import ImportRefused
from precompute.images.wordnet import Label


def detect(scene: Scene) -> Layout | None:
    """Detects a table that names images of the source and states their class or split.

    Raises:
        ImportRefused: a table given by the user names no image, or lacks a chosen column.
    """
    given = scene.options.labels
    chosen = scene.options.columns
    asked = given or ((chosen.label or chosen.split) and not scene.survey.packed)
    if not scene.images or not (asked or scene.survey.tables):
        return None
    matcher = Matcher(scene.images)
    if given is not None:
        return _from_given(scene, matcher, *given)
    return _from_found(scene, matcher)


def _from_given(scene: Scene, matcher: Matcher, name: str, content: bytes) -> Layout:
    table = read_table(name, content)
    if table is None:
        raise ImportRefused(
            f"--labels: {name} is not a table: expected rows with an image and its class, with or without a header"
        )
    stated = read_stated(table, matcher, scene.options.columns, folder="")
    if stated is None:
        first = ", ".join(str(cell)[:60] for cell in table.rows[0][:6])
        raise ImportRefused(
            f"--labels: {name} names none of the {len(scene.images):,} images of {scene.survey.origin}, such as "
            f"{scene.images[0]}; its first row is {first}"
        )
    if stated.label is None and stated.split is None:
        raise ImportRefused(f"--labels: {stated.note or f'{name} has no column with a class'}")
    # the same file if it is in the source; another file with its name stays listed as unused
    read = frozenset(one for one, there in scene.survey.tables.items() if there == content)
    return _layout(scene, [(name, stated)], list(_notes(name, stated)), read, exact=True)


def _from_found(scene: Scene, matcher: Matcher) -> Layout | None:
    chosen = scene.options.columns
    stated: list[tuple[str, Stated]] = []
    notes: list[str] = []
    trouble: str | None = None
    for name in sorted(scene.survey.tables, key=_rank):
        try:
            table = read_table(name, scene.survey.tables[name])
            if table is None or _is_boxes(table):
                continue
            found = read_stated(table, matcher, chosen)
        except ImportRefused as error:
            trouble = trouble or str(error)
            continue
        if found is None:
            continue
        if "bbox" in table.columns and table.name.endswith(".json"):
            notes.append(
                f"{name} contains object boxes, not one class per image: --labels {name} uses it anyway"
            )
        elif found.conflicts:
            notes.append(
                f"{name} states several classes for {count(found.conflicts, 'image')}, as for objects: "
                "not used (--labels uses images with one class)"
            )
        elif found.label is None and found.split is None:
            notes += [found.note] if found.note else []
        else:
            stated.append((name, found))
            notes += _notes(name, found)
    if not stated:
        if (chosen.label or chosen.split) and not scene.survey.packed:
            raise ImportRefused(
                trouble or f"no table in {scene.survey.origin} has the requested columns and names its images"
            )
        if not notes and not trouble:
            return None
        from precompute.images.layouts.class_folders import detect as of_folders

        base = of_folders(scene)
        assert base is not None, "folders always say something"
        return replace(base, notes=(*base.notes, *notes, *([trouble] if trouble else [])))
    return _layout(scene, stated, notes, frozenset(name for name, _ in stated))


def _layout(
    scene: Scene,
    stated: list[tuple[str, Stated]],
    notes: list[str],
    read: frozenset[str],
    *,
    exact: bool = False,
) -> Layout:
    """`exact`: images missing from the table have no label, whatever their folder is called."""
    labels: dict[str, Label | None] = dict.fromkeys(scene.images) if exact else {}
    splits: dict[str, str] = {}
    disagreeing = 0
    from_files: set[str] = set()
    for name, one in stated:
        split = split_of(name.rpartition("/")[2].rpartition(".")[0])
        for picture, label in one.labels.items():
            before = labels.get(picture)
            disagreeing += before is not None and label is not None and before != label
            labels[picture] = before or label
            if split is not None and one.split is None and not exact:
                splits.setdefault(picture, split)
                from_files.add(name)
        splits |= one.splits
    if disagreeing:
        notes = [*notes, f"tables disagree on {count(disagreeing, 'image')}: {stated[0][0]} takes precedence"]
    names = ", ".join(name for name, _ in stated[:4]) + (
        f" and {len(stated) - 4:,} more" if len(stated) > 4 else ""
    )
    columns = list(dict.fromkeys(one.label for _, one in stated if one.label))
    base = replace(scene.folder_layout(_kind(stated)), notes=tuple(notes), read=read)
    if columns:
        labelled = sum(label is not None for label in labels.values())
        where = ", ".join(
            columns if columns[0].startswith("the ") else [f"column {column}" for column in columns]
        )
        classes = f"{where} of {names} ({labelled:,} of {count(len(scene.images), 'image')})"
        rest = any(base.place(name).label is not None for name in scene.images if name not in labels)
        base = scene.labelled(
            base,
            labels,
            classes=f"{classes}, else {base.classes}" if rest else classes,
            label="the value in that column",
        )
    by_column = [one.split for _, one in stated if one.split]
    if by_column:
        return scene.split(base, splits, f"column {by_column[0]} of {names}")
    if base.split == NOTHING and splits:
        return scene.split(base, splits, f"the names {', '.join(sorted(from_files)[:4])}")
    return with_split_lists(scene, base) if base.split == NOTHING else base


def _notes(name: str, stated: Stated) -> list[str]:
    notes = []
    if stated.unmatched:
        notes.append(
            f"{count(stated.unmatched, 'row')} of {name} {'names' if stated.unmatched == 1 else 'name'} "
            f"no image here, or several, such as {stated.example!r}"
        )
    if stated.conflicts:
        notes.append(f"{count(stated.conflicts, 'image')} with several classes in {name}: unlabeled")
    if stated.note:
        notes.append(stated.note)
    return notes


def _kind(stated: list[tuple[str, Stated]]) -> str:
    if all(name.rpartition("/")[2].startswith("metadata.") for name, _ in stated):
        return "Hugging Face imagefolder"
    return "images with a table"


def _rank(name: str) -> tuple[int, str]:
    """Tables whose name suggests labels come first."""
    last = name.rpartition("/")[2].lower()
    return (0 if last.startswith(("metadata", "label", "_classes")) else 1, name)


def _is_boxes(table: Table) -> bool:
    """Whether a text table contains only numbers, like boxes around objects."""
    return not table.headed and all(
        str(cell).replace(".", "", 1).replace("-", "", 1).isdecimal()
        for row in table.rows[:50]
        for cell in row
    )
