"""CSV downloads of attacks: a job's attacks, one attack's predictions by epsilon, the Robustness page's tables."""

from collections.abc import Callable
from typing import Annotated, Any

import flask
import pyarrow as pa
from msgspec import UNSET, Meta, UnsetType

from dashboard.api.answers import STATUS, NotFound, file_name, result_line
from dashboard.api.attack_answers import attack_record, steps
from dashboard.api.routing import DOWNLOAD_ERRORS, Routes, Spreadsheet
from dashboard.pages.attack_request import ask, read_page
from dashboard.pages.request.state import chosen_here
from dashboard.state.address import AttackAddress, RobustnessAddress
from dashboard.state.context import Context, Record, current
from db.atlas.store import Query
from db.queries import attacks as attack_queries
from db.queries import robustness as robustness_queries
from db.queries.jobs import job, job_items
from db.sql.formats import csv_lines
from db.stores.results import ResultGone
from db.suggestions import hint
from workers.requests.attacks import MAX_ATTACKS
from workers.requests.parameters import MAX_NUMBER, InvalidRequest

attack_downloads = Routes("attack_downloads", "/download", STATUS, any_query=True)
RowNumber = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
_ABOUT: dict[str, Any] = {
    "answers": "The file.",
    "errors": DOWNLOAD_ERRORS,
    "media": ("text/csv",),
    "text_errors": True,
}

# Fields that belong to the job rather than to an attack, and those that do not fit into a table.
_LEFT_OUT = ("parameters", "successes", "url", "png", "input_png", "signs_png", "change_npy")


class AttacksQuery(Spreadsheet):
    """A job, or an attack in addition to an address of the Attack page."""

    job: Annotated[RowNumber, Meta(description="A job of kind attack.")] | UnsetType = UNSET
    attack: Annotated[
        int, Meta(ge=0, le=MAX_NUMBER, description="An attack, whose request is used without `ids`.")
    ] = 0


@attack_downloads.get("/attacks.csv", address=AttackAddress, **_ABOUT)
def download_attacks(query: AttacksQuery) -> flask.Response:
    """A row for each attack of a job, or of a request.

    With `job`, the attacks of this job. Without it, the parameters are those of the Attack page's address, with the
    method's parameters as `p_NAME`; the attacks may come from any job. Missing attacks get a row, too.
    """
    context = current()
    if query.job is not UNSET:
        image_set, items, attacks = _of_job(context, query.job)
        lines = [line(item, attacks.get(item["position"]), image_set) for item in items]
        return _csv(query, lines, f"attacks-job-{query.job}")
    page, wanted = chosen_here(context, read_page)
    request = ask(context, wanted, most=MAX_ATTACKS)
    stored = {row["position"]: row for row in request.stored}
    items = [
        {"position": at, "model": item.model, "image_id": item.image_id, "state": "queued", "error": None}
        for at, item in enumerate(request.new.items)
    ]
    if page["job"] is not None:
        _, items, attacks = _of_job(context, page["job"])
        stored |= attacks
    elif not stored:
        raise NotFound("these attacks were not asked for yet: run them on the Attack page")
    lines = [line(item, stored.get(item["position"]), wanted.image_set) for item in items]
    return _csv(query, lines, file_name(f"attacks-{wanted.image_set}-{wanted.method}"))


def _of_job(context: Context, number: int) -> tuple[str, list[Record], dict[int, Record]]:
    """Image set, items, and attacks by position of a job."""
    found = job(context.ledger, number)
    if found["kind"] != "attack":
        raise NotFound(f"job {number} attacks nothing: it is of kind {found['kind']}")
    attacks = {row["position"]: row for row in attack_queries.job_attacks(context.ledger, number)}
    return found["image_set"], job_items(context.ledger, number), attacks


def line(item: Record, found: Record | None, image_set: str) -> Record:
    """One attack as a flat row; its parameters become `parameter_NAME` columns."""
    facts = attack_record(found) if found else None
    return result_line(item, facts, found and found["parameters"], image_set, left_out=_LEFT_OUT)


class StepsQuery(Spreadsheet, kw_only=True):
    """An attack."""

    attack: Annotated[RowNumber, Meta(description="Number of the attack.")]


@attack_downloads.get("/attack-steps.csv", **_ABOUT)
def download_attack_steps(query: StepsQuery) -> flask.Response:
    """A row for each epsilon of one attack: the model's top classes, most probable first."""
    number = query.attack
    context = current()
    found = attack_queries.attack(context.ledger, number)
    if found is None:
        raise NotFound(f"there is no attack {number}")
    known = steps(context, found)
    if known is None:
        raise ResultGone(f"the steps of attack {number} are gone: run it again")
    lines = []
    for step in known:
        top = {
            f"{part}_{rank}": one[part]
            for rank, one in enumerate(step["top"], 1)
            for part in ("class_index", "name", "probability")
        }
        lines.append(
            {
                "epsilon": step["epsilon"],
                "levels": step["epsilon"] * 255,
                "reference_class": found["class_index"],
                "reference_probability": step["reference_probability"],
                **top,
            }
        )
    return _csv(query, lines, f"attack-{number}-steps")


TABLES: dict[str, Callable[[RobustnessAddress], Query]] = {
    "curve": lambda a: robustness_queries.curve(a.images, a.protocol, image_class=a.label),
    "strip": lambda a: robustness_queries.strip(a.images, a.protocol, image_class=a.label),
    "outcomes": lambda a: robustness_queries.outcomes(a.images, a.protocol, image_class=a.label),
    "leaderboard": lambda a: robustness_queries.leaderboard(a.images, a.protocol),
    "transfer": lambda a: robustness_queries.transfers(a.images, a.protocol),
    "flips": lambda a: robustness_queries.flips(a.images, a.protocol, a.model, limit=None),
    "classes": lambda a: robustness_queries.by_class(a.images, a.protocol, a.model, order=a.sort, limit=None),
}


@attack_downloads.get("/robustness/<table>.csv", address=RobustnessAddress, **_ABOUT)
def download_robustness(
    table: Annotated[str, Meta(description="The table.", extra_json_schema={"enum": list(TABLES)})],
    query: Spreadsheet,
) -> flask.Response:
    """All rows of a table of the Robustness page, filtered by its address."""
    if table not in TABLES:
        raise NotFound(f"table: expected one of {', '.join(TABLES)}, got {table!r}{hint(table, TABLES)}")
    address, problems = RobustnessAddress.read(flask.request.query_string.decode(errors="replace"))
    if problems:
        raise InvalidRequest(next(iter(problems.values())).rstrip("."))
    found = current().both.fetch_arrow(TABLES[table](address))
    return _file(
        "".join(csv_lines(found.schema, found.to_batches(), spreadsheet=query.for_spreadsheet)),
        f"robustness-{table}",
    )


def _csv(query: Spreadsheet, lines: list[Record], name: str) -> flask.Response:
    names = list(dict.fromkeys(key for found in lines for key in found))
    table = pa.table({key: [found.get(key) for found in lines] for key in names})
    text = "".join(csv_lines(table.schema, table.to_batches(), spreadsheet=query.for_spreadsheet))
    return _file(text, name)


def _file(text: str, name: str) -> flask.Response:
    response = flask.Response(text.encode(), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    response.headers["Cache-Control"] = "no-store"
    return response
