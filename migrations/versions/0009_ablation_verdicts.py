"""Whether the clamped channels carry an attack, and ablations of a single layer.

Revision: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_BEFORE = ("attack", "channels", "draws", "seed")
_EARLIER = {
    "layer": "",
    "verdict": "cannot_say",
    "reason": "an earlier rule chose these channels and random ones: request it again",
    "counted": 0,
    "less": 0,
    "share_low": None,
    "share_high": None,
}


def upgrade() -> None:
    """Add the layer to a row's identity, and the verdict; existing rows have none."""
    _make_anew((*_BEFORE, "layer"), _EARLIER)


def downgrade() -> None:
    """Drop both; of rows that then have the same key, the newest is kept."""
    _make_anew(_BEFORE, {})


def _make_anew(identity: tuple[str, ...], added: dict[str, str | int | None]) -> None:
    connection = op.get_bind()
    before = sa.Table("attack_ablations", sa.MetaData(), autoload_with=connection, resolve_fks=False)
    rows = [dict(row) for row in connection.execute(before.select().order_by(before.c.created)).mappings()]
    op.drop_table("attack_ablations")
    verdict = (
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("less", sa.Integer(), nullable=False),
        sa.Column("share_low", sa.Double(), nullable=True),
        sa.Column("share_high", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "verdict IN ('carry', 'no_more_than_random', 'cannot_say')", name="verdict_is_known"
        ),
    )
    made = op.create_table(
        "attack_ablations",
        *(sa.Column(name, sa.Integer(), autoincrement=False, nullable=False) for name in _BEFORE),
        *([sa.Column("layer", sa.String(length=200), nullable=False)] if added else []),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("units", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("random", sa.JSON(), nullable=False),
        *(verdict if added else ()),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["attack"], ["attacks.attack"]),
        sa.ForeignKeyConstraint(["job"], ["jobs.job"]),
        sa.PrimaryKeyConstraint(*identity),
    )
    kept = {tuple(row[name] for name in _BEFORE): row | added for row in rows}
    known = {column.name for column in made.columns}
    if kept:
        op.bulk_insert(
            made, [{name: value for name, value in row.items() if name in known} for row in kept.values()]
        )
