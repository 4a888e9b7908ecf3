"""Types of the HTTP API's answers. The OpenAPI document describes the answers by them.

They are dictionaries, since pages read them and JSON is made from them. `members_of` makes one from a row of the
ledger: what its type does not list, such as paths of files on the server, is left out.
"""

import functools
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar, cast

from msgspec import Meta

from db.ledger.tables import GRIDS, ITEM_STATES, OUTCOMES, PANELS, QUEUES, STATES, VERDICTS
from workers.attacks.registry import ATTACKS
from workers.jobs.registry import JOB_KINDS
from workers.requests.attacks import RELATIVE_TO

Answer = TypeVar("Answer")
Number = Annotated[int, Meta(ge=0)]


def members_of(kind: type[Answer], *rows: Mapping[str, Any]) -> Answer:
    """The members of `kind` in the rows, of which a later one replaces those of an earlier one.

    Raises:
        KeyError: a required member is missing.
    """
    values: dict[str, Any] = {}
    for row in rows:
        values.update(row)
    known = {name: values[name] for name, required in _names(cast(Any, kind)) if required or name in values}
    return cast(Answer, known)


@functools.cache
def _names(kind: Any) -> tuple[tuple[str, bool], ...]:
    """The members of a type, and whether they are required."""
    return tuple((name, name in kind.__required_keys__) for name in kind.__annotations__)


def _enum(choices: Iterable[str], description: str = "") -> Meta:
    return Meta(description=description or None, extra_json_schema={"enum": list(choices)})


class Error(TypedDict):
    """An error."""

    error: Annotated[str, Meta(description="One sentence.")]


class OffsetError(Error):
    """A piece of an upload that does not begin where the file ends."""

    received: NotRequired[Annotated[int, Meta(description="Where the file ends.")]]


class Link(TypedDict):
    """A link to a page."""

    icon: Annotated[str, Meta(description="Name of a Bootstrap icon.")]
    text: str


class Job(TypedDict):
    """A job: one request, and its progress."""

    job: Number
    kind: Annotated[str, _enum(JOB_KINDS)]
    queue: Annotated[str, _enum(QUEUES)]
    state: Annotated[str, _enum(STATES)]
    models: list[str]
    image_set: str
    parameters: Annotated[dict[str, Any], Meta(description="The complete request, with defaults.")]
    items: Annotated[int, Meta(ge=0, description="Number of requested results.")]
    items_done: Number
    items_failed: Number
    progress: Annotated[float, Meta(ge=0, le=1, description="Finished fraction of the whole job.")]
    attempts: Number
    note: Annotated[str | None, Meta(description="Current phase of the item being computed.")]
    error: Annotated[
        str | None, Meta(description="Why it failed, or why the last attempt ended: one sentence.")
    ]
    traceback: str | None
    worker: Annotated[str | None, Meta(description="The current or last worker.")]
    silent: Annotated[bool, Meta(description="Its worker has no heartbeat; the job will be reassigned.")]
    cancel_requested: bool
    seconds_left: Annotated[float | None, Meta(description="Estimate from the items finished so far.")]
    item_seconds: Annotated[float | None, Meta(description="Mean time of the finished items.")]
    age: Annotated[float, Meta(description="Seconds since the job was submitted.")]
    created: datetime
    started: datetime | None
    finished: datetime | None
    url: str
    page: Annotated[str | None, Meta(description="The page that shows the results.")]
    title: Annotated[str, Meta(description="Title of the kind.")]
    link: Annotated[Link | None, Meta(description="The link to that page.")]


class Submitted(Job):
    """A job after it was submitted or re-queued."""

    notice: Annotated[
        str, Meta(description="The outcome in one sentence, also if the broker cannot be reached.")
    ]


class Item(TypedDict):
    """One unit of a job, such as one image under one model."""

    position: Number
    model: str
    image_id: Number
    state: Annotated[str, _enum(ITEM_STATES)]
    error: str | None
    seconds: float | None
    result: Annotated[
        int | None, Meta(description="Number of its result: a map, an attack, an image import or a run.")
    ]
    value: Annotated[
        dict[str, Any] | None, Meta(description="The result itself, of a kind without a table of its own.")
    ]


