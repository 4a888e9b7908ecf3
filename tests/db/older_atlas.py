"""Atlases in the shapes that published code wrote, from their recorded tables, with a few rows."""

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from db.atlas import schema

MOMENT = datetime(2026, 11, 20, 1, 2, 3)
_VERSION_3 = """
CREATE TABLE image_sets (image_set VARCHAR, source VARCHAR, images INTEGER, labelled INTEGER, created TIMESTAMP);
CREATE TABLE images (
    image_set VARCHAR, image_id INTEGER, key VARCHAR, name VARCHAR, path VARCHAR, width INTEGER, height INTEGER,
    bytes BIGINT, split VARCHAR, wnid VARCHAR, label_index INTEGER, label VARCHAR, dhash UBIGINT);
CREATE TABLE classes (vocabulary VARCHAR, class_index INTEGER, wnid VARCHAR, name VARCHAR, description VARCHAR);
CREATE TABLE models (
    model VARCHAR, source VARCHAR, architecture VARCHAR, parameters BIGINT, weights_sha256 VARCHAR, digest VARCHAR,
    input_height INTEGER, input_width INTEGER, resize_height INTEGER, resize_width INTEGER,
    interpolation VARCHAR, crop_rounding VARCHAR, mean FLOAT[3], std FLOAT[3], vocabulary VARCHAR, classes INTEGER);
CREATE TABLE layers (
    model VARCHAR, layer VARCHAR, position INTEGER, label VARCHAR, module VARCHAR, kind VARCHAR,
    description VARCHAR, stage VARCHAR, block VARCHAR, channels INTEGER, height INTEGER, width INTEGER,
    rf_size_y INTEGER, rf_size_x INTEGER, jump_y DOUBLE, jump_x DOUBLE, start_y DOUBLE, start_x DOUBLE,
    rf_global BOOLEAN, rf_exact BOOLEAN, erf_size INTEGER);
CREATE TABLE layer_edges (model VARCHAR, source VARCHAR, target VARCHAR);
CREATE TABLE runs (
    run INTEGER, model VARCHAR, image_set VARCHAR, k INTEGER, dtype VARCHAR, device VARCHAR, layers INTEGER,
    images INTEGER, unreadable INTEGER, seconds DOUBLE, started TIMESTAMP, finished TIMESTAMP, version VARCHAR);
CREATE TABLE activations (
    run INTEGER, layer VARCHAR, channel INTEGER, rank INTEGER, image_id INTEGER, activation FLOAT,
    y INTEGER, x INTEGER);
CREATE TABLE activations_by_image (
    run INTEGER, image_id INTEGER, layer VARCHAR, channel INTEGER, rank INTEGER, activation FLOAT,
    y INTEGER, x INTEGER);
CREATE TABLE predictions (
    run INTEGER, image_id INTEGER, rank INTEGER, class_index INTEGER, probability FLOAT, logit FLOAT,
    is_label BOOLEAN);
CREATE TABLE channel_stats (
    run INTEGER, layer VARCHAR, channel INTEGER, mean DOUBLE, std DOUBLE, min FLOAT, max FLOAT,
    dead BOOLEAN, nonfinite BIGINT);
CREATE TABLE channel_histograms (
    run INTEGER, layer VARCHAR, channel INTEGER, low FLOAT, high FLOAT, images INTEGER);
CREATE TABLE responses (run INTEGER, layer VARCHAR, channel INTEGER, activations FLOAT[]);
CREATE SEQUENCE run_numbers;
CREATE TABLE atlas_info (schema_version INTEGER);
INSERT INTO atlas_info VALUES (3);
"""
_RESPONSES = "CREATE TABLE responses (run INTEGER, layer VARCHAR, channel INTEGER, activations FLOAT[]);"
_VERSION_1 = (
    _VERSION_3.replace(", dhash UBIGINT", "").replace(_RESPONSES, "").replace("VALUES (3)", "VALUES (1)")
)
_VERSION_4 = (
    _VERSION_3.replace(
        "CREATE SEQUENCE",
        """
CREATE TABLE label_matches (
    run INTEGER, label VARCHAR, wnid VARCHAR, images INTEGER, how VARCHAR, class_index INTEGER, candidates INTEGER[]);
CREATE TABLE label_choices (model VARCHAR, image_set VARCHAR, label VARCHAR, class_index INTEGER);
CREATE SEQUENCE""",
    )
).replace("VALUES (3)", "VALUES (4)")
# Tables by version; a letter marks what was added to a version after its first files.
TABLES = {
    "1": _VERSION_1.replace(" crop_rounding VARCHAR,", "")
    .replace(" rf_exact BOOLEAN,", "")
    .replace(" digest VARCHAR,", ""),
    "1b": _VERSION_1,
    "3": _VERSION_3.replace(_RESPONSES, ""),
    "3b": _VERSION_3,
    "4": _VERSION_4,
    "4b": _VERSION_4.replace("mean FLOAT[3], std FLOAT[3]", "fit VARCHAR, mean FLOAT[], std FLOAT[]")
    .replace("dhash UBIGINT", "dhash UBIGINT, colors UTINYINT[]")
    .replace(
        "CREATE SEQUENCE",
        "CREATE TABLE modules (model VARCHAR, position INTEGER, module VARCHAR, kind VARCHAR, left_out VARCHAR);"
        "CREATE SEQUENCE",
    ),
}


