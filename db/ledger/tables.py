"""Tables of the ledger: facts that change while users wait. Times are UTC without a time zone.

The tables are created by `migrations/`; a test compares the two. Users query them directly, so column names
are readable, and result rows repeat the context that a reader needs.
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
UNFINISHED = STATES[:2]
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
    """One long-running request, and the single source of truth for its state. The broker only carries its number.

    `question` is a hash of the request without the name of its image set, and `key` a hash that includes it:
    submitting a request twice gives one job, and a renamed set takes its jobs along. `claim` identifies one
    worker's attempt. Every write names the claim, so a worker that lost its lease cannot write anything.
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
    question: Mapped[str | None] = mapped_column(String(64))  # null in rows from older versions
    kind: Mapped[str] = mapped_column(String(40))
    queue: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    models: Mapped[str] = mapped_column(Text)  # comma-separated names
    image_set: Mapped[str] = mapped_column(Text)
    parameters: Mapped[dict[str, Any]]
    items: Mapped[int]
    items_done: Mapped[int] = mapped_column(default=0)
    items_failed: Mapped[int] = mapped_column(default=0)
    progress: Mapped[float] = mapped_column(default=0.0)  # of the item being computed, 0 to 1
    note: Mapped[str | None] = mapped_column(Text)  # current phase of the item being computed
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)  # one sentence
    traceback: Mapped[str | None] = mapped_column(Text)
    worker: Mapped[str | None] = mapped_column(Text)  # the current or last worker
    claim: Mapped[str | None] = mapped_column(String(36))
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]  # earliest next attempt
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    created: Mapped[datetime]
    sent: Mapped[datetime | None]  # when the last message was sent to the broker
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]


class JobItem(Table):
    """One unit of a job, such as one image under one model; `result` is a row of the kind's result table, if any."""

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
    # the result itself, for kinds without a result table
    value: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class SaliencyMap(Table):
    """One map of one image under one model: float32 H,W at the model's input size, in `file` relative to the home.

    `question` is a hash of everything the map depends on, and `key` adds the set and the image's id. Jobs
    over one set that request the same map share it; an image in two sets has two rows, which share the files.
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
    samples: Mapped[int]  # number of noisy copies; 1 for methods without noise
    noise_level: Mapped[float | None]
    seed: Mapped[int | None]
    dtype: Mapped[str] = mapped_column(String(20))
    parameters: Mapped[dict[str, Any]]
    agreement: Mapped[
        float | None
    ]  # Spearman correlation of two halves of the samples, corrected to full length
    standard_error: Mapped[float | None]  # mean over the pixels
    signed: Mapped[bool]
    lowest: Mapped[float]
    highest: Mapped[float]
    height: Mapped[int]
    width: Mapped[int]
    file: Mapped[str] = mapped_column(Text)
    standard_error_file: Mapped[str | None] = mapped_column(Text)
    input_file: Mapped[str] = mapped_column(Text)  # PNG of the model's input, before normalization
    device: Mapped[str] = mapped_column(String(20))
    seconds: Mapped[float]
    created: Mapped[datetime]


class MapScore(Table):
    """Deletion and insertion curves: the target's probability as a map's highest pixels are removed or added.

    One row per number of steps: areas under curves with different steps are not comparable.
    """

    __tablename__ = "map_scores"

    map: Mapped[int] = mapped_column(ForeignKey("saliency_maps.map"), primary_key=True, autoincrement=False)
    steps: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    deletion_auc: Mapped[float]  # lower is better
    insertion_auc: Mapped[float]  # higher is better
    deletion: Mapped[list[float]]  # probability after each step, starting with the intact image
    insertion: Mapped[list[float]]
    seconds: Mapped[float]
    created: Mapped[datetime]


class Attack(Table):
    """The result of an attack on one image under one model.

    `epsilon` is the smallest epsilon of the grid that succeeded, null if none up to `cap` did. A smaller one
    that was not tested may succeed too: between `last_failure` and `epsilon`, and even below, because success
    is not monotone. The stored image, and all columns named `after` or `png`, belong to `attacked_epsilon`:
    `epsilon`, or without success the largest one tested.

    Success means leaving `class_index` or, if `relative_to` is `target`, reaching it. `key` and `question`
    are as in `SaliencyMap`.
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
    last_failure: Mapped[float | None]  # largest failure below epsilon; without success, the largest tested
    at_most: Mapped[bool] = mapped_column(server_default=false())  # epsilon is the grid's lowest value
    grid: Mapped[str] = mapped_column(String(20), server_default="linear")
    ratio: Mapped[float | None]  # of a geometric grid: factor between consecutive epsilons
    parts: Mapped[
        int | None
    ]  # of a geometric grid: parts into which the gap below the first success was divided
    step: Mapped[float]  # of a geometric grid: its lowest epsilon
    cap: Mapped[float]
    minimum: Mapped[float]
    eight_bit: Mapped[bool]
    full_scan: Mapped[bool]
    class_before: Mapped[int]
    name_before: Mapped[str | None] = mapped_column(Text)
    probability_before: Mapped[float]  # of class_before
    attacked_epsilon: Mapped[float | None]  # null if the gradient is zero: nothing was attacked
    class_after: Mapped[int | None]
    name_after: Mapped[str | None] = mapped_column(Text)
    probability_after: Mapped[float | None]  # of class_after
    png_class: Mapped[int | None]  # of the stored image: rounded to 8 bits and read back
    png_name: Mapped[str | None] = mapped_column(Text)
    png_probability: Mapped[float | None]  # of png_class
    png_succeeds: Mapped[bool | None]
    gradient_norm: Mapped[float]
    checked: Mapped[int]  # number of epsilons tested, including 0
    successes: Mapped[list[list[float]]]  # of a full scan: first and last epsilon of each interval of success
    file: Mapped[str | None] = mapped_column(Text)  # the attacked image, PNG
    input_file: Mapped[str] = mapped_column(Text)  # the clean image, PNG
    change_file: Mapped[str | None] = mapped_column(Text)  # FGSM: signs as PNG; PGD: the change as .npy
    steps_file: Mapped[str] = mapped_column(Text)  # the model's output at each epsilon, .npy
    parameters: Mapped[dict[str, Any]]
    device: Mapped[str] = mapped_column(String(20))
    seconds: Mapped[float]
    created: Mapped[datetime]


