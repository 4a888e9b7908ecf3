"""Atlases as older versions of the schema had them, from their recorded tables, with a few rows."""

from datetime import datetime
from pathlib import Path

import duckdb

MOMENT = datetime(2026, 11, 20, 1, 2, 3)
VERSION_3 = """
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
VERSION_1 = (
    VERSION_3.replace(", dhash UBIGINT", "")
    .replace("CREATE TABLE responses (run INTEGER, layer VARCHAR, channel INTEGER, activations FLOAT[]);", "")
    .replace("VALUES (3)", "VALUES (1)")
)
TABLES = {1: VERSION_1, 3: VERSION_3}


def write_older_atlas(home: Path, version: int) -> None:
    """Publish, as that version did, an atlas of two images and run 3 with one channel (runs 1 and 2 were replaced)."""
    folder = home / "atlas"
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "000007.duckdb")) as connection:
        connection.execute(TABLES[version])
        connection.execute("INSERT INTO image_sets VALUES ('s', '/s', 2, 1, ?)", [MOMENT])
        dhash = ", 77" if version > 1 else ""
        for number, label in enumerate(["crane", None]):
            connection.execute(
                f"INSERT INTO images VALUES ('s', ?, ?, 'n', 'p', 9, 8, 5, 'val', NULL, NULL, ?{dhash})",
                [number, str(number) * 64, label],
            )
        connection.execute("INSERT INTO classes VALUES ('v', 0, NULL, 'crane, the bird', 'd')")
        connection.execute(
            "INSERT INTO models VALUES ('m', 'src', 'a', 1, 'w', 'd', 8, 10, NULL, 12, 'bilinear', 'half_even', "
            "[0.1, 0.2, 0.3], [1, 1, 1], 'v', 1)"
        )
        connection.execute(
            "INSERT INTO layers VALUES ('m', 'l', 0, 'l', 'l', 'conv', 'd', NULL, NULL, 1, 4, 5, 5, 5, 2, 2, -2, -2, "
            "FALSE, TRUE, 3)"
        )
        for _ in range(3):
            connection.execute("SELECT nextval('run_numbers')")
        connection.execute(
            "INSERT INTO runs VALUES (3, 'm', 's', 2, 'float32', 'cpu', 1, 2, 0, 1.5, $1, $1, '0.1.0')",
            [MOMENT],
        )
        connection.execute(
            "INSERT INTO activations VALUES (3, 'l', 0, 1, 1, 0.5, 3, 4), (3, 'l', 0, 2, 0, 0.25, 0, 0)"
        )
        connection.execute(
            "INSERT INTO activations_by_image SELECT run, image_id, layer, channel, rank, activation, y, x "
            "FROM activations ORDER BY image_id"
        )
        connection.execute("INSERT INTO predictions VALUES (3, 0, 1, 0, 0.75, 2.5, TRUE)")
        connection.execute("INSERT INTO channel_stats VALUES (3, 'l', 0, 0.5, 0.25, 0, 1, FALSE, 0)")
    (folder / "CURRENT").write_text("000007\n")