class Map(TypedDict):
    """A saliency map of one image under one model; its values are at `npy`."""

    map: Number
    job: Number
    model: str
    image_set: str
    image_id: Number
    method: str
    target_class: Number
    target_name: str | None
    target_probability: float
    predicted_class: Number
    predicted_name: str | None
    predicted_probability: float
    samples: Annotated[int, Meta(ge=0, description="Noisy copies; 1 for methods without noise.")]
    noise_level: float | None
    seed: int | None
    dtype: str
    parameters: dict[str, Any]
    agreement: Annotated[
        float | None, Meta(description="Rank correlation of the maps of two halves of the samples.")
    ]
    standard_error: Annotated[float | None, Meta(description="Mean over the pixels.")]
    signed: bool
    lowest: float
    highest: float
    height: Number
    width: Number
    device: str
    seconds: float
    created: datetime
    steps: Annotated[
        int | None, Meta(description="Steps of the curves; null if there are none with the requested number.")
    ]
    deletion_auc: float | None
    insertion_auc: float | None
    deletion: NotRequired[list[float] | None]
    insertion: NotRequired[list[float] | None]
    scored_steps: NotRequired[
        Annotated[list[int], Meta(description="All numbers of steps for which there are curves.")]
    ]
    url: str
    npy: str
    png: str
    standard_error_npy: str | None
    input_png: str


class Attack(TypedDict):
    """The result of an attack on one image under one model."""

    attack: Number
    job: Number
    model: str
    image_set: str
    image_id: Number
    method: Annotated[str, _enum(ATTACKS)]
    relative_to: Annotated[str, _enum((*RELATIVE_TO, "target"))]
    class_index: Annotated[
        int, Meta(ge=0, description="The class to leave or, if relative_to is target, to reach.")
    ]
    class_name: str | None
    outcome: Annotated[
        str,
        _enum(OUTCOMES, "resisted: no success up to the cap (censored); no_gradient: the gradient is zero."),
    ]
    epsilon: Annotated[
        float | None,
        Meta(
            description="Smallest successful epsilon, for pixels in [0, 1]; null if none up to the cap succeeded."
        ),
    ]
    last_failure: Annotated[
        float | None,
        Meta(
            description="Largest failed epsilon below `epsilon`, or 0; without success the largest one tested."
        ),
    ]
    at_most: Annotated[
        bool, Meta(description="`epsilon` is the lowest value of the grid: a smaller one may succeed too.")
    ]
    grid: Annotated[str, _enum(GRIDS)]
    ratio: Annotated[float | None, Meta(description="Of a geometric grid: ratio of consecutive epsilons.")]
    parts: Annotated[
        int | None,
        Meta(
            description="Of a geometric grid: parts into which the gap below the first success was divided."
        ),
    ]
    step: Annotated[
        float,
        Meta(
            description="Difference of consecutive epsilons of a linear grid; lowest epsilon of a geometric one."
        ),
    ]
    cap: float
    minimum: float
    eight_bit: bool
    full_scan: bool
    class_before: Number
    name_before: str | None
    probability_before: float
    attacked_epsilon: Annotated[
        float | None,
        Meta(description="Of the stored image: `epsilon`, or without success the largest tested."),
    ]
    class_after: int | None
    name_after: str | None
    probability_after: float | None
    png_class: Annotated[
        int | None, Meta(description="Prediction for the stored PNG, after reading it back.")
    ]
    png_name: str | None
    png_probability: float | None
    png_succeeds: bool | None
    gradient_norm: float
    checked: Number
    successes: Annotated[
        list[list[float]],
        Meta(description="Of a full scan: first and last epsilon of each interval of success."),
    ]
    parameters: dict[str, Any]
    device: str
    seconds: float
    created: datetime
    url: str
    png: str | None
    input_png: str
    signs_png: str | None
    change_npy: str | None


class AttackMap(TypedDict):
    """SmoothGrad map before or after an attack; differences are to the clean map."""

    attack_map: Number
    attack: Number
    job: Number
    panel: Annotated[str, _enum(PANELS)]
    target_class: Number
    target_name: str | None
    samples: Number
    noise_level: float
    seed: Number
    rank_correlation: float | None
    ssim: float | None
    mean_difference: float | None
    mean_standard_error: float | None
    beyond_noise: Annotated[
        float | None, Meta(description="Fraction of pixels that differ by more than two standard errors.")
    ]
    seconds: float
    created: datetime
    npy: str
    difference_npy: str | None
    standard_error_npy: str | None


