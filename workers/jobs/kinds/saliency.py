"""Saliency maps: one map of one image under one model per item."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import field

from db.ledger.jobs import NewJob
from workers.attribution.registry import DEFAULT_METHOD, METHODS
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
from workers.requests.images import parse_ids, short_ids
from workers.requests.members import expected
from workers.requests.models import choose_models
from workers.requests.saliency import saliency_job

if TYPE_CHECKING:
    from workers.queue.runner import Kind

Target = Annotated[
    Any,
    expected(
        "prediction, label or the index of a class",
        "Class to explain: the prediction or label of each image, or one index for all.",
    ),
]


class SaliencyRequest(Request, kw_only=True):
    """Maps of images of a set under indexed models."""

    models: Names
    images: ImageSet
    ids: Ids
    method: Annotated[str, expected("a text", enum=list(METHODS))] = DEFAULT_METHOD
    parameters: Parameters = field(default_factory=dict)
    target: Target = "prediction"


def _parse(asked: SaliencyRequest, stores: Stores) -> NewJob:
    return saliency_job(
        stores.atlas,
        models=choose_models(stores.atlas, asked.models),
        image_set=asked.images,
        image_ids=parse_ids(asked.ids) if isinstance(asked.ids, str) else asked.ids,
        method=asked.method,
        parameters=asked.parameters,
        target=asked.target,
        queue=asked.queue,
    )


def _compute(context: WorkerContext) -> "Kind":
    from workers.jobs.saliency import SaliencyJobs

    return SaliencyJobs(context.job)


def maps_page(job: Mapping[str, Any], **more: Any) -> str | None:
    """The Saliency page with the maps of a job; None if no single request covers them all."""
    request = job["parameters"]
    if "ids" not in request:
        return None
    return request_page("/saliency", job, ids=short_ids(request["ids"]), target=request["target"], **more)


KIND = JobKind(
    name="saliency",
    title="Saliency",
    request=SaliencyRequest,
    parse=_parse,
    compute=_compute,
    page=maps_page,
    link=("bullseye", "Maps"),
    result="map",
    example={
        "models": ["efficientnet-lite0"],
        "images": "samples",
        "ids": [0, 1, 4],
        "method": "smoothgrad",
        "parameters": {"samples": 25, "seed": 0},
    },
)
