"""The standard deviation of channels against NumPy, in the query of jobs and in the views for users."""

import duckdb
import numpy as np
import pytest

from db.atlas.stds import FLOOR, SPREADS
from db.sql.views import VIEWS

NAN = float("nan")
# layer: standard deviations, largest values
LAYERS = {
    "usual": ([1.0, 2.0, 3.0, 0.0023, 0.0, 5.0], [9.0, 9.0, 9.0, 9.0, 4.0, 0.0]),
    "one_live": ([0.7, 0.0, 3.0], [1.0, 1.0, 0.0]),
    "all_dead": ([0.0, 0.0], [1.0, 0.0]),
    "no_number": ([NAN, 1.0], [1.0, -1.0]),
}


def expected(std: list[float], top: list[float]) -> list[float | None]:
    """By NumPy; None for dead channels."""
    live = [np.isfinite(s) and s > 0 and t != 0 for s, t in zip(std, top, strict=True)]
    floor = FLOOR * np.median([s for s, one in zip(std, live, strict=True) if one]) if any(live) else None
    return [max(s, floor) if one else None for s, one in zip(std, live, strict=True)]


@pytest.fixture
def atlas() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE channel_stats (run INTEGER, layer VARCHAR, channel INTEGER, mean DOUBLE, std DOUBLE, "
        "min FLOAT, max FLOAT, dead BOOLEAN, nonfinite BIGINT)"
    )
    for run in (1, 2):  # the second varies ten times as much: floors are per run
        for layer, (stds, tops) in LAYERS.items():
            for channel, (std, top) in enumerate(zip(stds, tops, strict=True)):
                connection.execute(
                    "INSERT INTO channel_stats VALUES (?, ?, ?, 0.5, ?, -1, ?, ?, 0)",
                    [run, layer, channel, std * 10 ** (run - 1), top, std == 0],
                )
    return connection


def test_a_spread_has_a_floor_by_layer_and_dead_channels_have_none(atlas: duckdb.DuckDBPyConnection) -> None:
    found = atlas.execute(
        f"SELECT run, layer, channel, live, spread FROM ({SPREADS}) ORDER BY ALL"
    ).fetchall()
    assert len(found) == 2 * sum(len(stds) for stds, _ in LAYERS.values())
    for run, layer, channel, live, spread in found:
        stds, tops = LAYERS[layer]
        right = expected([std * 10 ** (run - 1) for std in stds], tops)[channel]
        assert spread == (None if right is None else pytest.approx(right)), (run, layer, channel)
        assert live == (right is not None)
    usual = [spread for run, layer, _, _, spread in found if (run, layer) == (1, "usual")]
    assert usual == [1.0, 2.0, 3.0, pytest.approx(FLOOR * 1.5), None, None], "median of 1, 2, 3 and 0.0023"


def test_the_view_of_an_image_divides_by_that_spread(atlas: duckdb.DuckDBPyConnection) -> None:
    atlas.execute("CREATE TABLE runs (run INTEGER, model VARCHAR, image_set VARCHAR)")
    atlas.execute("INSERT INTO runs VALUES (1, 'm', 's'), (2, 'm', 't')")
    atlas.execute(
        "CREATE TABLE activations_by_image AS SELECT run, layer, channel, 0 AS image_id, 1 AS rank, "
        "2.5::FLOAT AS activation, 0 AS y, 0 AS x FROM channel_stats"
    )
    for name in ("channel_stds", "image_channels"):
        atlas.execute(f"CREATE VIEW {name} AS {VIEWS[name].sql}")
    found = atlas.execute(
        "SELECT layer, channel, deviations FROM image_channels WHERE image_set = 's'"
    ).fetchall()
    assert len(found) == sum(len(stds) for stds, _ in LAYERS.values())
    for layer, channel, deviations in found:
        right = expected(*LAYERS[layer])[channel]
        assert deviations == (None if right is None else pytest.approx(2 / right)), (layer, channel)