def write_older_atlas(home: Path, shape: str) -> None:
    """Publish, as that version did, an atlas of two images and run 3 with one channel (runs 1 and 2 were replaced)."""
    folder = home / "atlas"
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "000007.duckdb")) as connection:
        connection.execute(TABLES[shape])
        if shape == "4b":  # the present version: no migration step adds its views
            connection.execute(schema._NEAR_DUPLICATES + schema._VIEWS)
        for _ in range(3):
            connection.execute("SELECT nextval('run_numbers')")
        for table, rows in _ROWS.items():
            for row in rows:
                _insert(connection, table, row)
    (folder / "CURRENT").write_text("000007\n")


def _insert(connection: duckdb.DuckDBPyConnection, table: str, row: dict[str, Any]) -> None:
    """Insert the columns that the table has in this shape, which may differ from the present tables."""
    found = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = ?", [table]
    ).fetchall()
    names = [name for (name,) in found if name in row]
    if names:
        marks = ", ".join("?" * len(names))
        connection.execute(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", [row[name] for name in names]
        )


_UNIT = {"run": 3, "layer": "l", "channel": 0}
_TOP = [
    {**_UNIT, "rank": 1, "image_id": 1, "activation": 0.5, "y": 3, "x": 4},
    {**_UNIT, "rank": 2, "image_id": 0, "activation": 0.25, "y": 0, "x": 0},
]
_ROWS: dict[str, list[dict[str, Any]]] = {
    "image_sets": [{"image_set": "s", "source": "/s", "images": 2, "labelled": 1, "created": MOMENT}],
    "images": [
        {
            "image_set": "s", "image_id": number, "key": str(number) * 64, "name": "n", "path": "p", "width": 9,
            "height": 8, "bytes": 5, "split": "val", "label": label, "dhash": 77, "colors": [number] * 192,
        }
        for number, label in enumerate(["crane", None])
    ],
    "classes": [{"vocabulary": "v", "class_index": 0, "name": "Crane", "description": "d"}],
    "models": [
        {
            "model": "m", "source": "src", "architecture": "a", "parameters": 1, "weights_sha256": "w", "digest": "d",
            "input_height": 8, "input_width": 10, "resize_width": 12, "interpolation": "bilinear",
            "crop_rounding": "down", "fit": "contain", "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "vocabulary": "v",
            "classes": 1,
        }
    ],
    "layers": [
        {
            "model": "m", "layer": "l", "position": 0, "label": "l", "module": "l", "kind": "conv",
            "description": "d", "channels": 1, "height": 4, "width": 5, "rf_size_y": 5, "rf_size_x": 5, "jump_y": 2,
            "jump_x": 2, "start_y": -2, "start_x": -2, "rf_global": False, "rf_exact": True, "erf_size": 3,
        }
    ],
    "runs": [
        {
            "run": 3, "model": "m", "image_set": "s", "k": 2, "dtype": "float32", "device": "cpu", "layers": 1,
            "images": 2, "unreadable": 0, "seconds": 1.5, "started": MOMENT, "finished": MOMENT, "version": "0.1.0",
        }
    ],
    "activations": _TOP,
    "activations_by_image": _TOP[::-1],
    "predictions": [
        {"run": 3, "image_id": 0, "rank": 1, "class_index": 0, "probability": 0.75, "logit": 2.5, "is_label": True}
    ],
    "channel_stats": [
        {**_UNIT, "mean": 0.5, "std": 0.25, "min": 0, "max": 1, "dead": False, "nonfinite": 0}
    ],
    "channel_histograms": [{**_UNIT, "low": 0, "high": 1, "images": 2}],
    "responses": [{**_UNIT, "activations": [0.25, 0.5]}],
    "label_matches": [
        {"run": 3, "label": "crane", "images": 1, "how": "settled", "class_index": 0, "candidates": []}
    ],
    "label_choices": [{"model": "m", "image_set": "s", "label": "crane", "class_index": 0}],
    "modules": [{"model": "m", "position": 0, "module": "l", "kind": "Conv2d"}],
}  # fmt: skip
