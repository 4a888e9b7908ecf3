"""The layout that imports used for split, class and label, and counts of renamed and missing images.

Revision: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_COUNTS = ("renamed", "gone")


def upgrade() -> None:
    """Add the columns; older imports recorded no layout."""
    with op.batch_alter_table("image_imports") as table:
        for name in _COUNTS:
            table.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("layout", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Drop the columns."""
    with op.batch_alter_table("image_imports") as table:
        for name in (*_COUNTS, "layout"):
            table.drop_column(name)
