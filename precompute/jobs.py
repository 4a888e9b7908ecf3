"""Job kinds `import` and `index`: the work of the commands of the same name, run by a worker.

Both may be killed at any moment: an import publishes nothing before its end and reuses the files it wrote, an
index has a checkpoint. Jobs wait for resources locked by another process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from sqlalchemy import Connection, insert

from db.atlas.runs import run_of
from db.atlas.store import Atlas, AtlasError, NoAtlas
from db.ledger.engine import now
from db.ledger.jobs import Record
from db.ledger.tables import ImageImport
from db.queries.inventory import indexed_layers
from db.queries.inventory import layers as layers_of
from db.settings import Settings
from db.stores.images import ImageStore, StoreBusy
from db.stores.uploads import NoSuchUpload, UploadStore
from precompute.images.importing import ImportReport, Preview, import_source, open_source, preview_import
from precompute.images.layouts import Layout, LayoutOptions
from precompute.images.layouts.asked import layout_options
from precompute.images.sources.source import ImportRefused, Source
from precompute.images.sources.upload import UploadSource
from precompute.index.checkpoint import BuildBusy, CheckpointFailed
from precompute.index.run import AlreadyIndexed, AnotherModel, CannotIndex, ImagesChanged, run_index
from workers.models.networks import ModelError
from workers.models.vision import load_model
from workers.queue.runner import Computed, ItemFailed, Kind, Postponed, Report, RetryableError
from workers.requests.image_sets import allowed_labels, allowed_path, matching_layers
from workers.requests.parameters import InvalidRequest

MAX_REFUSALS = 1000
MAX_SHOWN = 50
_SECONDS_BETWEEN_CHECKPOINTS = 30.0
# Errors caused by the request itself, which a retry would hit again.
_PERMANENT_ERRORS = (
    ImportRefused, InvalidRequest, NoSuchUpload, ModelError, CannotIndex, AlreadyIndexed, AnotherModel, ImagesChanged,
    NoAtlas,
)  # fmt: skip


def set_kinds(settings: Settings, device: torch.device) -> dict[str, Kind]:
    """The job kinds of this module, for a worker on `device`."""
    atlas, store = Atlas(settings), ImageStore(settings)
    return {
        "import": ImportJobs(settings, atlas, store),
        "index": IndexJobs(settings, atlas, store, device),
    }


class ImportJobs:
    """Imports an upload, or a folder below an allowed root."""

    def __init__(self, settings: Settings, atlas: Atlas, store: ImageStore) -> None:
        self._roots = settings.image_roots
        self._atlas = atlas
        self._store = store
        self._uploads = UploadStore(settings)

    def compute(
        self,
        item: Record,  # noqa: ARG002  # an import has one item
        parameters: Mapping[str, Any],
        job: int,
        on_progress: Report,
    ) -> Computed:
        """See `workers.queue.runner.Kind`."""
        upload = parameters.get("upload")

        def tell(done: int, total: int | None) -> None:
            of = "" if total is None else f" of {total:,}"
            on_progress(done, total or 0, f"{done:,}{of} images")

        preview = bool(parameters.get("preview"))
        try:
            options = self._options(parameters)
            source = self._source(parameters, options)
            if preview:
                row = _preview_row(preview_import(source, options=options, progress=tell), parameters, job)
                return Computed(lambda connection: _insert(connection, row))
            report = import_source(
                self._atlas,
                self._store,
                image_set=parameters["image_set"],
                source=source,
                origin=parameters["source"],
                options=options,
                progress=tell,
            )
        except _PERMANENT_ERRORS as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        except StoreBusy as error:
            raise Postponed(str(error)) from error
        except AtlasError as error:
            raise RetryableError(str(error)) from error
        row = _import_row(report, parameters, job)

        def done_with() -> None:
            if upload is not None:
                self._uploads.remove(upload)

        return Computed(lambda connection: _insert(connection, row), done_with)

    def _options(self, parameters: Mapping[str, Any]) -> LayoutOptions:
        labels, words = parameters.get("labels"), parameters.get("words", {})
        if labels is None:
            return layout_options(**words)
        if "upload" in parameters:
            file = self._uploads.labels(parameters["upload"], labels)
            return layout_options(labels=file.path, labels_name=file.name, **words)
        return layout_options(labels=allowed_labels(labels, self._roots), **words)

    def _source(self, parameters: Mapping[str, Any], options: LayoutOptions) -> Source:
        if "upload" in parameters:
            return UploadSource(
                [(file.name, file.path) for file in self._uploads.check_complete(parameters["upload"])],
                columns=options.columns,
            )
        path = allowed_path(parameters["folder"], self._roots)
        within = next(root for root in self._roots if path.is_relative_to(root))
        return open_source(path, but=self._store.folders(), within=within, columns=options.columns)


def _insert(connection: Connection, row: Mapping[str, Any]) -> int:
    inserted = insert(ImageImport).values(row).returning(ImageImport.image_import)
    return connection.execute(inserted).scalar_one()


def _layout_facts(layout: Layout, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Facts about a layout for the page, with `notes` on the images."""
    return {
        "sentence": layout.sentence(),
        "notes": [*layout.notes, *notes][:MAX_SHOWN],
        "unused": [asdict(one) for one in layout.unused[:MAX_SHOWN]],
    }


