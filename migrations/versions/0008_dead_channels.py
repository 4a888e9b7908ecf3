"""The number of dead channels left out when an attack's channels are ranked.

Revision: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; it stays empty for channels ranked by the earlier rule."""
    op.add_column("attack_layers", sa.Column("dead", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("attack_layers", "dead")
