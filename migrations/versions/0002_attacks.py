"""Results of attacks, shifts of channels and layers, and the current activity of a job.

Nothing could write the table of attacks before this revision, so it is recreated.

Revision: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables and columns."""
    op.add_column("jobs", sa.Column("note", sa.Text(), nullable=True))
    op.drop_index("attacks_by_image", table_name="attacks")
    op.drop_table("attacks")
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
        sa.Column("class_name", sa.Text(), nullable=True),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("step", sa.Double(), nullable=False),
        sa.Column("cap", sa.Double(), nullable=False),
        sa.Column("minimum", sa.Double(), nullable=False),
        sa.Column("eight_bit", sa.Boolean(), nullable=False),
        sa.Column("full_scan", sa.Boolean(), nullable=False),
        sa.Column("class_before", sa.Integer(), nullable=False),
        sa.Column("name_before", sa.Text(), nullable=True),
        sa.Column("probability_before", sa.Double(), nullable=False),
        sa.Column("attacked_epsilon", sa.Double(), nullable=True),
        sa.Column("class_after", sa.Integer(), nullable=True),
        sa.Column("name_after", sa.Text(), nullable=True),
        sa.Column("probability_after", sa.Double(), nullable=True),
        sa.Column("png_class", sa.Integer(), nullable=True),
        sa.Column("png_name", sa.Text(), nullable=True),
        sa.Column("png_probability", sa.Double(), nullable=True),
        sa.Column("png_succeeds", sa.Boolean(), nullable=True),
        sa.Column("gradient_norm", sa.Double(), nullable=False),
        sa.Column("checked", sa.Integer(), nullable=False),
        sa.Column("successes", sa.JSON(), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("input_file", sa.Text(), nullable=False),
        sa.Column("change_file", sa.Text(), nullable=True),
        sa.Column("steps_file", sa.Text(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("device", sa.String(length=20), nullable=False),
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
        "attack_ablations",
        sa.Column("attack", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("channels", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("units", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("random", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attack"],
            ["attacks.attack"],
        ),
        sa.ForeignKeyConstraint(
            ["job"],
            ["jobs.job"],
        ),
        sa.PrimaryKeyConstraint("attack", "channels"),
    )
    op.create_table(
        "attack_layers",
        sa.Column("attack", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("layer", sa.String(length=200), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("mean_shift", sa.Double(), nullable=False),
        sa.Column("mean_deviations", sa.Double(), nullable=True),
        sa.Column("relative_change", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attack"],
            ["attacks.attack"],
        ),
        sa.PrimaryKeyConstraint("attack", "layer"),
    )
    op.create_table(
        "attack_maps",
        sa.Column("attack_map", sa.Integer(), nullable=False),
        sa.Column("attack", sa.Integer(), nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("panel", sa.String(length=20), nullable=False),
        sa.Column("target_class", sa.Integer(), nullable=False),
        sa.Column("target_name", sa.Text(), nullable=True),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("noise_level", sa.Double(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("rank_correlation", sa.Double(), nullable=True),
        sa.Column("ssim", sa.Double(), nullable=True),
        sa.Column("mean_difference", sa.Double(), nullable=True),
        sa.Column("mean_standard_error", sa.Double(), nullable=True),
        sa.Column("beyond_noise", sa.Double(), nullable=True),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("difference_file", sa.Text(), nullable=True),
        sa.Column("standard_error_file", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.CheckConstraint(
            "panel IN ('clean', 'attacked', 'attacked_own', 'other_seed', 'random_signs')",
            name="panel_is_known",
        ),
        sa.ForeignKeyConstraint(
            ["attack"],
            ["attacks.attack"],
        ),
        sa.ForeignKeyConstraint(
            ["job"],
            ["jobs.job"],
        ),
        sa.PrimaryKeyConstraint("attack_map"),
        sa.UniqueConstraint("attack", "panel", "request", name="one_map_a_panel"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "attack_transfers",
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
        sa.ForeignKeyConstraint(
            ["attack"],
            ["attacks.attack"],
        ),
        sa.ForeignKeyConstraint(
            ["job"],
            ["jobs.job"],
        ),
        sa.PrimaryKeyConstraint("attack", "judge"),
    )
    op.create_table(
        "attack_units",
        sa.Column("attack", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("layer", sa.String(length=200), nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("channel", sa.Integer(), nullable=False),
        sa.Column("activation_before", sa.Double(), nullable=False),
        sa.Column("activation_after", sa.Double(), nullable=False),
        sa.Column("shift", sa.Double(), nullable=False),
        sa.Column("deviations", sa.Double(), nullable=True),
        sa.Column("y_before", sa.Integer(), nullable=False),
        sa.Column("x_before", sa.Integer(), nullable=False),
        sa.Column("y", sa.Integer(), nullable=False),
        sa.Column("x", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attack"],
            ["attacks.attack"],
        ),
        sa.PrimaryKeyConstraint("attack", "layer", "rank"),
    )


def downgrade() -> None:
    """Restore the empty attack table of revision 0001."""
    op.drop_table("attack_units")
    op.drop_table("attack_transfers")
    op.drop_table("attack_maps")
    op.drop_table("attack_layers")
    op.drop_table("attack_ablations")
    op.drop_index("attacks_by_image", table_name="attacks")
    op.drop_table("attacks")
    op.drop_column("jobs", "note")
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
