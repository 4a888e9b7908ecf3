"""Ablation: repeats the search of one attack per item, with the channels clamped that it shifts most."""

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from db.ledger.jobs import NewJob
from workers.jobs.kind import Ids, JobKind, Request, Stores, WorkerContext
from workers.jobs.kinds.comparison import attack_numbers, attack_page
from workers.requests.followups import DRAWS, MAX_CHANNELS, MAX_DRAWS, ablation_job
from workers.requests.members import expected
from workers.requests.parameters import MAX_NUMBER

if TYPE_CHECKING:
    from workers.queue.runner import Kind

_LAYER = "a layer such as stage2.block1.dwconv or a module path such as layer4.1"


class AblationRequest(Request, kw_only=True):
    """Attacks searched again with channels clamped, and with random draws of equally many for comparison."""

    attacks: Ids
    channels: Annotated[
        int, Meta(ge=1, le=MAX_CHANNELS), expected(f"a whole number from 1 to {MAX_CHANNELS}")
    ] = 10
    draws: Annotated[int, Meta(ge=1, le=MAX_DRAWS), expected(f"a whole number from 1 to {MAX_DRAWS}")] = DRAWS
    seed: Annotated[int, Meta(ge=0, le=MAX_NUMBER), expected(f"a whole number from 0 to {MAX_NUMBER}")] = 0
    layer: Annotated[str, expected(_LAYER)] = ""


def _parse(asked: AblationRequest, stores: Stores) -> NewJob:
    return ablation_job(
        stores.ledger,
        stores.atlas,
        attack_numbers(asked.attacks),
        channels=asked.channels,
        draws=asked.draws,
        seed=asked.seed,
        layer=asked.layer,
        queue=asked.queue,
    )


def _compute(context: WorkerContext) -> "Kind":
    from workers.jobs.followups import AblationJobs

    return AblationJobs(context.attacks)


KIND = JobKind(
    name="ablation",
    title="Channels clamped",
    request=AblationRequest,
    parse=_parse,
    compute=_compute,
    page=attack_page,
    link=("lightning-charge", "Attacks"),
    link_of_one="Attack",
    example={"attacks": [1], "channels": 10},
)
