"""Tables of the ledger: facts that change while people wait. Times are UTC without a zone.

The tables are made by `migrations/`; a test holds the two together. People query them, so columns read well, and
rows of results repeat what a reader wants beside them.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

STATES = ("queued", "running", "done", "failed", "cancelled")
ITEM_STATES = ("queued", "done", "failed")
QUEUES = ("interactive", "batch")
OUTCOMES = ("flipped", "resisted", "no_gradient")
VERDICTS = ("carry", "no_more_than_random", "cannot_say")
GRIDS = ("geometric", "linear", "fixed")
PANELS = ("clean", "attacked", "attacked_own", "other_seed", "random_signs")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_is_known")


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy's own protocol
        dict[str, Any]: JSON,
        list[float]: JSON,
        list[list[float]]: JSON,
        list[list[Any]]: JSON,
        list[dict[str, Any]]: JSON,
    }


class Job(Table):
    """One request that takes long: the one truth of its life. The broker only carries its number.

    `question` is the content of the request without the name of its image set, and `key` is that with the name: the
    same request twice is one job, and a set that is renamed takes its jobs along. `claim` names one attempt of one
    worker; whoever writes names the claim, so that a worker that lost its lease writes nothing.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("state", STATES),
        _one_of("queue", QUEUES),
        Index("jobs_by_state", "state", "lease_until"),
        {"sqlite_autoincrement": True},
    )

    job: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    question: Mapped[str | None] = mapped_column(String(64))  # null in rows of older versions
    kind: Mapped[str] = mapped_column(String(40))
    queue: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    models: Mapped[str] = mapped_column(Text)  # names, joined by a comma
    image_set: Mapped[str] = mapped_column(Text)
    parameters: Mapped[dict[str, Any]]
    items: Mapped[int]
    items_done: Mapped[int] = mapped_column(default=0)
    items_failed: Mapped[int] = mapped_column(default=0)
    progress: Mapped[float] = mapped_column(default=0.0)  # of the item being computed, 0 to 1
    note: Mapped[str | None] = mapped_column(Text)  # what the item being computed is at, in a few words
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)  # one sentence
    traceback: Mapped[str | None] = mapped_column(Text)
    worker: Mapped[str | None] = mapped_column(Text)  # who runs it, or ran it last
    claim: Mapped[str | None] = mapped_column(String(36))
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]  # a failed attempt waits until then
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    created: Mapped[datetime]
    sent: Mapped[datetime | None]  # when a message last went to the broker
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]


class JobItem(Table):
    """One image under one model, or whatever a job has several of; `result` is a row of the kind's table, if any."""

    __tablename__ = "job_items"
    __table_args__ = (
        _one_of("state", ITEM_STATES),
        UniqueConstraint("job", "position", name="one_item_a_position"),
        {"sqlite_autoincrement": True},
    )

    item: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job", ondelete="CASCADE"))
    position: Mapped[int]
    model: Mapped[str] = mapped_column(Text)
    image_id: Mapped[int]
    image_key: Mapped[str] = mapped_column(String(64))  # content of the image when the job was submitted
    subject: Mapped[int | None]  # the result of another job that this item is about
    state: Mapped[str] = mapped_column(String(20))
    error: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float | None]
    finished: Mapped[datetime | None]
    result: Mapped[int | None]
    # the result itself, of a kind without a table of its own
    value: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class SaliencyMap(Table):
    """One map of one image under one model, float32 H,W of the model's input size, in `file` below the home.

    `question` is the content of all that it depends on, and `key` is that with the set and the image's number: jobs
    over one set that ask for the same map share it, and an image in two sets has two rows, which share the files.
    """

    __tablename__ = "saliency_maps"
    __table_args__ = (
        Index("saliency_maps_by_image", "image_set", "image_id"),
        Index("saliency_maps_by_question", "question"),
        {"sqlite_autoincrement": True},
    )

    map: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    question: Mapped[str | None] = mapped_column(String(64))
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    model: Mapped[str] = mapped_column(Text)
    model_digest: Mapped[str] = mapped_column(String(64))
    image_set: Mapped[str] = mapped_column(Text)
    image_id: Mapped[int]
    image_key: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(40))
    target_class: Mapped[int]
    target_name: Mapped[str | None] = mapped_column(Text)
    target_probability: Mapped[float]
    predicted_class: Mapped[int]
    predicted_name: Mapped[str | None] = mapped_column(Text)
    predicted_probability: Mapped[float]
    samples: Mapped[int]  # noisy copies that were drawn; 1 for methods without noise
    noise_level: Mapped[float | None]
    seed: Mapped[int | None]
    dtype: Mapped[str] = mapped_column(String(20))
    parameters: Mapped[dict[str, Any]]
    agreement: Mapped[
        float | None
    ]  # Spearman's correlation of two halves of the samples, corrected to the whole
    standard_error: Mapped[float | None]  # mean over the pixels
    signed: Mapped[bool]
    lowest: Mapped[float]
    highest: Mapped[float]
    height: Mapped[int]
    width: Mapped[int]
    file: Mapped[str] = mapped_column(Text)
    standard_error_file: Mapped[str | None] = mapped_column(Text)
    input_file: Mapped[str] = mapped_column(Text)  # PNG of what the model saw, before normalisation
    device: Mapped[str] = mapped_column(String(20))
    seconds: Mapped[float]
    created: Mapped[datetime]


