"""Image set routes of the HTTP API: `/api/image_sets` lists, renames, describes and deletes sets."""

from dataclasses import asdict
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from dashboard.api.answer_types import (
    DeletedImageSet,
    Dependents,
    ImageSet,
    ImageSets,
    NamedModel,
    WholeImageSet,
    members_of,
)
from dashboard.api.routing import STORE, Body, Query, Routes
from dashboard.state.context import Catalogue, current
from db.atlas.image_sets import SET_NAME
from db.atlas.store import AtlasError
from db.ledger.engine import LedgerError
from db.queries.set_changes import (
    MAX_DESCRIPTION,
    NoSuchSet,
    SetBusy,
    SetNameTaken,
    WrongSetName,
    dependents_of,
    describe_set,
    descriptions,
    remove_image_set,
    rename_set,
)
from db.stores.images import StoreBusy
from workers.models.names import NAMED_MODELS
from workers.requests.members import expected, is_storable, read_members
from workers.requests.parameters import InvalidRequest

STATUS: dict[type[Exception], int] = {
    InvalidRequest: 400,
    LedgerError: 503,
    NoSuchSet: 404,
    WrongSetName: 400,
    SetNameTaken: 409,
    SetBusy: 409,
    StoreBusy: 409,
    AtlasError: 503,
}
set_api = Routes("set_api", "/api/image_sets", STATUS)
SetName = Annotated[str, Meta(description="Name of an image set.", extra_json_schema={"pattern": SET_NAME})]
_NO_SUCH_SET = {404: "There is no such image set."}
_HALF = {503: "A store does not respond; repeat the request to complete it."}


@set_api.get("", answers="All sets.", errors=STORE)
def list_sets() -> ImageSets:
    """Image sets, newest first; the models that can index one; the folders that can be imported."""
    context = current()
    catalogue = context.catalogue()
    if catalogue.trouble:
        raise AtlasError(catalogue.trouble)
    texts = descriptions(context.ledger)
    runs = {
        found["image_set"]: [run["model"] for run in catalogue.runs if run["image_set"] == found["image_set"]]
        for found in catalogue.image_sets
    }
    return {
        "image_sets": [
            members_of(ImageSet, found, {"description": texts.get(name, ""), "runs": runs[name]})
            for found in catalogue.image_sets
            for name in [found["image_set"]]
        ],
        "models": models_to_index_with(catalogue),
        "folders": [str(root) for root in context.settings.image_roots],
    }


def models_to_index_with(catalogue: Catalogue) -> list[NamedModel]:
    """Name and title of every model that can index a set, the smallest first."""
    indexed = [run["model"] for run in catalogue.runs]
    titles = {name: known.title for name, known in NAMED_MODELS.items()}
    names = dict.fromkeys(["efficientnet-lite0", *titles, *indexed])
    return [{"name": name, "title": titles.get(name, "indexed before")} for name in names]


@set_api.get("/<image_set>", answers="The set.", errors=_NO_SUCH_SET | STORE)
def show_set(image_set: SetName) -> WholeImageSet:
    """What depends on a set, and its description."""
    context = current()
    text = descriptions(context.ledger).get(image_set, "")
    found = dependents_of(context.atlas, context.ledger, image_set)
    return {
        "image_set": image_set,
        "description": text,
        "dependents": members_of(Dependents, asdict(found)),
    }


class SetChange(Body):
    """A new name, a new description, or both."""

    name: Annotated[str, expected("a text", pattern=SET_NAME)] | UnsetType = UNSET
    description: (
        Annotated[
            str,
            Meta(max_length=MAX_DESCRIPTION),
            expected(f"a string of at most {MAX_DESCRIPTION:,} characters", check=is_storable),
        ]
        | UnsetType
    ) = UNSET

    def __post_init__(self) -> None:
        """Reject a change of nothing."""
        if self.name is UNSET and self.description is UNSET:
            raise InvalidRequest("body: expected a name, a description, or both, got none")


@set_api.post(
    "/<image_set>",
    answers="The set after the change.",
    errors=_NO_SUCH_SET | {409: "Another set has this name, or jobs are working on this one."} | _HALF,
)
def change_set(image_set: SetName, body: SetChange) -> WholeImageSet:
    """Change a set's description, its name, or both."""
    context = current()
    name = image_set if body.name is UNSET else body.name
    if body.description is not UNSET:
        describe_set(context.atlas, context.ledger, image_set, body.description.strip())
    if name != image_set:
        rename_set(context.atlas, context.store, context.ledger, image_set, name)
    return show_set(name)


def description_text(text: str) -> str:
    """A description without surrounding white space.

    Raises:
        InvalidRequest: it is too long, or cannot be stored.
    """
    return str(read_members({"description": text}, SetChange).description).strip()


class Confirmation(Query):
    """The set's name, to confirm its deletion."""

    confirm: Annotated[str, Meta(max_length=200), expected("the set's name once more", "The set's name.")]


@set_api.delete(
    "/<image_set>",
    answers="The set is deleted.",
    errors={400: "`confirm` is not the set's name."}
    | _NO_SUCH_SET
    | {409: "Jobs are working on it."}
    | _HALF,
)
def remove_set(image_set: SetName, query: Confirmation) -> DeletedImageSet:
    """Delete a set and everything that depends on it.

    Files of a folder that was read in place stay.
    """
    if query.confirm != image_set:
        raise InvalidRequest(
            f"confirm: expected the set's name {image_set!r} once more, got {query.confirm!r}"
        )
    context = current()
    gone = remove_image_set(context.atlas, context.store, context.ledger, image_set)
    return {"image_set": image_set, "removed": members_of(Dependents, asdict(gone))}
