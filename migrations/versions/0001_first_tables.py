"""The ledger's first tables.

Revision: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "jobs",
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("queue", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("image_set", sa.Text(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("items_done", sa.Integer(), nullable=False),
        sa.Column("items_failed", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("claim", sa.String(length=36), nullable=True),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.Column("not_before", sa.DateTime(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("sent", sa.DateTime(), nullable=True),
        sa.Column("started", sa.DateTime(), nullable=True),
        sa.Column("finished", sa.DateTime(), nullable=True),
        sa.CheckConstraint("queue IN ('interactive', 'batch')", name="queue_is_known"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name="state_is_known"
        ),
        sa.PrimaryKeyConstraint("job"),
        sa.UniqueConstraint("key"),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "jobs", ["state", "lease_until"], unique=False)
    op.create_table(
        "saved_queries",
        sa.Column("query", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("sql", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("changed", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("query"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "uploads",
        sa.Column("upload", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("upload"),
        sa.UniqueConstraint("key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "workers",
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", sa.Text(), nullable=False),
        sa.Column("device", sa.String(length=20), nullable=False),
        sa.Column("started", sa.DateTime(), nullable=False),
        sa.Column("seen", sa.DateTime(), nullable=False),
        sa.Column("job", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("worker"),
    )
    op.create_table(
        "attacks",
        sa.Column("attack", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("image_set", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("image_key", sa.String(length=64), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("relative_to", sa.String(length=20), nullable=False),
        sa.Column("class_index", sa.Integer(), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("step", sa.Double(), nullable=False),
        sa.Column("cap", sa.Double(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("class_after", sa.Integer(), nullable=True),
        sa.Column("probability_before", sa.Double(), nullable=False),
        sa.Column("probability_after", sa.Double(), nullable=True),
        sa.Column("gradient_norm", sa.Double(), nullable=False),
        sa.Column("png_class", sa.Integer(), nullable=True),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.CheckConstraint("outcome IN ('flipped', 'resisted', 'no_gradient')", name="outcome_is_known"),
        sa.ForeignKeyConstraint(
            ["job"],
            ["jobs.job"],
        ),
        sa.PrimaryKeyConstraint("attack"),
        sa.UniqueConstraint("key"),
        sqlite_autoincrement=True,
    )
    op.create_index("attacks_by_image", "attacks", ["image_set", "image_id"], unique=False)
    op.create_table(
        "job_items",
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("image_key", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("finished", sa.DateTime(), nullable=True),
        sa.Column("result", sa.Integer(), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'done', 'failed')", name="state_is_known"),
        sa.ForeignKeyConstraint(["job"], ["jobs.job"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("item"),
        sa.UniqueConstraint("job", "position", name="one_item_a_position"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "saliency_maps",
        sa.Column("map", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("image_set", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("image_key", sa.String(length=64), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("target_class", sa.Integer(), nullable=False),
        sa.Column("target_name", sa.Text(), nullable=True),
        sa.Column("target_probability", sa.Double(), nullable=False),
        sa.Column("predicted_class", sa.Integer(), nullable=False),
        sa.Column("predicted_name", sa.Text(), nullable=True),
        sa.Column("predicted_probability", sa.Double(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("noise_level", sa.Double(), nullable=True),
        sa.Column("seed", sa.Integer(), nullable=True),
        sa.Column("dtype", sa.String(length=20), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("agreement", sa.Double(), nullable=True),
        sa.Column("standard_error", sa.Double(), nullable=True),
        sa.Column("signed", sa.Boolean(), nullable=False),
        sa.Column("lowest", sa.Double(), nullable=False),
        sa.Column("highest", sa.Double(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("standard_error_file", sa.Text(), nullable=True),
        sa.Column("input_file", sa.Text(), nullable=False),
        sa.Column("device", sa.String(length=20), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job"],
            ["jobs.job"],
        ),
        sa.PrimaryKeyConstraint("map"),
        sa.UniqueConstraint("key"),
        sqlite_autoincrement=True,
    )
    op.create_index("saliency_maps_by_image", "saliency_maps", ["image_set", "image_id"], unique=False)
    op.create_table(
        "map_scores",
        sa.Column("map", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("deletion_auc", sa.Double(), nullable=False),
        sa.Column("insertion_auc", sa.Double(), nullable=False),
        sa.Column("deletion", sa.JSON(), nullable=False),
        sa.Column("insertion", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job"],
            ["jobs.job"],
        ),
        sa.ForeignKeyConstraint(
            ["map"],
            ["saliency_maps.map"],
        ),
        sa.PrimaryKeyConstraint("map"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("map_scores")
    op.drop_index("saliency_maps_by_image", table_name="saliency_maps")
    op.drop_table("saliency_maps")
    op.drop_table("job_items")
    op.drop_index("attacks_by_image", table_name="attacks")
    op.drop_table("attacks")
    op.drop_table("workers")
    op.drop_table("uploads")
    op.drop_table("saved_queries")
    op.drop_index("jobs_by_state", table_name="jobs")
    op.drop_table("jobs")
