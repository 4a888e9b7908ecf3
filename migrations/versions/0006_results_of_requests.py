"""A result belongs to its request: curve steps, ablation draws and judges' weights are part of its identity.

Names of image sets are no longer part of a question, so a renamed set keeps its results. Tables count their
changes. A map shared by jobs over two sets becomes one row per set.

Revision: 0006
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ATTACK_VERSION = 1  # version of the attacks stored by older releases
_ASKED = ("jobs", "saliency_maps", "attacks")


def upgrade() -> None:
    """Create the columns and tables, and give each result the identity of its request."""
    op.create_table(
        "table_changes",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("writer", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "writer"),
    )
    op.create_table(
        "image_set_changes",
        sa.Column("image_set", sa.String(length=200), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("image_set"),
    )
    for table in _ASKED:
        op.add_column(table, sa.Column("question", sa.String(length=64), nullable=True))
    op.create_index("saliency_maps_by_question", "saliency_maps", ["question"], unique=False)
    _ask_for_maps()
    _ask_for_attacks()
    _make_anew("map_scores", _map_scores(("map", "steps")))
    _make_anew("attack_transfers", _attack_transfers(("attack", "judge", "judge_digest")))
    _make_anew(
        "attack_ablations",
        _attack_ablations(("attack", "channels", "draws", "seed"), "draws"),
        lambda row: row | {"draws": len(row["random"])},
    )


def downgrade() -> None:
    """Keep one result per old key: the newest."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for name in connection.scalars(
            sa.text(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'count\\_%' ESCAPE '\\'"
            )
        ).all():
            op.execute(f"DROP TRIGGER {name}")
    else:
        op.execute("DROP FUNCTION IF EXISTS convscope_count_change() CASCADE")
    _make_anew("map_scores", _map_scores(("map",)), names=("map",))
    _make_anew("attack_transfers", _attack_transfers(("attack", "judge")), names=("attack", "judge"))
    _make_anew(
        "attack_ablations",
        _attack_ablations(("attack", "channels")),
        lambda row: {name: value for name, value in row.items() if name != "draws"},
        names=("attack", "channels"),
    )
    _share_maps()
    op.drop_index("saliency_maps_by_question", table_name="saliency_maps")
    for table in _ASKED:
        op.drop_column(table, "question")
    op.drop_table("image_set_changes")
    op.drop_table("table_changes")


def _content_key(*parts: Any) -> str:
    """`workers.requests.keys.content_key` as of this revision."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _ask_for_maps() -> None:
    """Turn a map's old key into its question; each job over another set that shares the map gets its own map."""
    connection = op.get_bind()
    maps, items, jobs = _reflected("saliency_maps"), _reflected("job_items"), _reflected("jobs")
    for row in connection.execute(sa.select(maps.c.map, maps.c.key, maps.c.image_set, maps.c.image_id)).all():
        named = _content_key(row.key, row.image_set, row.image_id)
        connection.execute(maps.update().where(maps.c.map == row.map).values(question=row.key, key=named))
    shared = connection.execute(
        sa.select(items.c.item, items.c.image_id, items.c.result, items.c.job, jobs.c.image_set)
        .join(jobs, jobs.c.job == items.c.job)
        .join(maps, maps.c.map == items.c.result)
        .where(
            jobs.c.kind == "saliency",
            sa.or_(jobs.c.image_set != maps.c.image_set, items.c.image_id != maps.c.image_id),
        )
        .order_by(items.c.item)
    ).all()
    for item in shared:
        found = connection.execute(maps.select().where(maps.c.map == item.result)).mappings().one()
        named = _content_key(found["question"], item.image_set, item.image_id)
        own = connection.execute(sa.select(maps.c.map).where(maps.c.key == named)).scalar()
        if own is None:
            row = {name: value for name, value in found.items() if name != "map"} | {
                "key": named, "job": item.job, "image_set": item.image_set, "image_id": item.image_id,
            }  # fmt: skip
            own = connection.execute(maps.insert().values(row).returning(maps.c.map)).scalar_one()
        connection.execute(items.update().where(items.c.item == item.item).values(result=own))


