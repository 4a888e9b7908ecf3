"""Every table and column of the atlas is documented, and its views compute what they state."""

import math

import duckdb
import pytest

from db.atlas.schema import ddl


@pytest.fixture
def tables() -> duckdb.DuckDBPyConnection:
    """An empty atlas in memory."""
    connection = duckdb.connect()
    connection.execute(ddl())
    return connection


def fill(connection: duckdb.DuckDBPyConnection, *, rf_global: bool, erf_size: int = 3) -> None:
    """Insert one model of 8x10 input, one layer of 4x5 cells with jump 2, field 5, start -2, and 4 images."""
    connection.execute("INSERT INTO image_sets VALUES ('s', '/s', 4, 3, now()::TIMESTAMP)")
    for image_id, (wnid, label) in enumerate(
        [("n1", "crane"), ("n1", "crane"), ("n2", "crane"), (None, None)]
    ):
        connection.execute(
            "INSERT INTO images VALUES ('s', ?, 'k', 'n', 'p', 9, 9, 1, NULL, ?, NULL, ?, NULL, NULL)",
            [image_id, wnid, label],
        )
    connection.execute(
        """INSERT INTO models VALUES ('m', 's', 'a', 1, 'w', 'd', 8, 10, NULL, 12, 'bilinear', 'half_even',
        'exact', [0, 0, 0]::FLOAT[], [1, 1, 1]::FLOAT[], 'v', 2)"""
    )
    size = (None, None, None, None, None, None) if rf_global else (5, 5, 2.0, 2.0, -2.0, -2.0)
    connection.execute(
        """INSERT INTO layers VALUES ('m', 'l', 0, 'l', 'l', 'conv', 'd', NULL, NULL, 1, 4, 5,
        ?, ?, ?, ?, ?, ?, ?, TRUE, ?)""",
        [*size, rf_global, erf_size],
    )
    connection.execute(
        "INSERT INTO runs VALUES (1, 'm', 's', 4, 'float32', 'cpu', 1, 4, 0, 1, now()::TIMESTAMP, "
        "now()::TIMESTAMP, 'v')"
    )
    for rank, (y, x) in enumerate([(0, 0), (1, 1), (3, 4), (2, 2)], start=1):
        connection.execute(
            "INSERT INTO activations VALUES (1, 'l', 0, ?, ?, 1, ?, ?)", [rank, rank - 1, y, x]
        )


def boxes(connection: duckdb.DuckDBPyConnection, column: str) -> list[tuple[int, ...]]:
    rows = connection.execute(f"SELECT {column} FROM patches ORDER BY rank").fetchall()
    return [(box["y0"], box["x0"], box["y1"], box["x1"]) for (box,) in rows]


def test_every_table_and_column_is_explained(tables: duckdb.DuckDBPyConnection) -> None:
    silent = tables.execute(
        """SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL
        UNION ALL SELECT table_name, NULL FROM duckdb_tables() WHERE NOT internal AND comment IS NULL
        UNION ALL SELECT view_name, NULL FROM duckdb_views() WHERE NOT internal AND comment IS NULL"""
    ).fetchall()
    assert silent == []


def test_a_box_is_the_receptive_field_cut_at_the_inputs_edge(tables: duckdb.DuckDBPyConnection) -> None:
    fill(tables, rf_global=False)
    # cell (y, x) sees [2y - 2, 2y + 3) x [2x - 2, 2x + 3) of an input of 8 x 10
    assert boxes(tables, "box") == [(0, 0, 3, 3), (0, 0, 5, 5), (4, 6, 8, 10), (2, 2, 7, 7)]


def test_a_field_wholly_in_the_padding_is_an_empty_box(tables: duckdb.DuckDBPyConnection) -> None:
    fill(tables, rf_global=False)
    tables.execute("UPDATE layers SET rf_size_y = 1, rf_size_x = 1, erf_size = 1, start_x = 6")
    # cell (0, 0) sees row -2 of column 6, cell (3, 4) row 4 of column 14
    for column in ("box", "erf_box"):
        assert boxes(tables, column) == [(0, 6, 0, 7), (0, 8, 1, 9), (4, 10, 5, 10), (2, 10, 3, 10)]


def test_an_effective_box_sits_on_the_centre_of_the_theoretical_one(
    tables: duckdb.DuckDBPyConnection,
) -> None:
    fill(tables, rf_global=False, erf_size=3)
    assert boxes(tables, "erf_box") == [(0, 0, 2, 2), (1, 1, 4, 4), (5, 7, 8, 10), (3, 3, 6, 6)]


def test_an_effective_field_as_large_as_the_theoretical_one_is_the_same_box(
    tables: duckdb.DuckDBPyConnection,
) -> None:
    fill(tables, rf_global=False, erf_size=5)
    assert boxes(tables, "erf_box") == boxes(tables, "box")


def test_a_global_field_is_the_whole_input_and_its_effective_box_sits_on_the_grid_cell(
    tables: duckdb.DuckDBPyConnection,
) -> None:
    fill(tables, rf_global=True, erf_size=2)
    assert boxes(tables, "box") == [(0, 0, 8, 10)] * 4
    assert boxes(tables, "erf_box") == [(0, 0, 2, 2), (2, 2, 4, 4), (6, 8, 8, 10), (4, 4, 6, 6)]


def test_a_global_field_with_a_local_part_has_its_effective_box_in_the_middle_of_that(
    tables: duckdb.DuckDBPyConnection,
) -> None:
    fill(tables, rf_global=True, erf_size=3)
    tables.execute("UPDATE layers SET start_y = 0.5, start_x = 0.5, jump_y = 2, jump_x = 2")
    assert boxes(tables, "box") == [(0, 0, 8, 10)] * 4
    assert boxes(tables, "erf_box") == [(0, 0, 2, 2), (1, 1, 4, 4), (5, 7, 8, 10), (3, 3, 6, 6)]


def test_selectivity_counts_classes_by_wnid_since_names_repeat(tables: duckdb.DuckDBPyConnection) -> None:
    fill(tables, rf_global=False)
    (row,) = tables.execute(
        "SELECT labelled, classes, entropy_bits, majority_class, majority_share FROM selectivity"
    ).fetchall()
    entropy = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert row == (3, 2, pytest.approx(entropy), "n1", pytest.approx(2 / 3))
