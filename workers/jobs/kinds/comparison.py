"""Saliency before and after: maps of one attack per item, with the noise of their difference."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import field

from db.ledger.jobs import NewJob
from workers.jobs.kind import Ids, JobKind, Parameters, Request, Stores, WorkerContext
from workers.requests.followups import MAX_FOLLOWED, comparison_job
from workers.requests.images import parse_ids

if TYPE_CHECKING:
    from workers.queue.runner import Kind


class ComparisonRequest(Request, kw_only=True):
    """Maps before and after attacks, by their numbers."""

    attacks: Ids
    parameters: Parameters = field(default_factory=dict)


def attack_numbers(given: str | list[int]) -> list[int]:
    """Attack numbers from a text such as 1,4-7 or from a list."""
    return parse_ids(given, most=MAX_FOLLOWED, name="attacks") if isinstance(given, str) else given


def attack_page(job: Mapping[str, Any]) -> str:
    """The Attack page for the first attack of a job."""
    return f"/attack?attack={job['parameters']['attacks'].partition(',')[0].partition('-')[0]}"


def _parse(asked: ComparisonRequest, stores: Stores) -> NewJob:
    return comparison_job(stores.ledger, attack_numbers(asked.attacks), asked.parameters, queue=asked.queue)


def _compute(context: WorkerContext) -> "Kind":
    from workers.jobs.followups import ComparisonJobs

    return ComparisonJobs(context.attacks)


KIND = JobKind(
    name="comparison",
    title="Saliency before and after",
    request=ComparisonRequest,
    parse=_parse,
    compute=_compute,
    page=attack_page,
    link=("lightning-charge", "Attacks"),
    link_of_one="Attack",
    example={"attacks": [1], "parameters": {"samples": 25}},
)
