"""What every page and route needs, made once per application and handed to it."""

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
    """What one version of the atlas holds: small facts that every page asks for.

    `layers` are a model's; a run may have been made over some of them only: `dead` holds those, by run, with how
    many of their channels are dead. `top1` is the accuracy of each run that judged labeled images. `version` is None
    where nothing was published yet; `trouble` says why an atlas cannot be read.
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
        """The run of a model over an image set; an empty name means any.

        Where several fit, photos come before the probe images of the first run, and labeled sets before others; of
        those the newest set, and over it the most accurate model. Accuracies over different sets are not compared:
        one set is harder than another. Where nothing is labeled, the newest run.
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
        """The run with this number, None where it was replaced by a newer one."""
        return next((run for run in self.runs if run["run"] == number), None)

    def newest_set(self, image_set: str = "") -> str:
        """The image set of this name, else the newest, probe pictures last; empty where there is none."""
        names = [found["image_set"] for found in self.image_sets]
        return image_set if image_set in names else min(names, key=lambda name: name == STIMULI, default="")

    def layer(self, model: str, layer: str) -> Record | None:
        """A layer of a model."""
        return next((row for row in self.layers.get(model, ()) if row["layer"] == layer), None)

    def is_indexed(self, run: Record, layer: Record) -> bool:
        """Whether the run was made over this layer of its model."""
        return layer["layer"] in self.dead.get(run["run"], {})


@dataclass
class Context:
    """The application's parts. One per `create_app`."""

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
        """What the current version holds; read again when the version changes."""
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
    """Read what `version` holds. A newer version published meanwhile is noticed at the next call."""
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
    """The context of the application that serves the present request."""
    return cast(Context, flask.current_app.extensions[EXTENSION])