class MapScore(Table):
    """How fast the target's probability falls and rises when a map's pixels go and come, best first.

    One row for each number of steps that was asked for: areas of curves with other steps do not compare.
    """

    __tablename__ = "map_scores"

    map: Mapped[int] = mapped_column(ForeignKey("saliency_maps.map"), primary_key=True, autoincrement=False)
    steps: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    deletion_auc: Mapped[float]  # lower is better
    insertion_auc: Mapped[float]  # higher is better
    deletion: Mapped[list[float]]  # probability after each step, the untouched image first
    insertion: Mapped[list[float]]
    seconds: Mapped[float]
    created: Mapped[datetime]


class Attack(Table):
    """What an attack found for one image under one model.

    `epsilon` is the smallest on the grid that succeeds, null where none up to `cap` did; a smaller one above
    `last_failure` may succeed, and below it too, for success is not monotone. The stored picture, and all
    that is named `after` or `png`, is of `attacked_epsilon`: that epsilon, or else the largest looked at.

    A success leaves `class_index` or, where `relative_to` is `target`, reaches it. `key` and `question` are as in
    `SaliencyMap`.
    """

    __tablename__ = "attacks"
    __table_args__ = (
        _one_of("outcome", OUTCOMES),
        Index("attacks_by_image", "image_set", "image_id"),
        {"sqlite_autoincrement": True},
    )

    attack: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    question: Mapped[str | None] = mapped_column(String(64))
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    model: Mapped[str] = mapped_column(Text)
    model_digest: Mapped[str] = mapped_column(String(64))
    image_set: Mapped[str] = mapped_column(Text)
    image_id: Mapped[int]
    image_key: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(40))
    relative_to: Mapped[str] = mapped_column(String(20))  # prediction, label or target
    class_index: Mapped[int]
    class_name: Mapped[str | None] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(20))
    epsilon: Mapped[float | None]
    last_failure: Mapped[float | None]  # largest failure below epsilon; without success, largest looked at
    at_most: Mapped[bool] = mapped_column(server_default=false())  # epsilon is the lowest that the grid has
    grid: Mapped[str] = mapped_column(String(20), server_default="linear")
    ratio: Mapped[float | None]  # of a geometric grid: each epsilon over the one before
    parts: Mapped[
        int | None
    ]  # of a geometric grid: those in which the gap below the first success was looked at
    step: Mapped[float]  # of a geometric grid: its lowest epsilon
    cap: Mapped[float]
    minimum: Mapped[float]
    eight_bit: Mapped[bool]
    full_scan: Mapped[bool]
    class_before: Mapped[int]
    name_before: Mapped[str | None] = mapped_column(Text)
    probability_before: Mapped[float]  # of class_before
    attacked_epsilon: Mapped[float | None]  # null where the gradient is zero: nothing was attacked
    class_after: Mapped[int | None]
    name_after: Mapped[str | None] = mapped_column(Text)
    probability_after: Mapped[float | None]  # of class_after
    png_class: Mapped[int | None]  # of the picture as stored: rounded to 8 bits, and read again
    png_name: Mapped[str | None] = mapped_column(Text)
    png_probability: Mapped[float | None]  # of png_class
    png_succeeds: Mapped[bool | None]
    gradient_norm: Mapped[float]
    checked: Mapped[int]  # epsilons that were looked at, 0 among them
    successes: Mapped[list[list[float]]]  # of a full scan: first and last epsilon of each run of successes
    file: Mapped[str | None] = mapped_column(Text)  # the attacked image, PNG
    input_file: Mapped[str] = mapped_column(Text)  # the image before, PNG
    change_file: Mapped[str | None] = mapped_column(Text)  # FGSM: signs as PNG; PGD: the change as .npy
    steps_file: Mapped[str] = mapped_column(Text)  # what the model said at each epsilon, .npy
    parameters: Mapped[dict[str, Any]]
    device: Mapped[str] = mapped_column(String(20))
    seconds: Mapped[float]
    created: Mapped[datetime]


