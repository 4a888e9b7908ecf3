"""Deletion and insertion: the curves of one map per item."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from db.ledger.jobs import NewJob
from workers.jobs.kind import JobKind, Numbers, Queue, Request, Stores, WorkerContext
from workers.jobs.kinds.saliency import maps_page
from workers.requests.members import expected
from workers.requests.saliency import DEFAULT_STEPS, MAX_STEPS, faithfulness_job

if TYPE_CHECKING:
    from workers.queue.runner import Kind

_STEPS = f"a whole number from 2 to {MAX_STEPS}"


class FaithfulnessRequest(Request, kw_only=True):
    """Curves of maps, by their numbers."""

    maps: Numbers
    steps: Annotated[int, Meta(ge=2, le=MAX_STEPS), expected(_STEPS)] = DEFAULT_STEPS
    queue: Queue = "batch"


def _parse(asked: FaithfulnessRequest, stores: Stores) -> NewJob:
    return faithfulness_job(stores.ledger, asked.maps, steps=asked.steps, queue=asked.queue)


def _compute(context: WorkerContext) -> "Kind":
    from workers.jobs.saliency import FaithfulnessJobs

    return FaithfulnessJobs(context.job)


def _page(job: Mapping[str, Any]) -> str | None:
    steps = job["parameters"]["steps"]
    return maps_page(job, **({} if steps == DEFAULT_STEPS else {"steps": steps}))


KIND = JobKind(
    name="faithfulness",
    title="Deletion and insertion",
    request=FaithfulnessRequest,
    parse=_parse,
    compute=_compute,
    page=_page,
    link=("bullseye", "Maps"),
    result="map",
    example={"maps": [1, 2], "steps": 50},
)
