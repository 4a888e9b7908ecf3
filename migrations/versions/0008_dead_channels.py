"""How many dead channels are left out where an attack's channels are ranked.

Revision: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; it stays empty where channels were ranked by the rule of before."""
    op.add_column("attack_layers", sa.Column("dead", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Remove it."""
    op.drop_column("attack_layers", "dead")
