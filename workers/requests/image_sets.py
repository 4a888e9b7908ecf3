"""Requests that make image sets and runs: imports and indexes. Imports no torch."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from db.atlas.image_sets import set_name_problem
from db.atlas.runs import run_of
from db.atlas.store import Atlas, NoAtlas
from db.ledger.engine import Ledger
from db.ledger.jobs import NewItem, NewJob
from db.queries.inventory import image_sets
from db.queries.inventory import layers as layers_of
from db.queries.jobs import count_jobs
from db.stores.uploads import UploadStore
from db.suggestions import hint
from workers.models.names import NAMED_MODELS
from workers.requests.images import check_queue, no_such_set
from workers.requests.keys import content_key, key_in_set
from workers.requests.models import indexed_models
from workers.requests.parameters import InvalidRequest

DTYPES = ("float32", "bfloat16")
MAX_K = 100
MAX_BATCH = 4096
_SHOWN_NAMES = 3


# Label tables: their suffixes, and the maximum size that is read.
LABELS_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")
MAX_LABELS_BYTES = 32 * 2**20
MAX_JSON_BYTES = 16 * 2**20  # parsed at once; takes up to about 30 times its size in memory


def labels_problem(name: str, size: int) -> str | None:
    """Why a file of that name and size in bytes cannot be a table of labels; None if it can."""
    suffix = "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if suffix not in LABELS_SUFFIXES:
        valid = f"{', '.join(LABELS_SUFFIXES[:-1])} or {LABELS_SUFFIXES[-1]}"
        return f"{name} is not a table: expected {valid} with one row per image"
    if size == 0:
        return f"{name} is empty: expected a table with one row per image"
    limit = MAX_JSON_BYTES if suffix == ".json" else MAX_LABELS_BYTES
    return f"{name} has {size:,} bytes, the limit is {limit:,}" if size > limit else None


def upload_job(
    uploads: UploadStore,
    *,
    upload: str,
    image_set: str,
    queue: str = "interactive",
    preview: bool = False,
    words: Mapping[str, Any] | None = None,
    labels: Any = None,
) -> NewJob:
    """A request to import a complete upload, or to report what would be imported (`preview`).

    Args:
        words: what the user specified about the layout, see `workers.jobs.kinds.image_import`.
        labels: number of the upload's label table to use, None for none.

    Raises:
        InvalidRequest: the name is not valid for an image set, or `labels` is not a number.
        NoSuchUpload, UploadRefused: the upload or its labels do not exist or are incomplete.
    """
    names = [file.name for file in uploads.check_complete(upload)]
    if labels is not None:
        if isinstance(labels, bool) or not isinstance(labels, int):
            raise InvalidRequest(f"labels: expected the number of a labels file, got {labels!r:.100}")
        uploads.labels(upload, labels)
    asked = _asked(preview, words, labels)
    key = content_key("upload", upload, asked) if asked else content_key("upload", upload)
    return _import_job(image_set, queue, key, source=_named(names), upload=upload, **asked)


def folder_job(
    ledger: Ledger,
    roots: Sequence[Path],
    *,
    folder: str,
    image_set: str,
    queue: str = "interactive",
    preview: bool = False,
    words: Mapping[str, Any] | None = None,
    labels: Any = None,
) -> NewJob:
    """A request to import a folder or an archive on the server; see `upload_job`.

    `labels`: path of a label table on the server, None for none.

    Raises:
        InvalidRequest: the name is not valid for an image set, or the folder or `labels` is not below one of
            `roots`.
    """
    path = allowed_path(folder, roots)
    table = None if labels is None else str(allowed_labels(labels, roots))
    # each import of a folder is a new one, since its files change; two clicks count as one
    earlier = count_jobs(ledger, states=("done",), kinds=("import",), image_set=image_set)
    asked = _asked(preview, words, table)
    key = (
        content_key("folder", str(path), earlier, asked)
        if asked
        else content_key("folder", str(path), earlier)
    )
    return _import_job(image_set, queue, key, source=str(path), folder=str(path), **asked)


def _asked(preview: bool, words: Mapping[str, Any] | None, labels: int | str | None) -> dict[str, Any]:
    if not isinstance(preview, bool):
        raise InvalidRequest(f"preview: expected true or false, got {preview!r}")
    return (
        ({"preview": True} if preview else {})
        | ({"words": dict(words)} if words else {})
        | ({} if labels is None else {"labels": labels})
    )


def allowed_labels(given: Any, roots: Sequence[Path]) -> Path:
    """The label table at a path that a user typed; see `allowed_path`.

    Raises:
        InvalidRequest: it is not below one of `roots`, is not a file, or by name and size not a label table.
    """
    if not isinstance(given, str) or not given:
        raise InvalidRequest(f"labels: expected the path of a file, got {given!r:.100}")
    path = allowed_path(given, roots, "labels", "file")
    if not path.is_file():
        raise InvalidRequest(f"labels: expected a file, got the folder {given!r}")
    problem = labels_problem(path.name, path.stat().st_size)
    if problem is not None:
        raise InvalidRequest(f"labels: {problem}")
    return path


def allowed_path(folder: str, roots: Sequence[Path], what: str = "folder", noun: str = "folder") -> Path:
    """The folder or file at a path that a user typed, with links resolved.

    Raises:
        InvalidRequest: it is not below one of `roots`, or does not exist; the message begins with `what`.
    """
    if not roots:
        raise InvalidRequest(
            f"{what}: no folder is allowed: set CONVSCOPE_IMAGE_ROOTS to allow some, or upload the images"
        )
    allowed = f"expected a {noun} below {', '.join(map(str, roots))} (CONVSCOPE_IMAGE_ROOTS), got {folder!r}"
    try:
        folder.encode()
        if "\0" in folder or not Path(folder).is_absolute():
            raise ValueError("it is not an absolute path")
        path = Path(folder).resolve()
    except (ValueError, OSError, RuntimeError) as error:
        raise InvalidRequest(f"{what}: {allowed}") from error
    if not any(path.is_relative_to(root) for root in roots):
        raise InvalidRequest(f"{what}: {allowed}")
    if not path.exists():
        raise InvalidRequest(f"{what}: {folder!r} does not exist")
    return path


def _named(names: Sequence[str]) -> str:
    """A description of an upload by the names of its files."""
    plain = [name.encode("utf-8", "replace").decode().split("/")[-1][:100] for name in names[:_SHOWN_NAMES]]
    shown = ", ".join("".join(letter if letter.isprintable() else "?" for letter in name) for name in plain)
    more = len(names) - len(plain)
    return f"upload of {shown}" + (f" and {more:,} more" if more > 0 else "")


def _import_job(image_set: str, queue: str, key: str, *, source: str, **place: Any) -> NewJob:
    problem = set_name_problem(image_set)
    if problem is not None:
        raise InvalidRequest(f"images: {problem}")
    check_queue(queue)
    question = content_key("import", key)
    return NewJob(
        key=key_in_set(question, image_set),
        question=question,
        kind="import",
        queue=queue,
        models="",
        image_set=image_set,
        parameters={"image_set": image_set, "source": source, **place},
        items=(NewItem("", 0, ""),),
    )


def index_job(
    atlas: Atlas,
    *,
    model: str,
    image_set: str,
    k: int = 20,
    layers: str = "*",
    dtype: str = "float32",
    batch_size: int | None = None,
    replace: bool = False,
    queue: str = "batch",
) -> NewJob:
    """A request to index an image set with a named model, or with one that has been indexed before.

    Raises:
        InvalidRequest: something in it is invalid; the message names it.
    """
    known = indexed_models(atlas)
    if model not in known and model not in NAMED_MODELS:
        names = list(dict.fromkeys([*known, *NAMED_MODELS]))
        raise InvalidRequest(f"model: expected one of {', '.join(names)}, got {model!r}{hint(model, names)}")
    source = known[model].source if model in known else model
    _check_number("k", k, MAX_K)
    if batch_size is not None:
        _check_number("batch_size", batch_size, MAX_BATCH)
    if not isinstance(layers, str) or not re.fullmatch(r"[\w.*?,\[\]! -]{1,500}", layers, re.ASCII):
        raise InvalidRequest(f"layers: expected patterns of layer names such as *.dwconv, got {layers!r}")
    if dtype not in DTYPES:
        raise InvalidRequest(
            f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}{hint(dtype, DTYPES)}"
        )
    if not isinstance(replace, bool):
        raise InvalidRequest(f"replace: expected true or false, got {replace!r}")
    check_queue(queue)
    try:
        sets = {row["image_set"]: row for row in atlas.fetch(image_sets())}
    except NoAtlas:
        sets = {}
    if image_set not in sets:
        raise InvalidRequest(no_such_set(image_set, sets))
    known_layers = [row["layer"] for row in atlas.fetch(layers_of(model))]
    problem = layers_problem(known_layers, layers, model)
    if problem is not None:
        raise InvalidRequest(problem)
    there = atlas.fetch(run_of(model, image_set))
    if there and not replace:
        raise InvalidRequest(
            f"replace: {image_set!r} is already indexed with {model!r} (run {there[0]['run']}); true indexes it again"
        )
    request: dict[str, Any] = {
        "models": [{"name": model, "source": source}],
        "image_set": image_set,
        "k": k,
        "layers": layers,
        "dtype": dtype,
        "batch_size": batch_size,
        "replace": replace,
        "before": there[0]["run"] if there else None,
    }
    present = sets[image_set]
    unnamed = {name: value for name, value in request.items() if name != "image_set"}
    # a set recreated under the same name and size is a different set
    question = content_key("index", unnamed, present["images"], present["created"].isoformat())
    return NewJob(
        key=key_in_set(question, image_set),
        question=question,
        kind="index",
        queue=queue,
        models=model,
        image_set=image_set,
        parameters=request,
        items=(NewItem(model, 0, ""),),
    )


def layers_problem(known: Sequence[str], patterns: str, model: str) -> str | None:
    """An error message if no pattern matches a layer of the model; None if one does or the layers are unknown."""
    if not known or matching_layers(known, patterns):
        return None
    examples = [known[at] for at in sorted({0, len(known) // 2, len(known) - 1})]
    return (
        f"layers: expected a pattern that matches some of {len(known)} layers of {model} such as "
        f"{', '.join(examples)}, got {patterns!r}{hint(patterns, known)}"
    )


def matching_layers(names: Sequence[str], patterns: str) -> list[str]:
    """The names that match one of the comma-separated patterns, as in the shell."""
    wanted = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in wanted)]


def _check_number(name: str, given: Any, most: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise InvalidRequest(f"{name}: expected a whole number from 1 to {most:,}, got {given!r}")