class AttackUnit(Table):
    """A channel that an attack moved, among those of its layer that it moved most: joins with the atlas's patches.

    Activations are the largest over the layer's map, as in the atlas; `deviations` is the shift over the channel's
    spread over the image set (`db.atlas.stds`), null where the set was not indexed with this very model.
    """

    __tablename__ = "attack_units"

    attack: Mapped[int] = mapped_column(ForeignKey("attacks.attack"), primary_key=True, autoincrement=False)
    layer: Mapped[str] = mapped_column(String(200), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    channel: Mapped[int]
    activation_before: Mapped[float]
    activation_after: Mapped[float]
    shift: Mapped[float]
    deviations: Mapped[float | None]
    y_before: Mapped[int]
    x_before: Mapped[int]
    y: Mapped[int]
    x: Mapped[int]


class AttackLayer(Table):
    """How far an attack moved a layer."""

    __tablename__ = "attack_layers"

    attack: Mapped[int] = mapped_column(ForeignKey("attacks.attack"), primary_key=True, autoincrement=False)
    layer: Mapped[str] = mapped_column(String(200), primary_key=True)
    position: Mapped[int]
    mean_shift: Mapped[float]  # mean over channels of the absolute shift of the largest activation
    mean_deviations: Mapped[float | None]  # of live channels, over their spreads
    relative_change: Mapped[
        float
    ]  # Euclidean norm of the change of all values over that of the values before
    dead: Mapped[int | None]  # channels left out of the ranks; null where an earlier rule ranked them


class AttackMap(Table):
    """SmoothGrad of an attacked image or of a null beside the clean image's, with the same draws of noise.

    `panel`: clean; attacked and attacked_own (its own prediction); other_seed (clean) and random_signs (clean changed
    by random signs of the same epsilon). Distances are to the clean map; files are float32 .npy below the home.
    """

    __tablename__ = "attack_maps"
    __table_args__ = (
        _one_of("panel", PANELS),
        UniqueConstraint("attack", "panel", "request", name="one_map_a_panel"),
        {"sqlite_autoincrement": True},
    )

    attack_map: Mapped[int] = mapped_column(primary_key=True)
    attack: Mapped[int] = mapped_column(ForeignKey("attacks.attack"))
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    request: Mapped[str] = mapped_column(String(64))  # content of samples, noise level, seed
    panel: Mapped[str] = mapped_column(String(20))
    target_class: Mapped[int]
    target_name: Mapped[str | None] = mapped_column(Text)
    samples: Mapped[int]
    noise_level: Mapped[float]
    seed: Mapped[int]
    rank_correlation: Mapped[float | None]  # Spearman's, over pixels
    ssim: Mapped[float | None]  # structural similarity, over the shared range of the two maps
    mean_difference: Mapped[float | None]  # mean of the absolute differences
    mean_standard_error: Mapped[float | None]  # of the difference
    beyond_noise: Mapped[float | None]  # share of pixels that differ by more than two standard errors
    file: Mapped[str] = mapped_column(Text)
    difference_file: Mapped[str | None] = mapped_column(Text)
    standard_error_file: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float]
    created: Mapped[datetime]


class AttackTransfer(Table):
    """What another model says of an attacked image, and of the image before; a row for each state of its weights."""

    __tablename__ = "attack_transfers"

    attack: Mapped[int] = mapped_column(ForeignKey("attacks.attack"), primary_key=True, autoincrement=False)
    judge: Mapped[str] = mapped_column(String(200), primary_key=True)
    judge_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    class_before: Mapped[int]
    name_before: Mapped[str | None] = mapped_column(Text)
    probability_before: Mapped[float]
    class_after: Mapped[int]
    name_after: Mapped[str | None] = mapped_column(Text)
    probability_after: Mapped[float]
    right_before: Mapped[bool | None]  # whether class_before is the image's label; null without one
    moved: Mapped[bool]  # whether the two classes differ
    created: Mapped[datetime]


