"""The ledger's attacks beside the atlas's tables, in one DuckDB session: what the Robustness page shows, as SQL.

The ledger's tables come as Arrow, read anew when they changed; the views below stand over them and the atlas. They
are what people query too: every number of the page is a SELECT from one of them.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from sqlalchemy import func, select
from sqlalchemy.types import JSON, Boolean, DateTime, Double, Integer

from db.atlas import Atlas, Query
from db.ledger import Ledger
from db.ledger_tables import Attack, AttackTransfer

# What lies in files, or names a row, says nothing in a table.
_LEFT_OUT = ("key", "image_key", "file", "input_file", "change_file", "steps_file", "parameters", "successes")

_PROTOCOL = """
    upper(method) || ', leaves the ' || relative_to
    || CASE WHEN step = cap THEN ', epsilon ' || round(cap, 6)
            ELSE ', step ' || round(step, 6) || ' to ' || round(cap, 6) END
    || CASE WHEN eight_bit THEN ', 8-bit' ELSE '' END"""

# The curve over rows of `attacked`, or over some of them.
CURVE = """
WITH points AS (
    SELECT model, image_set, protocol, smallest AS epsilon, count(*) AS images,
           count(*) FILTER (NOT censored) AS flipped
    FROM {source}
    WHERE outcome <> 'no_gradient'
    GROUP BY ALL),
risk AS (
    SELECT *, sum(images) OVER (PARTITION BY model, image_set, protocol ORDER BY epsilon DESC) AS at_risk
    FROM points)
SELECT model, image_set, protocol, epsilon, at_risk::BIGINT AS at_risk, flipped, images - flipped AS censored,
       product(1 - flipped / at_risk) OVER (PARTITION BY model, image_set, protocol ORDER BY epsilon) AS share
FROM risk"""

VIEWS: dict[str, tuple[str, str]] = {
    "attacked": (
        "Untargeted attacks with their images: the newest of each image under each model and protocol. `smallest` is "
        "the epsilon that succeeded, or the largest that was looked at where none did (`censored`).",
        f"""
SELECT a.attack, a.model, a.image_set, a.image_id, protocol, a.outcome, a.epsilon, a.attacked_epsilon,
       coalesce(a.epsilon, a.attacked_epsilon) AS smallest, a.outcome = 'resisted' AS censored,
       a.class_before, a.name_before, a.class_after, a.name_after, a.probability_before, a.probability_after,
       a.step, a.cap, a.png_succeeds, a.gradient_norm, a.seconds,
       coalesce(i.wnid, i.label) AS class, i.label, i.key
FROM (SELECT *, {_PROTOCOL} AS protocol FROM attacks WHERE relative_to <> 'target') a
JOIN images i USING (image_set, image_id)
QUALIFY row_number() OVER (PARTITION BY a.model, a.image_set, a.image_id, protocol ORDER BY a.attack DESC) = 1""",
    ),
    "robustness_curve": (
        "Share of images still right at an epsilon and just after it, by Kaplan and Meier's product over those still "
        "at risk: images that resisted to their cap leave it there. Without a gradient there was no attack: left out.",
        CURVE.format(source="attacked"),
    ),
    "robustness_by_class": (
        "Attacks by the images' labelled class; the median is null where half of them resist.",
        """
SELECT model, image_set, protocol, class, any_value(label) AS label, count(*) AS images,
       count(*) FILTER (outcome = 'flipped') AS flipped, count(*) FILTER (outcome = 'resisted') AS resisted,
       count(*) FILTER (epsilon = 0) AS wrong_already,
       nullif(quantile_disc(CASE WHEN censored THEN 'infinity'::DOUBLE ELSE epsilon END, 0.5),
              'infinity'::DOUBLE) AS median_epsilon
FROM attacked
WHERE class IS NOT NULL AND outcome <> 'no_gradient'
GROUP BY ALL""",
    ),
    "class_flips": (
        "From which class to which: the label, or the prediction where there is none, and the class after the attack.",
        """
SELECT model, image_set, protocol, coalesce(label, name_before, 'class ' || class_before) AS from_class,
       coalesce(name_after, 'class ' || class_after) AS to_class, class_after AS to_index, count(*) AS images,
       median(epsilon) AS median_epsilon, min(attack) AS example
