"""Types of layout detection: its input (`Scene`), the user's options, and its result (`Layout`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from precompute.images.labels import NoSuchLevel, Place, Reading, read_folders
from precompute.images.sources.source import Columns, ImportRefused
from precompute.images.survey import Survey, Unused
from precompute.images.wordnet import Label

NOTHING = "nothing"


@dataclass(frozen=True)
class LayoutOptions:
    """The user's choices about a source; None leaves the choice to Convscope.

    Attributes:
        labels: name and content of a table of labels.
        columns: columns of tables and shards, and names of numbered classes.
        class_level: which folder of an image's path is its class, see `labels.read_folders`.
        split_level: which is its split.
        no_split: no image has a split.
    """

    labels: tuple[str, bytes] | None = None
    columns: Columns = field(default_factory=Columns)
    class_level: int | None = None
    split_level: int | None = None
    no_split: bool = False


@dataclass(frozen=True)
class Layout:
    """A detected layout.

    Attributes:
        kind: its display name.
        split, classes, label: where split, class and label come from, in words.
        places: split and label of each image, by name.
        skipped: names of images that are not imported, with the reason.
        read: names of the small files that were used.
        notes: what was ambiguous or left out, one sentence each.
        unused: files that are not used, by kind.
    """

    kind: str
    split: str = NOTHING
    classes: str = NOTHING
    label: str = NOTHING
    places: Mapping[str, Place] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    read: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()

    def sentence(self) -> str:
        """Where split, class and label come from, in one sentence."""
        return f"{self.kind}: split from {self.split}; class from {self.classes}; label is {self.label}"

    def place(self, name: str) -> Place:
        """Split and label of the image called `name`."""
        return self.places.get(name, Place(None, None))


@dataclass(frozen=True)
class Scene:
    """Input of the detectors: a source's files, the user's options, and what the folders imply."""

    survey: Survey
    options: LayoutOptions

    @cached_property
    def folders(self) -> Reading:
        """What the folder names imply."""
        return self.read_folders()

    def read_folders(self, numbers: Mapping[str, Label] | None = None) -> Reading:
        """What the folder names imply; see `labels.read_folders`.

        Raises:
            ImportRefused: the user chose a folder level that does not exist.
        """
        asked = self.options
        try:
            return read_folders(
                self.survey.pictures,
                class_level=asked.class_level,
                split_level=asked.split_level,
                no_split=asked.no_split,
                numbers=numbers,
            )
        except NoSuchLevel as error:
            raise ImportRefused(str(error)) from error

    @cached_property
    def images(self) -> list[str]:
        """Names of the images that annotate no other."""
        marked = self.folders.annotations
        return [name for at, name in enumerate(self.survey.pictures) if at not in marked]

    def table_named(self, *endings: str) -> str | None:
        """The first small file whose path equals one of `endings`, or ends with a slash and one of them."""
        for name in self.survey.tables:
            if any(f"/{name}".endswith(f"/{ending}") for ending in endings):
                return name
        return None

    def lines(self, name: str) -> list[str]:
        """Non-empty lines of a small file."""
        text = self.survey.tables[name].decode("utf-8-sig", "replace")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def folder_layout(self, kind: str, reading: Reading | None = None) -> Layout:
        """The layout in which folders state everything; annotations are skipped."""
        found = reading or self.folders
        return Layout(
            kind,
            split=found.split,
            classes=found.classes,
            label="nothing" if found.classes == NOTHING else "the name of the class",
            places=dict(zip(self.survey.pictures, found.places, strict=True)),
            skipped={
                self.survey.pictures[at]: "images that annotate others, such as masks"
                for at in found.annotations
            },
        )

    def labelled(self, layout: Layout, labels: Mapping[str, Label | None], **changes: object) -> Layout:
        """`layout` with the labels of some images, by name, replaced."""
        places = dict(layout.places)
        for name, label in labels.items():
            places[name] = Place(layout.place(name).split, label)
        return replace(layout, places=places, **changes)  # type: ignore[arg-type]

    def split(self, layout: Layout, splits: Mapping[str, str], words: str) -> Layout:
        """`layout` with the splits of some images replaced, unless the user chose where splits come from."""
        if self.options.no_split or self.options.split_level is not None or not splits:
            return layout
        places = dict(layout.places)
        for name, split in splits.items():
            places[name] = Place(split, layout.place(name).label)
        return replace(layout, places=places, split=words)
