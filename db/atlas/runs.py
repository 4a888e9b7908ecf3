"""Runs of a model over an image set: the queries needed to make one, and its insertion into the atlas."""

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from db.atlas.stds import SPREADS
from db.atlas.store import Query

RUN_TABLES = (
    *("activations", "activations_by_image", "predictions", "channel_stats", "channel_histograms"),
    *("responses", "label_matches"),
)


def set_images(image_set: str) -> Query:
    """All images of a set, ordered by id."""
    return Query(
        """
SELECT image_id, name, path, key, wnid, label
FROM images
WHERE image_set = $image_set
ORDER BY image_id""",
        {"image_set": image_set},
    )


def run_of(model: str, image_set: str) -> Query:
    """The run of a model over a set, if it exists."""
    return Query(
        """
SELECT run, k, dtype, layers, images, finished
FROM runs
WHERE model = $model AND image_set = $image_set""",
        {"model": model, "image_set": image_set},
    )


def runs_of_another(model: str, digest: str, image_set: str) -> Query:
    """Runs over other sets by a different model with the same name."""
    return Query(
        """
SELECT run, image_set, source
FROM runs JOIN models USING (model)
WHERE model = $model AND digest <> $digest AND image_set <> $image_set
ORDER BY image_set""",
        {"model": model, "digest": digest, "image_set": image_set},
    )


def effective_sizes_of(model: str, digest: str) -> Query:
    """Effective receptive field size of each layer of exactly this model, if the atlas has it."""
    return Query(
        """
SELECT layer, erf_size
FROM layers JOIN models USING (model)
WHERE model = $model AND digest = $digest AND erf_size IS NOT NULL""",
        {"model": model, "digest": digest},
    )


def channel_stds(model: str, digest: str, image_set: str) -> Query:
    """Spread (`db.atlas.stds`) of each channel of exactly this model over a set, by layer and channel; NULL if dead."""
    return Query(
        f"""
SELECT s.layer, list(s.spread ORDER BY s.channel) AS spreads
FROM ({SPREADS}) s JOIN runs r USING (run) JOIN models m USING (model)
WHERE m.model = $model AND m.digest = $digest AND r.image_set = $image_set
GROUP BY s.layer""",
        {"model": model, "digest": digest, "image_set": image_set},
    )


@dataclass(frozen=True)
class RunTables:
    """A finished run as Arrow tables with the atlas's column names; tables of a run lack the column `run`.

    `activations` is ordered by layer, channel and rank; `activations_by_image` has the same rows ordered by
    image.
    """

    run: pa.Table
    model: pa.Table
    classes: pa.Table
    layers: pa.Table
    layer_edges: pa.Table
    modules: pa.Table
    activations: pa.Table
    activations_by_image: pa.Table
    predictions: pa.Table
    channel_stats: pa.Table
    channel_histograms: pa.Table
    responses: pa.Table
    label_matches: pa.Table


def insert_run(
    connection: duckdb.DuckDBPyConnection, tables: RunTables, *, model: str, vocabulary: str, image_set: str
) -> int:
    """Insert a run and its model, replacing the existing ones; returns the run's number.

    Call inside `Atlas.publish`.
    """
    values = {"model": model, "image_set": image_set}
    gone = "(SELECT run FROM runs WHERE model = $model AND image_set = $image_set)"
    for table in (*RUN_TABLES, "runs"):
        connection.execute(f"DELETE FROM {table} WHERE run IN {gone}", values)
    for table in ("models", "layers", "layer_edges", "modules"):
        connection.execute(f"DELETE FROM {table} WHERE model = $model", {"model": model})
    connection.execute("DELETE FROM classes WHERE vocabulary = $vocabulary", {"vocabulary": vocabulary})
    given = {
        "models": tables.model,
        "classes": tables.classes,
        "layers": tables.layers,
        "layer_edges": tables.layer_edges,
        "modules": tables.modules,
    }
    for table, rows in given.items():
        _insert(connection, table, rows, "SELECT * FROM given")
    # drop the vocabulary of the replaced model
    connection.execute("DELETE FROM classes WHERE vocabulary NOT IN (SELECT vocabulary FROM models)")
    # fetchall for a single row: the connection is blocked while a result is open
    run = int(connection.execute("SELECT nextval('run_numbers')").fetchall()[0][0])
    for table in ("runs", *RUN_TABLES):
        rows = tables.run if table == "runs" else getattr(tables, table)
        _insert(connection, table, rows, "SELECT $run AS run, * FROM given", run=run)
    return run


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table, select: str, **values: int
) -> None:
    connection.register("given", rows)
    connection.execute(f"INSERT INTO {table} BY NAME {select}", values)
    connection.unregister("given")
