"""WebDataset: each image has a file with the same stem that states its class, `.cls`, `.json` or `.txt`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from precompute.images.layouts.layout import Layout, Scene
from precompute.images.sources.parquet import LABEL_NAMES, label_of_value
from precompute.images.sources.source import suffix_of
from precompute.images.wordnet import Label

_SHARE = 0.5  # of the images that must have such a file
_MAX_CLASS = 100


def detect(scene: Scene) -> Layout | None:
    """Detects sources in which most images have a file with the same stem that states a class."""
    stems = {name: _stem(name) for name in scene.images}
    beside: dict[str, dict[str, str]] = {}
    for name in scene.survey.tables:
        if suffix_of(name) in (".cls", ".json", ".txt"):
            beside.setdefault(suffix_of(name), {})[_stem(name)] = name
    for suffix, read in ((".cls", _text), (".json", _json), (".txt", _text)):
        files = {name: beside[suffix][stem] for name, stem in stems.items() if stem in beside.get(suffix, {})}
        if not files or len(files) < _SHARE * len(stems):
            continue
        values = {name: read(scene.survey.tables[file]) for name, file in files.items()}
        if suffix == ".txt" and not _are_classes(values):
            continue
        labels: Mapping[str, Label | None] = {
            name: label_of_value(value, scene.options.columns) for name, value in values.items()
        }
        if not any(labels.values()):
            continue
        bare = scene.options.columns.names is None and all(
            one is None or (one.name or "").isdecimal() for one in labels.values()
        )
        notes = ("the classes are numbers: name them with --class-names",) if bare else ()
        return scene.labelled(
            replace(scene.folder_layout("WebDataset"), read=frozenset(files.values()), notes=notes),
            labels,
            classes=f"the {suffix} file next to each image ({len(files):,})",
            label="the number of the class" if bare else "the name of the class",
        )
    return None


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.split('.', 1)[0]}"


def _text(content: bytes) -> str:
    return content.decode("utf-8-sig", "replace").strip()


def _json(content: bytes) -> Any:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return found if isinstance(found, int | str) else None
    named = {str(key).lower(): value for key, value in found.items()}
    return next((named[key] for key in LABEL_NAMES if isinstance(named.get(key), int | str | float)), None)


def _are_classes(values: Mapping[str, Any]) -> bool:
    """Whether the texts are class names, which recur, rather than captions."""
    texts = list(values.values())
    return all(len(text) <= _MAX_CLASS and "\n" not in text for text in texts) and (
        2 * len(set(texts)) <= len(texts)
    )
