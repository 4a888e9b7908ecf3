"""The kinds of jobs, in the order in which lists show them."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from db.ledger.jobs import NewJob
from db.suggestions import hint
from workers.jobs.kind import JobKind, Stores
from workers.requests.parameters import InvalidRequest

# One line per kind: its module in `workers.jobs.kinds`.
_MODULES = (
    "saliency",
    "faithfulness",
    "attack",
    "comparison",
    "transfer",
    "ablation",
    "image_import",
    "index",
)
_FOUND: tuple[JobKind, ...] = tuple(import_module(f"workers.jobs.kinds.{name}").KIND for name in _MODULES)
JOB_KINDS: dict[str, JobKind] = {kind.name: kind for kind in _FOUND}


def read_request(body: Mapping[str, Any], stores: Stores) -> NewJob:
    """The job that a request body asks for, by its member `kind`.

    Raises:
        InvalidRequest: unknown kind, or something else in it is invalid.
    """
    name = body.get("kind")
    if not isinstance(name, str) or name not in JOB_KINDS:
        raise InvalidRequest(
            f"kind: expected one of {', '.join(JOB_KINDS)}, got {name!r}{hint(name, JOB_KINDS)}"
        )
    return JOB_KINDS[name].read(body, stores)
