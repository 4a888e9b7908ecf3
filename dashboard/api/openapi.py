"""The OpenAPI document: `openapi.json` in this folder plus the job requests, generated from the job kinds."""

import functools
import json
from pathlib import Path
from typing import Any

import msgspec

from workers.jobs.registry import JOB_KINDS


@functools.cache
def document() -> dict[str, Any]:
    """The whole document; callers must not modify it."""
    found: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    kinds = JOB_KINDS.values()
    references, schemas = msgspec.json.schema_components(
        [kind.request for kind in kinds], ref_template="#/components/schemas/{name}"
    )
    for kind in kinds:
        schema = schemas[kind.request.__name__]
        schema["properties"] = {"kind": {"const": kind.name}} | schema["properties"]
        schema["required"] = ["kind", *schema.get("required", ())]
    known = found["components"]["schemas"]
    known |= schemas
    known["JobRequest"] = {"oneOf": list(references)}
    names = list(JOB_KINDS)
    known["Job"]["properties"]["kind"]["enum"] = names
    for parameter in found["paths"]["/api/jobs"]["get"]["parameters"]:
        if parameter.get("name") == "kind":
            parameter["schema"]["enum"] = ["", *names]
    return found