class ClassProbability(TypedDict):
    """A class with its probability."""

    class_index: Number
    name: str | None
    probability: float


class Step(TypedDict):
    """The model's output at one epsilon."""

    epsilon: float
    reference_probability: float
    top: list[ClassProbability]


class LayerShift(TypedDict):
    """How much an attack shifted a layer."""

    layer: str
    label: str
    mean_shift: float
    mean_deviations: float | None
    relative_change: float
    dead: Annotated[
        int | None,
        Meta(description="Dead channels, left out of `units`; null if ranked by an earlier rule."),
    ]


class UnitPatches(TypedDict):
    """An image of the top-activating patches of a channel, and their number."""

    picture: str
    k: int


class Unit(TypedDict):
    """A channel among those of its layer that an attack shifted most."""

    layer: str
    label: str
    rank: Number
    channel: Number
    activation_before: float
    activation_after: float
    shift: float
    deviations: float | None
    y_before: Number
    x_before: Number
    y: Number
    x: Number
    patches: UnitPatches | None


class Comparison(TypedDict):
    """The maps before and after an attack of one request."""

    samples: Number
    noise_level: float
    seed: Number
    job: Number
    created: datetime
    maps: list[AttackMap]


class Transfer(TypedDict):
    """Another model's predictions for the clean and the attacked image."""

    judge: str
    class_before: Number
    name_before: str | None
    probability_before: float
    class_after: Number
    name_after: str | None
    probability_after: float
    right_before: bool | None
    moved: Annotated[bool, Meta(description="The two classes differ.")]
    created: datetime


class Ablation(TypedDict):
    """The same search with the most shifted channels clamped, compared with random channels."""

    channels: Number
    draws: Number
    seed: Number
    units: list[Any]
    outcome: str
    epsilon: float | None
    probability: float
    random: list[dict[str, Any]]
    layer: str
    verdict: Annotated[str, _enum(VERDICTS)]
    reason: str
    counted: Annotated[int, Meta(ge=0, description="Random draws that are compared.")]
    less: Annotated[int, Meta(ge=0, description="Those among them that need a smaller epsilon.")]
    share_low: Annotated[
        float | None,
        Meta(description="95 % interval of the fraction of random draws that need a smaller epsilon."),
    ]
    share_high: float | None
    seconds: float
    created: datetime


class WholeAttack(Attack):
    """An attack with all follow-up results."""

    steps: Annotated[
        list[Step] | None, Meta(description="The model's output at each epsilon; null if the file is gone.")
    ]
    layers: list[LayerShift]
    units: list[Unit]
    maps: Annotated[list[AttackMap], Meta(description="Those of the newest comparison.")]
    comparisons: Annotated[list[Comparison], Meta(description="One for each request, newest first.")]
    transfers: list[Transfer]
    ablations: list[Ablation]


class Refusal(TypedDict):
    """An image that was not imported, and why."""

    name: str
    reason: str


class ImageImport(TypedDict):
    """What an import did, in numbers of images."""

    image_import: Number
    job: Number
    added: Number
    known: Number
    refused: Number
    labelled: Number
    relabelled: Number
    moved: Number
    changed: Number
    duplicates: Number
    image_set: str
    source: str
    refusals: Annotated[list[Refusal], Meta(description="The first refused ones.")]
    seconds: float
    created: datetime
    renamed: Number
    gone: Number
    layout: Annotated[
        dict[str, Any],
        Meta(
            description="The source of split, class and label (`sentence`), `notes`, and what was `unused`; of a "
            "preview also `images`, `splits` and `labels` with counts."
        ),
    ]


class WholeJob(Job):
    """A job with its items and their results so far."""

    item_list: list[Item]
    maps: list[Map]
    attacks: list[Attack]
    image_import: Annotated[
        ImageImport | None, Meta(description="Null for other kinds, and until the import is done.")
    ]


