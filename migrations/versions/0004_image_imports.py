"""Results of imports, and users' notes about image sets.

Revision: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_COUNTS = ("added", "known", "refused", "labelled", "relabelled", "moved", "changed", "duplicates")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "image_imports",
        sa.Column("image_import", sa.Integer(), nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("image_set", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in _COUNTS),
        sa.Column("refusals", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.job"]),
        sa.PrimaryKeyConstraint("image_import"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "image_set_notes",
        sa.Column("image_set", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("changed", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("image_set"),
    )


def downgrade() -> None:
    """Drop the tables, and the jobs of kinds that older versions do not know."""
    op.drop_table("image_imports")
    op.drop_table("image_set_notes")
    op.execute("DELETE FROM job_items WHERE job IN (SELECT job FROM jobs WHERE kind IN ('import', 'index'))")
    op.execute("DELETE FROM jobs WHERE kind IN ('import', 'index')")