class AttackAblation(Table):
    """The same search with the most moved channels held at their clean mean, next to as many random channels."""

    __tablename__ = "attack_ablations"
    __table_args__ = (_one_of("verdict", VERDICTS),)

    attack: Mapped[int] = mapped_column(ForeignKey("attacks.attack"), primary_key=True, autoincrement=False)
    channels: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # how many are held
    # of random channels, for comparison
    draws: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seed: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    layer: Mapped[str] = mapped_column(String(200), primary_key=True)  # empty: all layers of the index
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    units: Mapped[list[list[Any]]]  # layer and channel of those that are held
    outcome: Mapped[str] = mapped_column(String(20))
    epsilon: Mapped[float | None]
    probability: Mapped[float]  # of the class to leave, held, before any attack
    random: Mapped[list[dict[str, Any]]]  # of each random draw: outcome, epsilon, probability
    # as in workers.attacks.ablation.Verdict
    verdict: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    counted: Mapped[int]
    less: Mapped[int]
    share_low: Mapped[float | None]
    share_high: Mapped[float | None]
    seconds: Mapped[float]
    created: Mapped[datetime]


class ImageImport(Table):
    """What a job of kind `import` did to an image set, in images; `refusals` are the first that were left out."""

    __tablename__ = "image_imports"
    __table_args__ = ({"sqlite_autoincrement": True},)

    image_import: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    image_set: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    added: Mapped[int]
    known: Mapped[int]
    refused: Mapped[int]
    labelled: Mapped[int]
    relabelled: Mapped[int]
    moved: Mapped[int]
    changed: Mapped[int]
    duplicates: Mapped[int]
    renamed: Mapped[int] = mapped_column(server_default="0")
    gone: Mapped[int] = mapped_column(server_default="0")
    layout: Mapped[dict[str, Any]] = mapped_column(
        server_default="{}"
    )  # sentence, notes, unused; see set_jobs
    refusals: Mapped[list[dict[str, Any]]]  # name and reason
    seconds: Mapped[float]
    created: Mapped[datetime]


class ImageSetNote(Table):
    """What people wrote about an image set."""

    __tablename__ = "image_set_notes"

    image_set: Mapped[str] = mapped_column(String(200), primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    changed: Mapped[datetime]


class Upload(Table):
    """An image that a person brought through the browser; the file is named by its content."""

    __tablename__ = "uploads"
    __table_args__ = ({"sqlite_autoincrement": True},)

    upload: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(Text)
    file: Mapped[str] = mapped_column(Text)
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int]
    created: Mapped[datetime]


class SavedQuery(Table):
    """SQL that somebody wants to run again."""

    __tablename__ = "saved_queries"
    __table_args__ = ({"sqlite_autoincrement": True},)

    query: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    description: Mapped[str] = mapped_column(Text, default="", server_default="")
    sql: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime]
    changed: Mapped[datetime]


class ImageSetChange(Table):
    """How often an image set was renamed or removed, or another one took its name; odd while that goes on.

    Whoever submits a job reads it before looking at the set, and again in the transaction that makes the job.
    """

    __tablename__ = "image_set_changes"

    image_set: Mapped[str] = mapped_column(String(200), primary_key=True)
    changes: Mapped[int]


class TableChange(Table):
    """How many changes of a table each writer made: triggers count them in the transaction that makes them.

    The sum over writers grows with every change, so equal sums mean equal rows. A writer is a database connection
    of PostgreSQL's (its process id), so that no two transactions wait for one counter; 0 in SQLite.
    """

    __tablename__ = "table_changes"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    writer: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    changes: Mapped[int] = mapped_column(BigInteger)


class Worker(Table):
    """A worker process that said it is there; `seen` is renewed while it lives."""

    __tablename__ = "workers"

    worker: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    queues: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(String(20))
    started: Mapped[datetime]
    seen: Mapped[datetime]
    job: Mapped[int | None]  # what it works on
