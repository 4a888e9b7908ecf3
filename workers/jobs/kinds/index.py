"""Index: the top-k activations of every channel over an image set. Computed by `precompute.jobs`."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from msgspec import Meta

from db.ledger.jobs import NewJob
from workers.jobs.kind import ImageSet, JobKind, Queue, Request, Stores
from workers.requests.image_sets import DTYPES, MAX_BATCH, MAX_K, index_job
from workers.requests.members import expected

_BATCH = Annotated[int, Meta(ge=1, le=MAX_BATCH)]


class IndexRequest(Request, kw_only=True):
    """An index of an image set with a named model, or with one that was indexed before."""

    model: Annotated[str, expected("a text", "A named model, or one that is indexed already.")]
    images: ImageSet
    k: Annotated[int, Meta(ge=1, le=MAX_K), expected(f"a whole number from 1 to {MAX_K:,}")] = 20
    layers: Annotated[str, expected("patterns of layer names such as *.dwconv")] = "*"
    dtype: Annotated[str, expected("a text", enum=list(DTYPES))] = "float32"
    batch_size: Annotated[_BATCH | None, expected(f"a whole number from 1 to {MAX_BATCH:,}")] = None
    replace: Annotated[bool, expected("true or false")] = False
    queue: Queue = "batch"


def _parse(asked: IndexRequest, stores: Stores) -> NewJob:
    return index_job(
        stores.atlas,
        model=asked.model,
        image_set=asked.images,
        k=asked.k,
        layers=asked.layers,
        dtype=asked.dtype,
        batch_size=asked.batch_size,
        replace=asked.replace,
        queue=asked.queue,
    )


def _page(job: Mapping[str, Any]) -> str | None:
    if job["state"] != "done":
        return None
    return "/?" + urlencode({"model": job["models"], "images": job["image_set"]})


KIND = JobKind(
    name="index",
    title="Index",
    request=IndexRequest,
    parse=_parse,
    compute=None,
    page=_page,
    link=("grid-3x3-gap", "Patches"),
    long=True,
    example={"model": "efficientnet-lite0", "images": "samples"},
)