class JobList(TypedDict):
    """A part of a list of jobs."""

    jobs: list[Job]
    total: Annotated[int, Meta(ge=0, description="Number of jobs without `limit`.")]


class ResultColumn(TypedDict):
    """A column of a result."""

    name: str
    type: Annotated[str, Meta(description="DuckDB's name of the type.")]


class Card(TypedDict):
    """An image of a row, and the page that it links to."""

    kind: Annotated[str, _enum(("image", "patch", "map", "attacked"))]
    src: str
    href: str


class SQLResult(TypedDict):
    """The rows of a statement."""

    columns: list[ResultColumn]
    rows: Annotated[
        list[list[Any]],
        Meta(
            description="A list of values for each row. Times are ISO text; whole numbers beyond 2^53 and NaN are text."
        ),
    ]
    more: Annotated[bool, Meta(description="There are more rows.")]
    seconds: float
    plan: Annotated[bool, Meta(description="The rows are the plan of an EXPLAIN.")]
    pictures: Annotated[bool, Meta(description="The columns name images, maps or attacks.")]
    cards: NotRequired[list[Card | None]]


class TableColumn(TypedDict):
    """A column of a table or view."""

    name: str
    kind: Annotated[str, Meta(description="DuckDB's name of the type.")]
    comment: str


class SQLTable(TypedDict):
    """A table or view that SQL can read."""

    name: str
    place: Annotated[str, _enum(("view", "atlas", "ledger"))]
    comment: str
    rows: Annotated[int | None, Meta(description="Null for a view.")]
    columns: list[TableColumn]


class SQLTables(TypedDict):
    """All tables and views."""

    tables: list[SQLTable]


class SQLFunctions(TypedDict):
    """Names of functions by kind."""

    functions: list[str]
    aggregates: list[str]
    windows: list[str]
    table_functions: list[str]
    operators: list[str]


class SavedQuery(TypedDict):
    """A query that was saved under a name."""

    query: int
    name: str
    description: str
    sql: str
    created: datetime
    changed: datetime


class SavedQueries(TypedDict):
    """All saved queries."""

    queries: list[SavedQuery]


class DeletedQuery(TypedDict):
    """The number of a deleted query."""

    query: int


class Upload(TypedDict):
    """An upload and how much of it has arrived."""

    upload: str
    files: Annotated[int, Meta(ge=1)]
    bytes: Number
    received: Number
    piece: Annotated[int, Meta(description="Bytes to send at once.")]
    url: str


class DeletedUpload(TypedDict):
    """The key of a deleted upload."""

    upload: str


class FileRoom(TypedDict):
    """A file that can be sent."""

    file: Annotated[int, Meta(description="Number of the file in the upload.")]
    piece: Annotated[int, Meta(description="Bytes to send at once.")]


class FileReceived(TypedDict):
    """How much of a file has arrived."""

    file: int
    received: Annotated[int, Meta(description="Where the next piece begins.")]


class UploadedFile(FileReceived):
    """A file of an upload."""

    name: str
    size: int


class ImageSet(TypedDict):
    """An image set."""

    image_set: str
    source: str
    images: Number
    labelled: Number
    created: datetime
    description: str
    runs: Annotated[list[str], Meta(description="Models that were run over it.")]


class NamedModel(TypedDict):
    """A model that can index an image set."""

    name: str
    title: str


class ImageSets(TypedDict):
    """All image sets, and what new ones can be made of."""

    image_sets: list[ImageSet]
    models: Annotated[list[NamedModel], Meta(description="Models that can index a set.")]
    folders: Annotated[list[str], Meta(description="CONVSCOPE_IMAGE_ROOTS: folders that can be imported.")]


class Dependents(TypedDict):
    """What is deleted along with a set; `queries` are saved queries that name it, which stay."""

    images: Number
    runs: list[str]
    patches: Number
    maps: Number
    attacks: Number
    jobs: Number
    unfinished: Number
    queries: list[str]


class WholeImageSet(TypedDict):
    """An image set with what depends on it."""

    image_set: str
    description: str
    dependents: Dependents


class DeletedImageSet(TypedDict):
    """The name of a deleted set, and what was deleted along with it."""

    image_set: str
    removed: Dependents
