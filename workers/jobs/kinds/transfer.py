"""Transfer: another model's prediction for one attacked image per item."""

from typing import TYPE_CHECKING

from db.ledger.jobs import NewJob
from workers.jobs.kind import Ids, JobKind, Names, Queue, Request, Stores, WorkerContext
from workers.jobs.kinds.comparison import attack_numbers, attack_page
from workers.requests.followups import transfer_job
from workers.requests.models import choose_models

if TYPE_CHECKING:
    from workers.queue.runner import Kind


class TransferRequest(Request, kw_only=True):
    """Predictions of the models `judges` for attacked images; a model does not judge attacks on itself."""

    attacks: Ids
    judges: Names
    queue: Queue = "batch"


def _parse(asked: TransferRequest, stores: Stores) -> NewJob:
    judges = choose_models(stores.atlas, asked.judges)
    return transfer_job(stores.ledger, attack_numbers(asked.attacks), judges, queue=asked.queue)


def _compute(context: WorkerContext) -> "Kind":
    from workers.jobs.followups import TransferJobs

    return TransferJobs(context.attacks)


KIND = JobKind(
    name="transfer",
    title="Transfer to other models",
    request=TransferRequest,
    parse=_parse,
    compute=_compute,
    page=attack_page,
    link=("lightning-charge", "Attacks"),
    link_of_one="Attack",
    example={"attacks": "1-4", "judges": ["mobilenet-v2"]},
)
