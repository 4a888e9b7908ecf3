"""Jobs of kinds `import` and `index`: what the commands of those names do, run by a worker.

Both may be killed at any moment: an import changes nothing before its end and finds the files it wrote, an index has
a checkpoint. What another process holds is waited for.
"""

from collections.abc import Mapping
from typing import Any

import torch
from sqlalchemy import Connection, insert

from db.atlas import Atlas, AtlasError, NoAtlas
from db.images import ImageStore, StoreBusy
from db.index_queries import run_of
from db.jobs import Record
from db.ledger import now
from db.ledger_tables import ImageImport
from db.settings import Settings
from db.uploads import NoSuchUpload, UploadStore
from precompute.checkpoint import BuildBusy, CheckpointFailed
from precompute.images import ImportReport, import_source, open_source
from precompute.index import AlreadyIndexed, AnotherModel, CannotIndex, ImagesChanged, run_index
from precompute.source_upload import UploadSource
from precompute.sources import ImportRefused, Source
from workers.methods import WrongRequest
from workers.models import load_model
from workers.networks import ModelError
from workers.running import Computed, ItemFailed, Kind, MayPass, Report, TryLater
from workers.submit_sets import allowed_path

MOST_REFUSALS = 1000
_SECONDS_BETWEEN_CHECKPOINTS = 30.0
# What belongs to the request, and another attempt would meet again.
_ITS_OWN = (
    ImportRefused, WrongRequest, NoSuchUpload, ModelError, CannotIndex, AlreadyIndexed, AnotherModel, ImagesChanged,
    NoAtlas,
)  # fmt: skip


def set_kinds(settings: Settings, device: torch.device) -> dict[str, Kind]:
    """The kinds of this module, for a worker on `device`."""
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
        item: Record,  # noqa: ARG002  # a set has one
        parameters: Mapping[str, Any],
        job: int,
        on_progress: Report,
    ) -> Computed:
        """See `workers.running.Kind`."""
        upload = parameters.get("upload")

        def tell(done: int, total: int | None) -> None:
            of = "" if total is None else f" of {total:,}"
            on_progress(done, total or 0, f"{done:,}{of} images")

        try:
            report = import_source(
                self._atlas,
                self._store,
                image_set=parameters["image_set"],
                source=self._source(parameters),
                origin=parameters["source"],
                progress=tell,
            )
        except _ITS_OWN as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        except StoreBusy as error:
            raise TryLater(str(error)) from error
        except AtlasError as error:
            raise MayPass(str(error)) from error
        row = _import_row(report, parameters, job)

        def store(connection: Connection) -> int:
            inserted = insert(ImageImport).values(row).returning(ImageImport.image_import)
            return connection.execute(inserted).scalar_one()

        def done_with() -> None:
            if upload is not None:
                self._uploads.remove(upload)

        return Computed(store, done_with)

    def _source(self, parameters: Mapping[str, Any]) -> Source:
        if "upload" in parameters:
            return UploadSource(
                [(file.name, file.path) for file in self._uploads.check_complete(parameters["upload"])]
            )
        path = allowed_path(parameters["folder"], self._roots)
        within = next(root for root in self._roots if path.is_relative_to(root))
        return open_source(path, but=self._store.folders(), within=within)


def _import_row(report: ImportReport, parameters: Mapping[str, Any], job: int) -> dict[str, Any]:
    refused = [{"name": one.name, "reason": one.reason} for one in report.refused[:MOST_REFUSALS]]
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
        item: Record,  # noqa: ARG002  # a set has one
        parameters: Mapping[str, Any],
        job: int,  # noqa: ARG002  # the run is the atlas's
        on_progress: Report,
    ) -> Computed:
        """See `workers.running.Kind`."""
        try:
            run = self._published(parameters) or self._index(parameters, on_progress)
        except _ITS_OWN as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        except BuildBusy as error:
            raise TryLater(str(error)) from error
        except (AtlasError, CheckpointFailed) as error:
            raise MayPass(str(error)) from error
        return Computed(lambda _connection: run)

    def _published(self, parameters: Mapping[str, Any]) -> int | None:
        """The run that an attempt published which was killed before it could say so."""
        for row in self._atlas.fetch(run_of(parameters["models"][0]["name"], parameters["image_set"])):
            same = all(row[name] == parameters[name] for name in ("k", "dtype"))
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