FROM attacked
WHERE outcome = 'flipped'
GROUP BY ALL""",
    ),
    "transfer": (
        "What other models say of attacked images: of those that the judge had right before, the share whose class "
        "changes; `judged` counts all that it was asked about.",
        """
SELECT a.model, t.judge, a.image_set, a.protocol, count(*) AS judged,
       count(*) FILTER (t.right_before) AS right_before,
       count(*) FILTER (t.right_before AND t.moved) AS fooled,
       count(*) FILTER (t.right_before AND t.moved) / nullif(count(*) FILTER (t.right_before), 0) AS share_fooled,
       count(*) FILTER (t.moved) / count(*) AS share_moved
FROM attacked a
JOIN attack_transfers t USING (attack)
GROUP BY ALL""",
    ),
    "leaderboard": (
        "Models over the images that all of them were attacked on, by protocol: share still right after 0, 1, 4 and 8 "
        "levels of 255, null beyond the cap.",
        """
WITH counted AS (
    SELECT image_set, protocol, count(DISTINCT model) AS models FROM attacked GROUP BY ALL),
common AS (
    SELECT image_set, protocol, image_id
    FROM attacked JOIN counted USING (image_set, protocol)
    WHERE outcome <> 'no_gradient'
    GROUP BY ALL
    HAVING count(DISTINCT model) = any_value(models))
SELECT model, image_set, protocol, count(*) AS images,
       count(*) FILTER (censored OR epsilon > 0) / count(*) AS right_at_0,
       -- what lies beyond the cap is not known
       CASE WHEN min(cap) >= 1 / 255 - 1e-9
            THEN avg((censored OR smallest > 1 / 255 + 1e-9)::INTEGER) END AS right_at_1,
       CASE WHEN min(cap) >= 4 / 255 - 1e-9
            THEN avg((censored OR smallest > 4 / 255 + 1e-9)::INTEGER) END AS right_at_4,
       CASE WHEN min(cap) >= 8 / 255 - 1e-9
            THEN avg((censored OR smallest > 8 / 255 + 1e-9)::INTEGER) END AS right_at_8,
       nullif(quantile_disc(CASE WHEN censored THEN 'infinity'::DOUBLE ELSE epsilon END, 0.5),
              'infinity'::DOUBLE) AS median_epsilon,
       count(*) FILTER (censored) AS resisted
FROM attacked JOIN common USING (image_set, protocol, image_id)
GROUP BY ALL""",
    ),
}


@dataclass(frozen=True)
class _Read:
    """Tables as they were read, and what tells that they changed."""

    state: tuple[Any, ...]
    tables: dict[str, pa.Table]


class Both:
    """Atlas and ledger in one DuckDB session. Safe to share between threads."""

    def __init__(self, atlas: Atlas, ledger: Ledger) -> None:
        self._atlas = atlas
        self._ledger = ledger
        self._lock = threading.Lock()
        self._read: _Read | None = None

    def fetch(self, query: Query) -> list[dict[str, Any]]:
        """Rows of `query` over the atlas, the ledger's attacks and the views.

        Raises:
            AtlasError, LedgerError: one of them cannot be read.
        """
        rows: list[dict[str, Any]] = self.fetch_arrow(query).to_pylist()
        return rows

    def fetch_arrow(self, query: Query) -> pa.Table:
        """Likewise, as an Arrow table."""
        with self._session() as cursor:
            return cursor.sql(query.sql, params=query.values or None).to_arrow_table()

    @contextlib.contextmanager
    def _session(self) -> Iterator[duckdb.DuckDBPyConnection]:
        tables = self._tables()
        with self._atlas.read() as cursor:
            for name, table in tables.items():
                cursor.register(name, table)
            for name, (_, sql) in VIEWS.items():
                cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")
            yield cursor

    def _tables(self) -> dict[str, pa.Table]:
        with self._ledger.read() as connection:
            state = tuple(
                tuple(connection.execute(asked).one())
                for asked in (
                    select(func.count(), func.max(Attack.attack)),
                    select(func.count(), func.max(AttackTransfer.created)),
                )
            )
            with self._lock:
                if self._read is None or self._read.state != state:
                    self._read = _Read(
                        state,
                        {
                            table.__tablename__: _as_arrow(connection, table)
                            for table in (Attack, AttackTransfer)
                        },
                    )
                return self._read.tables


def _as_arrow(connection: Any, table: Any) -> pa.Table:
    columns = [column for column in table.__table__.columns if column.name not in _LEFT_OUT]
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in columns])
    rows = connection.execute(select(*columns)).all()
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)], schema=schema
    )


def _arrow_type(kind: Any) -> pa.DataType:
    assert not isinstance(kind, JSON), "a column of JSON is left out"
    if isinstance(kind, Boolean):
        return pa.bool_()
    if isinstance(kind, Integer):
        return pa.int64()
    if isinstance(kind, DateTime):
        return pa.timestamp("us")
    return pa.float64() if isinstance(kind, Double) or kind.python_type is float else pa.string()


def curve(image_set: str, protocol: str, *, image_class: str = "") -> Query:
    """Share of images still right, by model and epsilon; of one class where it is named."""
    among = "attacked WHERE class = $class" if image_class else "attacked"
    values = {"image_set": image_set, "protocol": protocol} | ({"class": image_class} if image_class else {})
    return Query(
        f"""SELECT model, epsilon, at_risk, flipped, censored, share
