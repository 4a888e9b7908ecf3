"""The epsilon grid of an attack, and the interval that contains the smallest success.

Revision: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_LEVEL = 1 / 255


def upgrade() -> None:
    """Add the columns; so far grids were linear, or a single fixed epsilon."""
    op.add_column("attacks", sa.Column("last_failure", sa.Double(), nullable=True))
    op.add_column("attacks", sa.Column("at_most", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("attacks", sa.Column("grid", sa.String(length=20), nullable=False, server_default="linear"))
    op.add_column("attacks", sa.Column("ratio", sa.Double(), nullable=True))
    op.add_column("attacks", sa.Column("parts", sa.Integer(), nullable=True))
    found = sa.table(
        "attacks",
        *(
            sa.column(name)
            for name in (
                "grid",
                "outcome",
                "epsilon",
                "attacked_epsilon",
                "last_failure",
                "step",
                "cap",
                "minimum",
            )
        ),
        sa.column("at_most", sa.Boolean()),
        sa.column("eight_bit", sa.Boolean()),
    )
    row, change = found.c, found.update()
    point = sa.func.round(row.epsilon / row.step)
    # the lowest point of i * step that is at least 1 and at least the minimum
    lowest = sa.or_(point <= 1, (point - 1) * row.step < row.minimum - 1e-9 * row.step)
    finest = sa.and_(row.eight_bit, row.epsilon <= _LEVEL + 1e-9)
    flipped = sa.and_(row.outcome == "flipped", row.epsilon > 0)
    op.execute(change.where(row.step == row.cap, row.minimum == row.cap).values(grid="fixed"))
    op.execute(change.where(row.outcome == "resisted").values(last_failure=row.attacked_epsilon))
    op.execute(change.where(flipped, sa.not_(lowest)).values(last_failure=(point - 1) * row.step))
    op.execute(change.where(flipped, lowest).values(last_failure=0.0))
    op.execute(change.where(flipped, lowest, sa.not_(finest)).values(at_most=sa.true()))


def downgrade() -> None:
    """Drop the columns."""
    for column in ("parts", "ratio", "grid", "at_most", "last_failure"):
        op.drop_column("attacks", column)
