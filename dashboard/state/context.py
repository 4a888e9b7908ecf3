"""Application context: what every page and route needs, created once per application."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import flask

from dashboard.pictures.compose import Pixels
from dashboard.state.cache import Cache
from dashboard.state.health import Health
from db.atlas.store import Atlas, AtlasError, NoAtlas
from db.first_run import STIMULI
from db.ledger.engine import Ledger
from db.queries import inventory as queries
from db.queries.federation import AtlasWithLedger
from db.settings import Settings
from db.sql.runner import SQLRunner
from db.stores.images import ImageStore
from db.stores.results import ResultStore
from workers.requests.submit import JobSubmitter

Record = dict[str, Any]
EXTENSION = "convscope"
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Catalogue:
    """Contents of one atlas version: small facts that every page needs.

    `layers` are those of a model; a run may cover only some of them: `dead` contains, by run, the indexed
    layers with their number of dead channels. `top1` is the accuracy of each run over labeled images.
    `version` is None if nothing has been published; `trouble` says why an atlas cannot be read.
    """

    version: str | None
    runs: tuple[Record, ...] = ()
    image_sets: tuple[Record, ...] = ()
    layers: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    edges: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    dead: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    top1: Mapping[int, float] = field(default_factory=dict)
    trouble: str = ""

    def run(self, model: str, image_set: str) -> Record | None:
        """The run of a model over an image set; an empty name matches any.

        If several match, photos come before the probe images of the first run, and labeled sets before
        unlabeled ones; among those the newest set, and over it the most accurate model. Accuracies over
        different sets are not compared, because sets differ in difficulty. If nothing is labeled, the newest
        run.
        """
        fits = [
            run for run in self.runs if model in ("", run["model"]) and image_set in ("", run["image_set"])
        ]
        age = {found["image_set"]: place for place, found in enumerate(self.image_sets)}  # newest first

        def rank(run: Record) -> tuple[bool, bool, int, float]:
            top1 = self.top1.get(run["run"])
            probe = run["image_set"] == STIMULI
            return (
                (probe, True, 0, 0.0)
                if top1 is None
                else (probe, False, age.get(run["image_set"], len(age)), -top1)
            )

        return min(fits, key=rank, default=None)

    def run_numbered(self, number: int) -> Record | None:
        """The run with this number, None if a newer one replaced it."""
        return next((run for run in self.runs if run["run"] == number), None)

    def newest_set(self, image_set: str = "") -> str:
        """The image set of this name, else the newest, with probe images last; empty if there is none."""
        names = [found["image_set"] for found in self.image_sets]
        return image_set if image_set in names else min(names, key=lambda name: name == STIMULI, default="")

    def layer(self, model: str, layer: str) -> Record | None:
        """A layer of a model; None if it does not exist."""
        return next((row for row in self.layers.get(model, ()) if row["layer"] == layer), None)

    def is_indexed(self, run: Record, layer: Record) -> bool:
        """Whether the run covers this layer of its model."""
        return layer["layer"] in self.dead.get(run["run"], {})


@dataclass
class Context:
    """The application's components. One per `create_app`."""

    settings: Settings
    atlas: Atlas
    store: ImageStore
    ledger: Ledger
    results: ResultStore
    submitter: JobSubmitter
    health: Health
    both: AtlasWithLedger
    sql: SQLRunner
    thumbnails: Cache[str, Pixels] = field(
        default_factory=lambda: Cache(256 * MEGABYTE, lambda pixels: int(pixels.nbytes))
    )
    pictures: Cache[tuple[Any, ...], bytes] = field(default_factory=lambda: Cache(96 * MEGABYTE, len))
    cells: Cache[tuple[str | None, int, str, str, int], tuple[Record, ...]] = field(
        default_factory=lambda: Cache(200_000, len)
    )
    pages: Cache[tuple[Any, ...], tuple[dict[str, Any], list[int]]] = field(
        default_factory=lambda: Cache(100, lambda _page: 1)
    )
    tours: Cache[str, tuple[Any, ...]] = field(default_factory=lambda: Cache(100, lambda _tour: 1))
    _catalogue: Catalogue = field(default_factory=lambda: Catalogue(version=None))

    def catalogue(self) -> Catalogue:
        """Contents of the current version; read again when the version changes."""
        try:
            version = self.atlas.version()
        except AtlasError as error:
            return Catalogue(version=None, trouble=str(error))
        if version is None:
            return Catalogue(version=None)
        if self._catalogue.version != version or self._catalogue.trouble:
            try:
                self._catalogue = read_catalogue(self.atlas, version)
            except NoAtlas:
                return Catalogue(version=None)
            except AtlasError as error:
                return Catalogue(version=version, trouble=str(error))
        return self._catalogue


def read_catalogue(atlas: Atlas, version: str) -> Catalogue:
    """Read the contents of `version`. A newer version published meanwhile is noticed at the next call."""
    runs = tuple(atlas.fetch(queries.runs()))
    models = {run["model"] for run in runs}
    return Catalogue(
        version=version,
        runs=runs,
        image_sets=tuple(atlas.fetch(queries.image_sets())),
        layers={model: tuple(atlas.fetch(queries.layers(model))) for model in models},
        edges={
            model: tuple((edge["source"], edge["target"]) for edge in atlas.fetch(queries.layer_edges(model)))
            for model in models
        },
        dead={
            run["run"]: {row["layer"]: row["dead"] for row in atlas.fetch(queries.indexed_layers(run["run"]))}
            for run in runs
        },
        top1={row["run"]: row["top1"] for row in atlas.fetch(queries.accuracies())},
    )


def current() -> Context:
    """The context of the application that serves the current request."""
    return cast(Context, flask.current_app.extensions[EXTENSION])