class AttackUnit(Table):
    """A channel among those of its layer that an attack shifted most; joins with the atlas's patches.

    Activations are maxima over the layer's map, as in the atlas. `deviations` is the shift divided by the
    channel's spread over the image set (`db.atlas.stds`), null if the set was not indexed with exactly this
    model.
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
    """How much an attack shifted a layer."""

    __tablename__ = "attack_layers"

    attack: Mapped[int] = mapped_column(ForeignKey("attacks.attack"), primary_key=True, autoincrement=False)
    layer: Mapped[str] = mapped_column(String(200), primary_key=True)
    position: Mapped[int]
    mean_shift: Mapped[float]  # mean over channels of the absolute shift of the largest activation
    mean_deviations: Mapped[float | None]  # of live channels, in units of their spreads
    relative_change: Mapped[float]  # Euclidean norm of the change divided by that of the clean activations
    dead: Mapped[int | None]  # channels left out of the ranking; null if ranked by an earlier rule


class AttackMap(Table):
    """SmoothGrad of an attacked image or a control, compared with the clean image's.

    `panel`: clean; attacked and attacked_own (for its own prediction); other_seed (clean image) and
    random_signs (clean image plus random signs at the same epsilon). All but other_seed use the same noise
    draws. Distances are to the clean map; files are float32 .npy relative to the home.
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
    rank_correlation: Mapped[float | None]  # Spearman, over pixels
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
    """Another model's predictions for the attacked and the clean image; one row per version of its weights."""

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
    right_before: Mapped[bool | None]  # whether class_before is the image's label; null without a label
    moved: Mapped[bool]  # whether the two classes differ
    created: Mapped[datetime]


class AttackAblation(Table):
    """The same search with the most shifted channels clamped to their clean mean, compared with random channels."""

    __tablename__ = "attack_ablations"
    __table_args__ = (_one_of("verdict", VERDICTS),)

    attack: Mapped[int] = mapped_column(ForeignKey("attacks.attack"), primary_key=True, autoincrement=False)
    channels: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # how many are clamped
    # sets of random channels, for comparison
    draws: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seed: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    layer: Mapped[str] = mapped_column(String(200), primary_key=True)  # empty: all indexed layers
    job: Mapped[int] = mapped_column(ForeignKey("jobs.job"))
    units: Mapped[list[list[Any]]]  # layer and channel of the clamped ones
    outcome: Mapped[str] = mapped_column(String(20))
    epsilon: Mapped[float | None]
    probability: Mapped[float]  # of the class to leave, with clamping, before any attack
    random: Mapped[list[dict[str, Any]]]  # for each random draw: outcome, epsilon, probability
    # values of workers.attacks.ablation.Verdict
    verdict: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    counted: Mapped[int]
    less: Mapped[int]
    share_low: Mapped[float | None]
    share_high: Mapped[float | None]
    seconds: Mapped[float]
    created: Mapped[datetime]


class ImageImport(Table):
    """What an `import` job did to an image set, in numbers of images; `refusals` are the first refused ones."""

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
    """A user's description of an image set."""

    __tablename__ = "image_set_notes"

    image_set: Mapped[str] = mapped_column(String(200), primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    changed: Mapped[datetime]


class Upload(Table):
    """An image uploaded through the browser; the file is named by its content."""

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
    """SQL that a user saved."""

    __tablename__ = "saved_queries"
    __table_args__ = ({"sqlite_autoincrement": True},)

    query: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    description: Mapped[str] = mapped_column(Text, default="", server_default="")
    sql: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime]
    changed: Mapped[datetime]


class ImageSetChange(Table):
    """How often an image set was renamed or removed, or its name reused; odd while a change is in progress.

    A submitter reads it before looking at the set, and again in the transaction that creates the job.
    """

    __tablename__ = "image_set_changes"

    image_set: Mapped[str] = mapped_column(String(200), primary_key=True)
    changes: Mapped[int]


class TableChange(Table):
    """How many changes each writer made to a table; triggers count them in the transaction that makes the change.

    The sum over writers grows with every change, so equal sums mean equal rows. On PostgreSQL a writer is a
    connection's process id, so transactions never wait for a shared counter; in SQLite it is 0.
    """

    __tablename__ = "table_changes"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    writer: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    changes: Mapped[int] = mapped_column(BigInteger)


class Worker(Table):
    """A registered worker process; `seen` is its last heartbeat."""

    __tablename__ = "workers"

    worker: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    queues: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(String(20))
    started: Mapped[datetime]
    seen: Mapped[datetime]
    job: Mapped[int | None]  # its current job