def _share_maps() -> None:
    """Keep the first map of each question, and let everything that refers to the others refer to it."""
    connection = op.get_bind()
    maps, items, jobs = _reflected("saliency_maps"), _reflected("job_items"), _reflected("jobs")
    scores = _reflected("map_scores")
    first: dict[str, int] = {}
    for row in connection.execute(sa.select(maps.c.map, maps.c.question).order_by(maps.c.map)).all():
        if row.question is None:
            continue
        kept = first.setdefault(row.question, row.map)
        if kept == row.map:
            connection.execute(maps.update().where(maps.c.map == row.map).values(key=row.question))
            continue
        of_maps = sa.select(jobs.c.job).where(jobs.c.kind.in_(("saliency", "faithfulness")))
        for column in (items.c.result, items.c.subject):
            connection.execute(
                items.update().where(column == row.map, items.c.job.in_(of_maps)).values({column: kept})
            )
        connection.execute(scores.delete().where(scores.c.map == row.map))
        connection.execute(maps.delete().where(maps.c.map == row.map))


def _ask_for_attacks() -> None:
    """Compute each attack's question from its weights, image, aim and, if it is relative to the label, that class."""
    connection = op.get_bind()
    attacks = _reflected("attacks")
    rows = connection.execute(attacks.select()).mappings().all()
    for row in rows:
        aim = {
            "method": row["method"],
            "parameters": row["parameters"],
            "relative_to": row["relative_to"],
            "target": row["class_index"] if row["relative_to"] == "target" else None,
        }
        label = row["class_index"] if row["relative_to"] == "label" else None
        question = _content_key(_ATTACK_VERSION, row["model_digest"], row["image_key"], aim, label)
        named = _content_key(question, row["image_set"], row["image_id"])
        connection.execute(
            attacks.update().where(attacks.c.attack == row["attack"]).values(question=question, key=named)
        )


def _reflected(name: str) -> sa.Table:
    return sa.Table(name, sa.MetaData(), autoload_with=op.get_bind(), resolve_fks=False)


def _make_anew(
    name: str,
    columns: Sequence[Any],
    changed: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    *,
    names: Sequence[str] = (),
) -> None:
    """Recreate a table with other columns and its rows; of rows that agree in `names`, the newest is kept."""
    connection = op.get_bind()
    before = _reflected(name)
    rows = [dict(row) for row in connection.execute(before.select().order_by(before.c.created)).mappings()]
    op.drop_table(name)
    made = op.create_table(name, *columns)
    rows = [changed(row) for row in rows]
    if names:
        rows = list({tuple(row[one] for one in names): row for row in rows}.values())
    if rows:
        op.bulk_insert(made, rows)


def _map_scores(identity: Sequence[str]) -> tuple[Any, ...]:
    return (
        sa.Column("map", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("steps", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("deletion_auc", sa.Double(), nullable=False),
        sa.Column("insertion_auc", sa.Double(), nullable=False),
        sa.Column("deletion", sa.JSON(), nullable=False),
        sa.Column("insertion", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.job"]),
        sa.ForeignKeyConstraint(["map"], ["saliency_maps.map"]),
        sa.PrimaryKeyConstraint(*identity),
    )


def _attack_transfers(identity: Sequence[str]) -> tuple[Any, ...]:
    return (
        sa.Column("attack", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("judge", sa.String(length=200), nullable=False),
        sa.Column("judge_digest", sa.String(length=64), nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("class_before", sa.Integer(), nullable=False),
        sa.Column("name_before", sa.Text(), nullable=True),
        sa.Column("probability_before", sa.Double(), nullable=False),
        sa.Column("class_after", sa.Integer(), nullable=False),
        sa.Column("name_after", sa.Text(), nullable=True),
        sa.Column("probability_after", sa.Double(), nullable=False),
        sa.Column("right_before", sa.Boolean(), nullable=True),
        sa.Column("moved", sa.Boolean(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["attack"], ["attacks.attack"]),
        sa.ForeignKeyConstraint(["job"], ["jobs.job"]),
        sa.PrimaryKeyConstraint(*identity),
    )


def _attack_ablations(identity: Sequence[str], *more: str) -> tuple[Any, ...]:
    return (
        sa.Column("attack", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("channels", sa.Integer(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.Integer(), autoincrement=False, nullable=False) for name in more),
        sa.Column("seed", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("units", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("random", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["attack"], ["attacks.attack"]),
        sa.ForeignKeyConstraint(["job"], ["jobs.job"]),
        sa.PrimaryKeyConstraint(*identity),
    )