def _preview_row(preview: Preview, parameters: Mapping[str, Any], job: int) -> dict[str, Any]:
    """A row that previews the import; it counts no image as added."""
    counts = ("added", "known", "refused", "labelled", "relabelled", "moved", "changed", "duplicates")
    labels = dict(list(preview.labels.items())[:MAX_SHOWN])
    facts = {
        "preview": True,
        "images": preview.images,
        "splits": dict(list(preview.splits.items())[:MAX_SHOWN]),
        "labels": labels,
        "classes": len(preview.labels),
    }
    return dict.fromkeys((*counts, "renamed", "gone"), 0) | {
        "job": job,
        "image_set": parameters["image_set"],
        "source": parameters["source"],
        "layout": facts | _layout_facts(preview.layout),
        "refusals": [],
        "seconds": 0.0,
        "created": now(),
    }


def _import_row(report: ImportReport, parameters: Mapping[str, Any], job: int) -> dict[str, Any]:
    refused = [{"name": one.name, "reason": one.reason} for one in report.refused[:MAX_REFUSALS]]
    return {
        "job": job,
        "image_set": parameters["image_set"],
        "source": parameters["source"],
        "added": report.added,
        "known": report.known,
        "refused": len(report.refused),
        "labelled": report.labelled,
        "relabelled": report.relabelled,
        "moved": report.moved,
        "changed": report.changed,
        "duplicates": report.duplicates,
        "renamed": report.renamed,
        "gone": report.gone,
        "layout": _layout_facts(report.layout, report.notes),
        "refusals": refused,
        "seconds": report.seconds,
        "created": now(),
    }


class IndexJobs:
    """Indexes an image set with a model."""

    def __init__(
        self,
        settings: Settings,
        atlas: Atlas,
        store: ImageStore,
        device: torch.device,
        *,
        seconds_between_checkpoints: float = _SECONDS_BETWEEN_CHECKPOINTS,
    ) -> None:
        self._settings = settings
        self._atlas = atlas
        self._store = store
        self._device = device
        self._seconds_between_checkpoints = seconds_between_checkpoints

    def compute(
        self,
        item: Record,  # noqa: ARG002  # an index has one item
        parameters: Mapping[str, Any],
        job: int,  # noqa: ARG002  # the run belongs to the atlas
        on_progress: Report,
    ) -> Computed:
        """See `workers.queue.runner.Kind`."""
        try:
            run = self._published(parameters) or self._index(parameters, on_progress)
        except _PERMANENT_ERRORS as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        except BuildBusy as error:
            raise Postponed(str(error)) from error
        except (AtlasError, CheckpointFailed) as error:
            raise RetryableError(str(error)) from error
        return Computed(lambda _connection: run)

    def _published(self, parameters: Mapping[str, Any]) -> int | None:
        """The run published by an earlier attempt that was killed before it could report it."""
        model = parameters["models"][0]["name"]
        for row in self._atlas.fetch(run_of(model, parameters["image_set"])):
            same = all(row[name] == parameters[name] for name in ("k", "dtype"))
            known = [one["layer"] for one in self._atlas.fetch(layers_of(model))]
            made = {one["layer"] for one in self._atlas.fetch(indexed_layers(row["run"]))}
            same = same and made == set(matching_layers(known, parameters["layers"]))
            if row["run"] != parameters["before"] and same:
                return int(row["run"])
        return None

    def _index(self, parameters: Mapping[str, Any], on_progress: Report) -> int:
        wanted = parameters["models"][0]
        on_progress(0, 1, f"loading {wanted['name']}")
        model = load_model(
            wanted["source"],
            name=wanted["name"],
            hub_timeout=self._settings.hub_timeout,
            models_folder=self._settings.home / "models",
            device=self._device,
        )

        def tell(done: int, total: int | None, phase: str) -> None:
            counted = f"{done:,} of {total:,} images" if phase == "indexing" else phase
            share = (done, total or 0) if phase == "indexing" else (0 if phase == "loading" else 1, 1)
            on_progress(*share, counted)

        report = run_index(
            self._atlas,
            self._store,
            model=model,
            image_set=parameters["image_set"],
            k=parameters["k"],
            layers=parameters["layers"],
            dtype=parameters["dtype"],
            batch_size=parameters["batch_size"],
            device=str(self._device),
            resume=True,
            replace=parameters["replace"],
            progress=tell,
            seconds_between_checkpoints=self._seconds_between_checkpoints,
        )
        return report.run
