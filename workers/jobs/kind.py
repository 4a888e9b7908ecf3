"""The definition of a kind of job: a module in `workers.jobs.kinds` with `KIND`, and one line in the registry.

The registry is `workers.jobs.registry`. The web process reads the descriptions, so a module imports torch and
everything that needs torch inside its functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.ledger.jobs import NewJob
from db.ledger.tables import QUEUES
from db.settings import Settings
from workers.requests.members import expected, read_members
from workers.requests.parameters import MAX_NUMBER

if TYPE_CHECKING:
    import torch

    from workers.jobs.attack_context import AttackContext
    from workers.jobs.context import JobContext
    from workers.queue.runner import Kind

Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Names = Annotated[list[str], expected("a list of names", "Names of indexed models.", minItems=1)]
Numbers = Annotated[list[Number], expected("a list of whole numbers")]
# As a text such as 0,1,4-7, or as a list.
Ids = Annotated[
    str | list[Number],
    expected(
        "a list of whole numbers", "Image numbers, as a list or a string such as 0-9.", examples=["0,1,4-7"]
    ),
]
Text = Annotated[str, expected("a text")]
ImageSet = Annotated[str, expected("a text", "Name of an image set.")]
Queue = Annotated[str, expected("a text", "interactive jobs run before batch jobs.", enum=list(QUEUES))]
Parameters = Annotated[
    dict[str, Any], expected("an object", "Parameters of the method; omitted ones take their defaults.")
]


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The members of a request body that all kinds of jobs share, in addition to `kind`."""

    queue: Queue = "interactive"


@dataclass(frozen=True)
class Stores:
    """What a request is validated against."""

    atlas: Atlas
    ledger: Ledger
    settings: Settings


@dataclass(frozen=True)
class WorkerContext:
    """What a worker provides to the kinds it computes."""

    settings: Settings
    device: "torch.device"
    job: "JobContext"
    attacks: "AttackContext"


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """One kind of job.

    Attributes:
        name: used in the ledger, over HTTP and on the command line.
        title: shown in lists of jobs.
        request: the members of a request; unknown members and wrong types are rejected.
        parse: turns a request into a job.
        compute: makes what computes the items in a worker; None for a kind that is passed to the worker from
            outside.
        page: path and query of the page that shows a job's results; None if there is no such page.
        link: icon and text of the link to that page.
        link_of_one: its text for a job with one item, if it differs.
        result: the table that an item's result is a row of: map, attack, import, or none ("").
        long: items take minutes; they pause for waiting interactive jobs of other kinds.
        example: a request, for the OpenAPI document.
    """

    RESULTS: ClassVar[tuple[str, ...]] = ("", "map", "attack", "import")

    name: str
    title: str
    request: type[Request]
    parse: Callable[[Any, Stores], NewJob]
    compute: "Callable[[WorkerContext], Kind] | None"
    page: Callable[[Mapping[str, Any]], str | None] = lambda _job: None
    link: tuple[str, str] = ("box-arrow-up-right", "Result")
    link_of_one: str = ""
    result: str = ""
    long: bool = False
    example: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject a result type that has no table."""
        if self.result not in self.RESULTS:
            raise ValueError(f"result: expected one of {self.RESULTS}, got {self.result!r}")

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members of a request of this kind, the queue last."""
        names = [field.encode_name for field in msgspec.structs.fields(self.request)]
        return tuple(sorted(names, key=lambda name: name == "queue"))

    def read(self, body: Mapping[str, Any], stores: Stores) -> NewJob:
        """The job that a request body asks for; its member `kind` is ignored.

        Raises:
            InvalidRequest: something in it is invalid; the message names it.
        """
        return self.parse(read_members(body, self.request, also=("kind",)), stores)


def request_page(path: str, job: Mapping[str, Any], *, ids: str, target: Any, **more: Any) -> str:
    """Path and query of the page at `path` with the request of a job: its models, images, method and parameters."""
    request = job["parameters"]
    shown = {
        "model": job["models"].split(", ")[0],
        "models": job["models"].replace(", ", ","),
        "images": job["image_set"],
        "ids": ids,
        "method": request["method"],
        "target": target,
        **{f"p_{name}": value for name, value in request["parameters"].items()},
        **more,
    }
    return f"{path}?{urlencode(shown)}"
