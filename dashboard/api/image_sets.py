"""Image set routes of the HTTP API: `/api/image_sets` lists, renames, describes and deletes sets."""

from dataclasses import asdict

import flask

from dashboard.api.answers import answer, error_response, json_body, words
from dashboard.state.context import Catalogue, Record, current
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
from workers.requests.parameters import InvalidRequest, only

set_api = flask.Blueprint("set_api", __name__, url_prefix="/api/image_sets")
STATUS: dict[type[Exception], int] = {
    NoSuchSet: 404,
    WrongSetName: 400,
    SetNameTaken: 409,
    SetBusy: 409,
    StoreBusy: 409,
    AtlasError: 503,
}
for _general in (InvalidRequest, LedgerError):
    set_api.register_error_handler(_general, error_response)


def sorry_for_set(error: Exception) -> flask.Response:
    """The error's message as a JSON response."""
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    return answer({"error": " ".join(str(error).split())}, status)


for _kind in STATUS:
    set_api.register_error_handler(_kind, sorry_for_set)


@set_api.get("")
def list_sets() -> flask.Response:
    """Image sets, newest first; the models that can index one; the folders that may be imported."""
    context = current()
    catalogue = context.catalogue()
    if catalogue.trouble:
        raise AtlasError(catalogue.trouble)
    texts = descriptions(context.ledger)
    return answer(
        {
            "image_sets": [
                found
                | {
                    "description": texts.get(found["image_set"], ""),
                    "runs": [
                        run["model"] for run in catalogue.runs if run["image_set"] == found["image_set"]
                    ],
                }
                for found in catalogue.image_sets
            ],
            "models": models_to_index_with(catalogue),
            "folders": [str(root) for root in context.settings.image_roots],
        }
    )


def models_to_index_with(catalogue: Catalogue) -> list[dict[str, str]]:
    """Name and title of every model that can index a set, the smallest first."""
    indexed = [run["model"] for run in catalogue.runs]
    titles = {name: known.title for name, known in NAMED_MODELS.items()}
    names = dict.fromkeys(["efficientnet-lite0", *titles, *indexed])
    return [{"name": name, "title": titles.get(name, "indexed before")} for name in names]


@set_api.get("/<image_set>")
def show_set(image_set: str) -> flask.Response:
    """What depends on a set, and its description."""
    return answer(_record(image_set))


def _record(image_set: str) -> Record:
    context = current()
    text = descriptions(context.ledger).get(image_set, "")
    return {
        "image_set": image_set,
        "description": text,
        "dependents": asdict(dependents_of(context.atlas, context.ledger, image_set)),
    }


@set_api.post("/<image_set>")
def change_set(image_set: str) -> flask.Response:
    """Change a set's description, its name, or both."""
    body = json_body()
    only(body, "name", "description")
    context = current()
    name, text = body.get("name", image_set), body.get("description")
    if not body:
        raise InvalidRequest("body: expected a name, a description, or both, got none")
    if not isinstance(name, str):
        raise InvalidRequest(f"name: expected a text, got {name!r}")
    if text is not None:
        describe_set(context.atlas, context.ledger, image_set, description_text(text))
    if name != image_set:
        rename_set(context.atlas, context.store, context.ledger, image_set, name)
    return answer(_record(name))


def description_text(text: object) -> str:
    """A description without surrounding white space.

    Raises:
        InvalidRequest: it is not a text, is too long, or cannot be stored.
    """
    if not isinstance(text, str) or len(text) > MAX_DESCRIPTION or "\0" in text:
        raise InvalidRequest(
            f"description: expected a text of at most {MAX_DESCRIPTION:,} characters, got another"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("description: expected a text, got half of a surrogate pair") from error
    return text.strip()


@set_api.delete("/<image_set>")
def remove_set(image_set: str) -> flask.Response:
    """Delete a set and everything that depends on it; `confirm` must repeat its name."""
    if words("confirm") != image_set:
        raise InvalidRequest(
            f"confirm: expected the set's name {image_set!r} once more, got {words('confirm')!r}"
        )
    context = current()
    gone = remove_image_set(context.atlas, context.store, context.ledger, image_set)
    return answer({"image_set": image_set, "removed": asdict(gone)})
