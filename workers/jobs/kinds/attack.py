"""Attacks: one image under one model per item."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import field

from db.ledger.jobs import NewJob
from workers.attacks.registry import ATTACKS, DEFAULT_ATTACK
from workers.jobs.kind import (
    Ids,
    ImageSet,
    JobKind,
    Names,
    Parameters,
    Request,
    Stores,
    WorkerContext,
    request_page,
)
from workers.requests.attacks import MAX_ATTACKS, RELATIVE_TO, attack_job
from workers.requests.images import parse_ids
from workers.requests.members import expected
from workers.requests.models import choose_models

if TYPE_CHECKING:
    from workers.queue.runner import Kind


class AttackRequest(Request, kw_only=True):
    """Attacks on images of a set under indexed models; `target` is a class to reach, else one is left."""

    models: Names
    images: ImageSet
    ids: Ids
    method: Annotated[str, expected("a text", enum=list(ATTACKS))] = DEFAULT_ATTACK
    parameters: Parameters = field(default_factory=dict)
    relative_to: Annotated[str, expected("a text", "The class to leave.", enum=list(RELATIVE_TO))] = (
        "prediction"
    )
    target: Annotated[Any, expected("the index of a class", "Index of a target class instead.")] = None


def _parse(asked: AttackRequest, stores: Stores) -> NewJob:
    return attack_job(
        stores.atlas,
        models=choose_models(stores.atlas, asked.models),
        image_set=asked.images,
        image_ids=parse_ids(asked.ids, most=MAX_ATTACKS) if isinstance(asked.ids, str) else asked.ids,
        method=asked.method,
        parameters=asked.parameters,
        relative_to=asked.relative_to,
        target=asked.target,
        queue=asked.queue,
    )


def _compute(context: WorkerContext) -> "Kind":
    from workers.jobs.attack import AttackJobs

    return AttackJobs(context.attacks)


def _page(job: Mapping[str, Any]) -> str | None:
    request = job["parameters"]
    if "ids" not in request:
        return None
    target = request["relative_to"] if request["target"] is None else request["target"]
    return request_page("/attack", job, ids=request["ids"], target=target)


KIND = JobKind(
    name="attack",
    title="Attack",
    request=AttackRequest,
    parse=_parse,
    compute=_compute,
    page=_page,
    link=("lightning-charge", "Attacks"),
    link_of_one="Attack",
    result="attack",
    example={
        "models": ["efficientnet-lite0"],
        "images": "samples",
        "ids": "0,1,4-7",
        "parameters": {"grid": "geometric", "cap": 0.5},
    },
)
