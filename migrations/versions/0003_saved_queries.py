"""What a saved query tells.

Revision: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it."""
    op.add_column("saved_queries", sa.Column("description", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Take it out."""
    op.drop_column("saved_queries", "description")
