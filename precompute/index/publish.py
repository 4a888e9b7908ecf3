"""Convert a finished pass to rows of the atlas, as Arrow columns, and publish them in one transaction."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa

from db.atlas.runs import RunTables, insert_run, run_of, runs_of_another, set_images
from db.atlas.store import Atlas, Query
from precompute.index.state import IndexState
from workers.jobs.stored_images import StoredImage
from workers.layers.receptive_field.fields import ReceptiveField
from workers.layers.taps import LeftOut, Tap
from workers.models.label_matching import LabelMatch, SetLabel
from workers.models.vision import VisionModel


class AlreadyIndexed(RuntimeError):
    """The atlas already has a run of this model over this image set; the message is one sentence."""


class AnotherModel(RuntimeError):
    """The atlas has runs of a different model with the same name; the message is one sentence."""


class ImagesChanged(RuntimeError):
    """The image set is no longer the one that was indexed; the message is one sentence."""


@dataclass(frozen=True)
class ModelRows:
    """A model as stored in the atlas. `taps` are all of its layers, indexed or not."""

    model: VisionModel
    weights_sha256: str
    digest: str
    taps: Sequence[Tap]
    edges: Sequence[tuple[str, str]]
    fields: Mapping[str, ReceptiveField]
    effective_sizes: Mapping[str, int]
    left_out: Sequence[LeftOut]


@dataclass(frozen=True)
class RunMetadata:
    """A pass over an image set, as stored in the atlas, without its results. Times are naive UTC.

    `listed` are the set's images in the atlas at the start, `matches` the model's class for each label.
    """

    image_set: str
    listed: Sequence[StoredImage]
    matches: Mapping[SetLabel, LabelMatch]
    k: int
    dtype: str
    device: str
    images: int
    unreadable: int
    seconds: float
    started: datetime
    finished: datetime


def check_publishable(
    fetch: Callable[[Query], list[dict[str, Any]]], *, model: str, digest: str, image_set: str, replace: bool
) -> None:
    """Check whether a run of the model over the set may be published; `fetch` queries the atlas.

    Raises:
        AlreadyIndexed: the run exists, and `replace` is False.
        AnotherModel: runs over other sets would be left with another model's layers.
    """
    there = fetch(run_of(model, image_set))
    if there and not replace:
        run = there[0]
        raise AlreadyIndexed(
            f"{image_set!r} is already indexed with {model!r} (run {run['run']}: {run['images']:,} images, "
            f"{run['layers']} layers, k={run['k']}, {run['dtype']}, {run['finished']:%Y-%m-%d %H:%M} UTC): "
            "--replace indexes it again"
        )
    others = fetch(runs_of_another(model, digest, image_set))
    if others:
        sets = ", ".join(repr(row["image_set"]) for row in others)
        raise AnotherModel(
            f"a model named {model!r} with other weights, preprocessing or classes (from {others[0]['source']}) "
            f"is indexed over {sets}: use --name to give this one another name"
        )


def publish_run(
    atlas: Atlas, *, described: ModelRows, made: RunMetadata, state: IndexState, replace: bool = False
) -> int:
    """Publish a run and return its number; `replace` replaces an existing run of the same model and set.

    Raises:
        AlreadyIndexed, AnotherModel: as in `check_publishable`, checked again while publishing is locked.
        ImagesChanged: the set was removed, or its images or labels differ from those indexed.
    """
    model = described.model
    tables = RunTables(
        run=_run(model, made, layers=len(state.taps)),
        model=_model(described),
        classes=_classes(model),
        layers=_layers(described),
        layer_edges=pa.table(
            {
                "model": pa.array([model.name] * len(described.edges), pa.string()),
                "source": pa.array([source for source, _ in described.edges], pa.string()),
                "target": pa.array([target for _, target in described.edges], pa.string()),
            }
        ),
        modules=_modules(described),
        label_matches=_label_matches(made),
        **_results(state, images=1 + max((image.image_id for image in made.listed), default=-1)),
    )
    with atlas.publish() as connection:

        def fetch(query: Query) -> list[dict[str, Any]]:
            found: pa.Table = connection.sql(query.sql, params=query.values or None).to_arrow_table()
            rows: list[dict[str, Any]] = found.to_pylist()
            return rows

        check_publishable(
            fetch, model=model.name, digest=described.digest, image_set=made.image_set, replace=replace
        )
        _check_images(fetch(set_images(made.image_set)), made)
        return insert_run(
            connection,
            tables,
            model=model.name,
            vocabulary=model.vocabulary.name,
            image_set=made.image_set,
        )


def _check_images(now: Sequence[Mapping[str, Any]], made: RunMetadata) -> None:
    """Images added by a concurrent import have higher ids and do no harm; paths may change too."""
    before = [(image.image_id, image.key, image.wnid, image.label) for image in made.listed]
    if [(row["image_id"], row["key"], row["wnid"], row["label"]) for row in now[: len(before)]] != before:
        what = "was removed" if not now else "changed its images or labels"
        raise ImagesChanged(
            f"image set {made.image_set!r} {what} during indexing: nothing was published; index it again"
        )


def _run(model: VisionModel, made: RunMetadata, *, layers: int) -> pa.Table:
    row = {
        "model": model.name,
        "image_set": made.image_set,
        "k": made.k,
        "dtype": made.dtype,
        "device": made.device,
        "layers": layers,
        "images": made.images,
        "unreadable": made.unreadable,
        "seconds": made.seconds,
        "started": made.started,
        "finished": made.finished,
        "version": metadata.version("convscope"),
    }
    return pa.Table.from_pylist([row])


def _model(described: ModelRows) -> pa.Table:
    model, preprocessing = described.model, described.model.preprocessing
    resize = preprocessing.resize
    height, width = (None, resize) if isinstance(resize, int) else resize
    row = {
        "model": model.name,
        "source": model.source,
        "architecture": model.architecture,
        "parameters": model.parameter_count,
        "weights_sha256": described.weights_sha256,
        "digest": described.digest,
        "input_height": preprocessing.input_size[0],
        "input_width": preprocessing.input_size[1],
        "resize_height": height,
        "resize_width": width,
        "interpolation": preprocessing.interpolation,
        "crop_rounding": preprocessing.crop_rounding,
        "fit": preprocessing.fit,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "vocabulary": model.vocabulary.name,
        "classes": len(model.vocabulary.classes),
    }
    return pa.Table.from_pylist([row])


def _classes(model: VisionModel) -> pa.Table:
    classes = model.vocabulary.classes
    return pa.table(
        {
            "vocabulary": pa.array([model.vocabulary.name] * len(classes), pa.string()),
            "class_index": pa.array([entry.index for entry in classes], pa.int32()),
            "wnid": pa.array([entry.wnid for entry in classes], pa.string()),
            "name": pa.array([entry.name for entry in classes], pa.string()),
            "description": pa.array([entry.description for entry in classes], pa.string()),
        }
    )


def _layers(described: ModelRows) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for tap in described.taps:
        field = described.fields[tap.layer]
        size = field.size or (None, None)
        jump = field.jump or (None, None)
        start = field.start or (None, None)
        rows.append(
            {
                "model": described.model.name,
                "layer": tap.layer,
                "position": tap.position,
                "label": tap.label,
                "module": tap.module,
                "kind": tap.kind,
                "description": tap.description,
                "stage": tap.stage,
                "block": tap.block,
                "channels": tap.channels,
                "height": tap.height,
                "width": tap.width,
                "rf_size_y": size[0],
                "rf_size_x": size[1],
                "jump_y": jump[0],
                "jump_x": jump[1],
                "start_y": start[0],
                "start_x": start[1],
                "rf_global": field.is_global,
                "rf_exact": field.exact,
                "erf_size": described.effective_sizes[tap.layer],
            }
        )
    return pa.Table.from_pylist(rows)


def _modules(described: ModelRows) -> pa.Table:
    """A row for each module; the reasons of one that is called several times are joined."""
    modules = [
        (name, type(module).__name__) for name, module in described.model.network.named_modules() if name
    ]
    reasons: dict[str, list[str]] = {}
    for entry in described.left_out:
        told = reasons.setdefault(entry.module, [])
        if entry.reason not in told:
            told.append(entry.reason)
    left_out = ["; ".join(reasons[name]) if name in reasons else None for name, _ in modules]
    return pa.table(
        {
            "model": pa.array([described.model.name] * len(modules), pa.string()),
            "position": pa.array(range(len(modules)), pa.int32()),
            "module": pa.array([name for name, _ in modules], pa.string()),
            "kind": pa.array([kind for _, kind in modules], pa.string()),
            "left_out": pa.array(left_out, pa.string()),
        }
    )


def _label_matches(made: RunMetadata) -> pa.Table:
    """A row for each label of the set."""
    counted = Counter(SetLabel(image.wnid, image.label) for image in made.listed)
    rows = [
        (label.label, label.wnid, images, match.how, match.index, list(match.candidates))
        for label, images in counted.items()
        if label.key
        for match in [made.matches[label]]
    ]
    kinds = [pa.string(), pa.string(), pa.int32(), pa.string(), pa.int32(), pa.list_(pa.int32())]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    names = ["label", "wnid", "images", "how", "class_index", "candidates"]
    return pa.table(
        {name: pa.array(values, kind) for name, values, kind in zip(names, columns, kinds, strict=True)}
    )


def _results(state: IndexState, *, images: int) -> dict[str, pa.Table]:
    activations = _activations(state)
    # stable: within an image, rows stay ordered by layer, channel and rank
    order = np.argsort(activations["image_id"].to_numpy(), kind="stable")
    predictions = state.predictions()
    stats, histogram = state.statistics.rows(), state.statistics.histogram()
    layers, channels = _channel_names(state.taps)
    return {
        "activations": activations,
        "activations_by_image": activations.take(order),
        "predictions": pa.table(
            {
                "image_id": predictions.image_ids,
                "rank": predictions.ranks,
                "class_index": predictions.class_indices,
                "probability": predictions.probabilities,
                "logit": predictions.logits,
                "is_label": predictions.is_label,
            }
        ),
        "channel_stats": pa.table(
            {
                "layer": layers,
                "channel": channels,
                "mean": _nullable(stats.mean),
                "std": _nullable(stats.std),
                "min": _nullable(stats.min),
                "max": _nullable(stats.max),
                "dead": stats.dead,
                "nonfinite": stats.nonfinite,
            }
        ),
        "channel_histograms": pa.table(
            {
                "layer": layers.take(pa.array(histogram.channels)),
                "channel": channels[histogram.channels],
                "low": histogram.low,
                "high": histogram.high,
                "images": histogram.images,
            }
        ),
        "responses": _responses(state, images),
    }


def _responses(state: IndexState, images: int) -> pa.Table:
    """A list of `images` values per channel, NULL where not finite; no rows if responses are not kept."""
    layers, channels = _channel_names(state.taps)
    kept = state.responses()
    if kept is None:
        layers, channels, values = layers[:0], channels[:0], np.empty((0, images), np.float32)
    else:
        values = np.full((len(channels), images), np.nan, np.float32)
        values[:, kept[0].numpy()] = kept[1].numpy().T
    flat = values.ravel()
    lists = pa.ListArray.from_arrays(
        np.arange(len(values) + 1, dtype=np.int32) * images, pa.array(flat, mask=~np.isfinite(flat))
    )
    return pa.table({"layer": layers, "channel": channels, "activations": lists})


def _activations(state: IndexState) -> pa.Table:
    rows = [state.topk[tap.layer].rows() for tap in state.taps]
    counts = [len(found.channels) for found in rows]
    widths = [np.int32(tap.width) for tap in state.taps]
    return pa.table(
        {
            "layer": _repeated([tap.layer for tap in state.taps], counts),
            "channel": np.concatenate([found.channels for found in rows]),
            "rank": np.concatenate([found.ranks for found in rows]),
            "image_id": np.concatenate([found.image_ids for found in rows]),
            "activation": np.concatenate([found.values for found in rows]),
            "y": np.concatenate(
                [found.positions // width for found, width in zip(rows, widths, strict=True)]
            ),
            "x": np.concatenate([found.positions % width for found, width in zip(rows, widths, strict=True)]),
        }
    )


def _channel_names(taps: Sequence[Tap]) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.int32]]]:
    """Layer and channel of each channel in the order of the statistics."""
    layers = _repeated([tap.layer for tap in taps], [tap.channels for tap in taps])
    return layers, np.concatenate([np.arange(tap.channels, dtype=np.int32) for tap in taps])


def _repeated(names: Sequence[str], counts: Sequence[int]) -> pa.Array:
    """Each name repeated as often as its count, as a dictionary array: one integer per row instead of a string."""
    indices = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(names, pa.string()))


def _nullable(values: np.ndarray[Any, Any]) -> pa.Array:
    """NaN as NULL: a channel without finite values has no mean."""
    return pa.array(values, from_pandas=True)