FROM ({CURVE.format(source=f"(SELECT * FROM {among})")})
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY model, epsilon""",
        values,
    )


def protocols(image_set: str) -> Query:
    """How a set was attacked: each way with its models and images, that of most images first."""
    return Query(
        """
SELECT protocol, list(DISTINCT model ORDER BY model) AS models, count(*) AS attacks, max(cap) AS cap,
       count(*) FILTER (outcome = 'no_gradient') AS no_gradient
FROM attacked
WHERE image_set = $image_set
GROUP BY protocol
ORDER BY attacks DESC, protocol""",
        {"image_set": image_set},
    )


def strip(image_set: str, protocol: str, *, image_class: str = "") -> Query:
    """The smallest epsilon of each image."""
    among = " AND class = $class" if image_class else ""
    values = {"image_set": image_set, "protocol": protocol} | ({"class": image_class} if image_class else {})
    return Query(
        f"""
SELECT model, image_id, label, smallest, censored, name_before, name_after, attack, key
FROM attacked
WHERE image_set = $image_set AND protocol = $protocol AND outcome <> 'no_gradient'{among}
ORDER BY model, smallest, image_id""",
        values,
    )


CLASS_ORDERS = {
    "weakest": "median_epsilon NULLS LAST, flipped / images DESC, label",
    "strongest": "median_epsilon DESC NULLS FIRST, resisted / images DESC, label",
    "images": "images DESC, label",
    "name": "label, class",
}


def by_class(image_set: str, protocol: str, model: str, *, order: str, limit: int | None) -> Query:
    """Classes of a set under one model."""
    return Query(
        f"""
SELECT class, label, images, flipped, resisted, wrong_already, median_epsilon
FROM robustness_by_class
WHERE image_set = $image_set AND protocol = $protocol AND model = $model
ORDER BY {CLASS_ORDERS[order]}{"" if limit is None else " LIMIT $limit"}""",
        {"image_set": image_set, "protocol": protocol, "model": model}
        | ({} if limit is None else {"limit": limit}),
    )


def flips(image_set: str, protocol: str, model: str, *, limit: int | None) -> Query:
    """The most frequent changes of class under one model."""
    return Query(
        f"""
SELECT from_class, to_class, images, median_epsilon, example
FROM class_flips
WHERE image_set = $image_set AND protocol = $protocol AND model = $model
ORDER BY images DESC, median_epsilon, from_class, to_class{"" if limit is None else " LIMIT $limit"}""",
        {"image_set": image_set, "protocol": protocol, "model": model}
        | ({} if limit is None else {"limit": limit}),
    )


def transfers(image_set: str, protocol: str) -> Query:
    """What each model's attacked images do to the others."""
    return Query(
        """
SELECT model, judge, judged, right_before, fooled, share_fooled, share_moved
FROM transfer
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY model, judge""",
        {"image_set": image_set, "protocol": protocol},
    )


def leaderboard(image_set: str, protocol: str) -> Query:
    """Models over the images that all of them have, the most robust first."""
    return Query(
        """
SELECT model, images, right_at_0, right_at_1, right_at_4, right_at_8, median_epsilon, resisted
FROM leaderboard
WHERE image_set = $image_set AND protocol = $protocol
ORDER BY median_epsilon DESC NULLS FIRST, right_at_1 DESC, model""",
        {"image_set": image_set, "protocol": protocol},
    )
