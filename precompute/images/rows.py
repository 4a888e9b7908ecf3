"""The rows of an import, collected before they are published."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from db.atlas.image_sets import IMAGE_ROWS
from db.stores.decoding import Note
from precompute.images.files import StoredImage
from precompute.images.ground_truth import GroundTruth
from precompute.images.labels import Place
from precompute.images.layouts import Layout
from precompute.images.wordnet import Label

_ROWS_A_BATCH = 4096


@dataclass(frozen=True)
class Refusal:
    """An image that was left out: its path in the source, and the reason in one sentence."""

    name: str
    reason: str


@dataclass
class ImageRows:
    """The rows of an import, collected in Arrow batches, and the counts of its report.

    `files` maps each content hash to the value for `images.path`.
    """

    names: list[str] = field(default_factory=list)
    known: int = 0
    changed: int = 0
    duplicates: int = 0
    copied: int = 0  # new ones whose only file is the store's copy
    refused: list[Refusal] = field(default_factory=list)
    noted: Counter[Note] = field(default_factory=Counter)
    _own: dict[int, Place] = field(default_factory=dict)
    _seen: set[tuple[str, str]] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    _pending: list[dict[str, Any]] = field(default_factory=list)
    _batches: list[pa.RecordBatch] = field(default_factory=list)

    def add(self, stored: StoredImage) -> None:
        image = stored.image
        if stored.reason is not None:
            name = "".join(
                letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                for letter in image.name
            )
            self.refused.append(Refusal(name, stored.reason))
            return
        if (image.name, stored.key) in self._seen:  # an archive may contain a member twice
            return
        assert stored.facts is not None, "an image that is not refused has been read"
        self._seen.add((image.name, stored.key))
        self.noted.update(stored.facts.notes)
        self.known += stored.known
        self.changed += stored.changed
        self.copied += image.path is None and not stored.known
        self.duplicates += stored.key in self.files and not stored.known
        self.files[stored.key] = stored.path
        if not image.folders:
            self._own[len(self.names)] = Place(image.split, image.label)
        self.names.append(image.name)
        self._pending.append(
            {
                "name": image.name,
                "key": stored.key,
                "path": stored.path,
                "width": stored.facts.width,
                "height": stored.facts.height,
                "dhash": stored.facts.dhash,
                "colors": list(stored.facts.colors),
                "bytes": image.size,
                "known": stored.known,
                "moved": stored.moved,
            }
        )
        if len(self._pending) == _ROWS_A_BATCH:
            self._flush()

    def holds(self, name: str, key: str) -> bool:
        """Whether the import contains the image with this name and content."""
        return (name, key) in self._seen

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._pending, schema=IMAGE_ROWS))
        self._pending = []

    def table(
        self, layout: Layout, truth: GroundTruth | None, gone: Mapping[str, Sequence[str]]
    ) -> tuple[pa.Table, int]:
        """All rows with their labels, and how many labels come from `truth`, which overrides the layout.

        `gone`: names of the set's images whose files are gone, by content hash.
        """
        self._flush()
        placed = [self._own.get(at) or layout.place(name) for at, name in enumerate(self.names)]
        stated = 0
        for at, name in enumerate(self.names if truth is not None else ()):
            label = truth.label(name) if truth is not None else None
            if label is not None:
                placed[at] = Place(placed[at].split, label)
                stated += 1
        labels = [place.label or Label(None, None, None) for place in placed]
        table = pa.Table.from_batches(self._batches, schema=IMAGE_ROWS)
        left = {key: sorted(names, reverse=True) for key, names in gone.items()}
        formerly = [
            left[key].pop() if not known and left.get(key) else None
            for key, known in zip(
                table.column("key").to_pylist(), table.column("known").to_pylist(), strict=True
            )
        ]
        columns: dict[str, list[Any]] = {
            "formerly": formerly,
            "split": [place.split for place in placed],
            "wnid": [label.wnid for label in labels],
            "label_index": [label.index for label in labels],
            "label": [label.name for label in labels],
        }
        for name, values in columns.items():
            column = IMAGE_ROWS.field(name)
            table = table.set_column(IMAGE_ROWS.get_field_index(name), column, pa.array(values, column.type))
        return table, stated
