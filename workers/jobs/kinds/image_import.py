"""Import: makes an image set from a folder or an archive on the server. Computed by `precompute.jobs`."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from db.ledger.jobs import NewJob
from workers.jobs.kind import ImageSet, JobKind, Request, Stores
from workers.requests.image_sets import LAYOUT_WORDS, folder_job, layout_words
from workers.requests.members import expected

_WORD = Annotated[str | None, expected("a string of at most 200 characters")]


class ImportRequest(Request, kw_only=True):
    """A folder or an archive below an allowed root; `preview` only reports what would be imported."""

    images: ImageSet
    folder: Annotated[str, expected("a text", "Absolute path on the server.")]
    preview: Annotated[bool, expected("true or false")] = False
    labels: Annotated[str | None, expected("a file path")] = None
    label_column: _WORD = None
    image_column: _WORD = None
    class_level: Annotated[int | str | None, expected("a whole number from -100 to 100")] = None
    split_from: _WORD = None
    class_names: _WORD = None


def _parse(asked: ImportRequest, stores: Stores) -> NewJob:
    return folder_job(
        stores.ledger,
        stores.settings.image_roots,
        folder=asked.folder,
        image_set=asked.images,
        queue=asked.queue,
        preview=asked.preview,
        words=layout_words({name: getattr(asked, name) for name in LAYOUT_WORDS}),
        labels=asked.labels,
    )


def _page(job: Mapping[str, Any]) -> str | None:
    return None if job["state"] != "done" else "/images?" + urlencode({"images": job["image_set"]})


KIND = JobKind(
    name="import",
    title="Import of images",
    request=ImportRequest,
    parse=_parse,
    compute=None,
    page=_page,
    link=("images", "Images"),
    result="import",
    long=True,
)
