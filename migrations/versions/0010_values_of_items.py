"""Item results as JSON, for job kinds without a table of their own.

Revision: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column; existing items have none."""
    op.add_column("job_items", sa.Column("value", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("job_items", "value")
