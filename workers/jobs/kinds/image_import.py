"""Import: makes an image set from a folder or an archive on the server. Computed by `precompute.jobs`."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from msgspec import Meta

from db.atlas.image_sets import SET_NAME
from db.ledger.jobs import NewJob
from workers.jobs.kind import JobKind, Request, Stores
from workers.requests.image_sets import folder_job
from workers.requests.members import expected, is_printable, one_of

_MAX_WORD = 200
_Word = (
    Annotated[
        str,
        Meta(max_length=_MAX_WORD),
        expected(f"a string of at most {_MAX_WORD} characters", check=is_printable),
    ]
    | None
)
LAYOUT_WORDS = ("label_column", "image_column", "class_level", "split_from", "class_names")


class SetImport(Request, kw_only=True):
    """An import into an image set, and how its files are read; `precompute.images.layouts.asked` reads the layout."""

    images: Annotated[
        str,
        expected("a text", "Name of the image set; it is created if it does not exist.", pattern=SET_NAME),
    ]
    preview: Annotated[
        bool,
        Meta(
            description="Only report what would be imported, in the job's `image_import.layout`; an upload is kept."
        ),
    ] = False
    label_column: Annotated[_Word, Meta(description="Column of a table or a shard with the class.")] = None
    image_column: Annotated[_Word, Meta(description="Column that names the image, or contains it.")] = None
    class_level: (
        Annotated[
            int,
            Meta(
                ge=-100,
                le=100,
                description="Folder of each path that is the class: 1 the outermost, -1 the innermost, 0 none.",
            ),
        ]
        | None
    ) = None
    split_from: Annotated[
        _Word, Meta(description="Source of the split: none, the level of a folder, or a column.")
    ] = None
    class_names: Annotated[str, one_of(("", "imagenet-1k"), "Names of numbered classes.")] | None = None

    def layout(self) -> dict[str, Any]:
        """What was specified about the layout, by name; empty texts are left out."""
        return {name: value for name in LAYOUT_WORDS if (value := getattr(self, name)) not in (None, "")}


class ImportRequest(SetImport, kw_only=True):
    """A folder or an archive below an allowed root; `preview` only reports what would be imported."""

    folder: Annotated[str, expected("a text", "Absolute path on the server.")]
    labels: Annotated[str, expected("the path of a file", "A table of labels on the server.")] | None = None


def _parse(asked: ImportRequest, stores: Stores) -> NewJob:
    return folder_job(
        stores.ledger,
        stores.settings.image_roots,
        folder=asked.folder,
        image_set=asked.images,
        queue=asked.queue,
        preview=asked.preview,
        words=asked.layout(),
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
    example={"folder": "/data/birds", "images": "birds"},
)
