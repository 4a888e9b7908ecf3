"""Runs of a model over an image set: what must be known to make one, and putting one into the atlas."""

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
    """All images of a set in the order of their ids."""
    return Query(
        """
SELECT image_id, name, path, key, wnid, label
FROM images
WHERE image_set = $image_set
ORDER BY image_id""",
        {"image_set": image_set},
    )


def run_of(model: str, image_set: str) -> Query:
    """The run of a model over a set, if there is one."""
    return Query(
        """
SELECT run, k, dtype, layers, images, finished
FROM runs
WHERE model = $model AND image_set = $image_set""",
        {"model": model, "image_set": image_set},
    )


def runs_of_another(model: str, digest: str, image_set: str) -> Query:
    """Runs over other sets by another model of the same name."""
    return Query(
        """
SELECT run, image_set, source
FROM runs JOIN models USING (model)
WHERE model = $model AND digest <> $digest AND image_set <> $image_set
ORDER BY image_set""",
        {"model": model, "digest": digest, "image_set": image_set},
    )


def effective_sizes_of(model: str, digest: str) -> Query:
    """Effective field of each layer of this very model, if the atlas has it."""
    return Query(
        """
SELECT layer, erf_size
FROM layers JOIN models USING (model)
WHERE model = $model AND digest = $digest AND erf_size IS NOT NULL""",
        {"model": model, "digest": digest},
    )


def channel_stds(model: str, digest: str, image_set: str) -> Query:
    """Spread of each channel (`db.atlas.stds`) over a set, in channel order by layer, of this model; NULL: dead."""
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
    """A finished run as Arrow tables with the atlas's column names; those of a run lack the column `run`.

    `activations` is in order of layer, channel and rank, `activations_by_image` holds the same rows by image.
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
    """Enter a run with its model in place of what is there of both; gives the run's number.

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
    # the vocabulary that a model of this name had before
    connection.execute("DELETE FROM classes WHERE vocabulary NOT IN (SELECT vocabulary FROM models)")
    # all, although it is one row: the connection takes nothing else while a result is open
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
