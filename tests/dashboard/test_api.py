"""The HTTP interface: every response, checked against its OpenAPI description."""

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from ledger_rows import claimed, finish_items, picture_of, values_of
from openapi_spec_validator import validate
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance

from dashboard.api.answer_types import (
    Ablation,
    Attack,
    AttackMap,
    ImageImport,
    Item,
    Job,
    LayerShift,
    Map,
    SavedQuery,
    Transfer,
    Unit,
    members_of,
)
from dashboard.api.uploads import UploadToBegin
from dashboard.app import create_app, openapi
from dashboard.downloads.attacks import TABLES
from dashboard.downloads.tables import OVERVIEW
from dashboard.pictures import heat
from dashboard.state.address import (
    Address,
    ChannelAddress,
    ImageAddress,
    ImagesAddress,
    OverviewAddress,
    PatchesAddress,
    RobustnessAddress,
    SaliencyAddress,
)
from dashboard.state.context import EXTENSION, Context
from db.ledger import claims
from db.ledger.tables import Attack as AttackRow
from db.ledger.tables import AttackAblation, AttackLayer, AttackTransfer, AttackUnit, JobItem, SaliencyMap
from db.ledger.tables import AttackMap as AttackMapRow
from db.ledger.tables import ImageImport as ImageImportRow
from db.ledger.tables import Job as JobRow
from db.ledger.tables import SavedQuery as SavedQueryRow
from db.settings import read_settings
from workers.jobs.registry import JOB_KINDS
from workers.requests.images import parse_ids, short_ids
from workers.requests.members import read_members

OPENAPI = openapi()
REQUEST = {"kind": "saliency", "models": ["synthetic"], "images": "painted", "ids": [0, 1]}


@pytest.fixture
def client(site: tuple[FlaskClient, Context]) -> FlaskClient:
    return site[0]


@pytest.fixture
def context(site: tuple[FlaskClient, Context]) -> Context:
    return site[1]


def asked(client: FlaskClient, **changes: Any) -> Any:
    """Post a request; those of different tests differ by their seed."""
    if "seed" in changes:
        changes["parameters"] = {"seed": changes.pop("seed")} | changes.get("parameters", {})
    return client.post("/api/jobs", json=REQUEST | changes)


def finished(
    client: FlaskClient, context: Context, *, signed: bool = False, **changes: Any
) -> dict[str, Any]:
    """Post a request, finish its job as a worker would, and return the job."""
    answer = asked(client, **changes)
    job = answer.json["job"]
    if answer.json["state"] == "queued":
        claim = claimed(context.ledger, job)
        finish_items(context.settings, context.ledger, claim, signed=signed)
        claims.finish(context.ledger, claim)
    found: dict[str, Any] = client.get(f"/api/jobs/{job}").json  # type: ignore[assignment]
    return found


def test_asking_makes_a_job_and_asking_again_finds_it(client: FlaskClient) -> None:
    first = asked(client, seed=7)
    assert first.status_code == 201
    assert first.headers["Location"] == f"/api/jobs/{first.json['job']}"
    assert (first.json["state"], first.json["items"], first.json["models"]) == ("queued", 2, ["synthetic"])
    assert first.json["parameters"]["parameters"]["samples"] == 25, "defaults are filled in"
    assert "the broker is unreachable" in first.json["notice"]
    second = asked(client, seed=7, ids="0-1", parameters={"samples": 25})
    assert (second.status_code, second.json["job"]) == (200, first.json["job"])
    assert "already exists for this request" in second.json["notice"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"kind": "divination"},
            "kind: expected one of saliency, faithfulness, attack, .*, got 'divination'",
        ),
        ({"models": []}, "models: expected at least one, got none"),
        ({"models": "synthetic"}, "models: expected a list of names, got 'synthetic'"),
        ({"models": ["resnet"]}, "models: 'resnet' is not indexed; indexed models are synthetic"),
        ({"images": "nowhere"}, "images: there is no image set 'nowhere'; image sets are painted"),
        ({"images": None}, "images: expected a text, got None"),
        ({"ids": []}, "images: expected at least one image id, got none"),
        ({"ids": [12]}, "ids: painted has images 0 to 11, not 12"),
        ({"ids": [-1]}, "ids: expected a list of whole numbers"),
        ({"ids": [0.5]}, "ids: expected a list of whole numbers"),
        ({"ids": "5-3"}, "ids: expected numbers such as 0,1,4-7, got '5-3'"),
        ({"ids": "0-99999999"}, "ids: expected at most 10,000 numbers"),
        ({"method": "lime"}, "method: expected one of smoothgrad, .*, got 'lime'"),
        ({"parameters": {"samples": 0}}, "samples: expected a whole number from 1 to 1000, got 0"),
        ({"parameters": [1]}, "parameters: expected an object"),
        ({"target": "cat"}, "target: expected prediction, label or a class index, got 'cat'"),
        ({"queue": "later"}, "queue: expected one of interactive, batch, got 'later'"),
        ({"sample": 3}, "body: expected members among .*, got 'sample'"),
        ({"\ud800": 3}, r"body: expected members among .*, got '\\ud800'"),
        ({"kind": "faithfulness"}, "body: expected members among kind, maps, steps, queue, got 'ids'"),
    ],
)
def test_invalid_requests_are_refused_by_name(
    client: FlaskClient, changes: dict[str, Any], sentence: str
) -> None:
    answer = asked(client, **changes)
    assert answer.status_code == 400
    assert re.search(sentence, answer.json["error"]), answer.json


def test_only_json_is_taken_since_other_sites_cannot_send_it(client: FlaskClient) -> None:
    assert client.post("/api/jobs", data=json.dumps(REQUEST)).status_code == 415
    assert client.post("/api/jobs", data="{", content_type="application/json").status_code == 400
    assert client.post("/api/jobs", data="[1]", content_type="application/json").status_code == 400


def test_cancel_and_retry_change_the_state_and_refuse_illegal_transitions(client: FlaskClient) -> None:
    job = asked(client, seed=8).json["job"]
    assert client.post(f"/api/jobs/{job}/retry").status_code == 409
    cancelled = client.delete(f"/api/jobs/{job}")
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")  # type: ignore[index]
    assert client.delete(f"/api/jobs/{job}").status_code == 409
    again = client.post(f"/api/jobs/{job}/retry")
    assert (again.status_code, again.json["state"]) == (200, "queued")  # type: ignore[index]
    for missing in (9999, 2**40, 2**70):
        assert client.get(f"/api/jobs/{missing}").status_code == 404
        assert client.delete(f"/api/jobs/{missing}").status_code == 404
        assert client.post(f"/api/jobs/{missing}/retry").status_code == 404


def test_a_running_job_shows_how_far_it_is_and_the_maps_it_has(client: FlaskClient, context: Context) -> None:
    job = asked(client, seed=9, ids=[0, 1, 2, 3]).json["job"]
    claim = claimed(context.ledger, job)
    finish_items(context.settings, context.ledger, claim, 2)
    claims.renew(context.ledger, claim, lease=600, progress=0.5)
    found: Any = client.get(f"/api/jobs/{job}").json
    assert (found["state"], found["progress"], found["worker"]) == ("running", 0.625, "host:1")
    assert found["seconds_left"] == pytest.approx(1.5 * 1.5)
    assert [item["state"] for item in found["item_list"]] == ["done", "done", "queued", "queued"]
    assert [made["image_id"] for made in found["maps"]] == [0, 1]
    assert "file" not in found["maps"][0], "no paths of the server"


def test_jobs_are_listed_newest_first_and_filtered(client: FlaskClient) -> None:
    listed: Any = client.get("/api/jobs?state=queued&model=synthetic&images=painted&limit=2").json
    assert len(listed["jobs"]) <= 2
    assert [job["job"] for job in listed["jobs"]] == sorted(
        (job["job"] for job in listed["jobs"]), reverse=True
    )
    assert listed["total"] >= len(listed["jobs"])
    assert client.get("/api/jobs?model=nobody").json == {"jobs": [], "total": 0}
    for wrong in ("state=lost", "limit=0", "limit=many", "offset=-1", "model=%00", "kind=x"):
        answer = client.get(f"/api/jobs?{wrong}")
        assert answer.status_code == 400
        assert wrong.split("=")[0] in answer.json["error"]  # type: ignore[index]


def test_a_maps_numbers_are_those_that_were_computed(client: FlaskClient, context: Context) -> None:
    made = finished(client, context, seed=10)["maps"][1]
    answer = client.get(made["npy"])
    assert np.array_equal(np.load(io.BytesIO(answer.data)), values_of(1, signed=False))
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    errors = np.load(io.BytesIO(client.get(made["standard_error_npy"]).data))
    assert np.allclose(errors, values_of(1, signed=False) / 10)
    assert client.get(made["url"]).json["samples"] == 25  # type: ignore[index]
    again = client.get(made["npy"], headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_image_is_its_values_through_the_color_map(
    client: FlaskClient, context: Context, signed: bool
) -> None:
    made = finished(client, context, seed=11 + signed, signed=signed)["maps"][0]
    values = values_of(0, signed=signed)
    for query, colours, strength, high in [
        ("", "rdbu" if signed else "inferno", 1.0, None),
        ("?colours=viridis&clip=90", "viridis", 1.0, np.percentile(np.abs(values), 90)),
        ("?strength=0.4&high=0.5", "rdbu" if signed else "inferno", 0.4, 0.5),
    ]:
        shown = np.asarray(Image.open(io.BytesIO(client.get(made["png"] + query).data)))
        top = float(np.percentile(np.abs(values), 99.5)) if high is None else float(high)
        share = np.clip((values / top + 1) / 2 if colours == "rdbu" else np.abs(values) / top, 0, 1)
        expected = np.array(heat.COLOUR_MAPS[colours])[np.round(share * 255).astype(int)]
        expected = picture_of(0) * (1 - strength) + expected * strength
        assert np.abs(shown.astype(int) - expected).max() <= 4, "a step of the color map at most"
        assert np.abs(shown.astype(int) - expected).mean() < 0.6


def test_the_model_input_is_served(client: FlaskClient, context: Context) -> None:
    made = finished(client, context, seed=13)["maps"][0]
    shown = np.asarray(Image.open(io.BytesIO(client.get(made["input_png"]).data)))
    assert np.array_equal(shown, picture_of(0))


def test_a_map_with_a_missing_file_is_recomputed_on_request(client: FlaskClient, context: Context) -> None:
    done = finished(client, context, seed=14)
    for file in (context.settings.home / "results").rglob("*.npy"):
        file.unlink()
    answer = client.get(done["maps"][0]["npy"])
    assert answer.status_code == 410
    assert "is gone: compute it again" in answer.json["error"]  # type: ignore[index]
    again = asked(client, seed=14)
    assert (again.status_code, again.json["job"], again.json["state"]) == (201, done["job"], "queued")


@pytest.mark.parametrize("wrong", ["colours=jet", "clip=10", "clip=nan", "strength=2", "high=-1", "high=inf"])
def test_invalid_map_images_are_refused_by_name(client: FlaskClient, context: Context, wrong: str) -> None:
    made = finished(client, context, seed=15)["maps"][0]
    answer = client.get(f"{made['png']}?{wrong}")
    assert answer.status_code == 400
    assert wrong.split("=")[0] in answer.json["error"]  # type: ignore[index]


def test_a_map_that_is_not_there_is_not_found(client: FlaskClient) -> None:
    for path in ("/api/maps/9999", "/api/maps/9999.npy", "/api/maps/9999.png", "/api/maps/9999/input.png",
                 f"/api/maps/{2**70}"):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json["error"].startswith("there is no map")  # type: ignore[index]


def test_curves_are_requested_by_map_numbers(client: FlaskClient, context: Context) -> None:
    job = finished(client, context, seed=16)
    maps = [made["map"] for made in job["maps"]]
    answer = client.post("/api/jobs", json={"kind": "faithfulness", "maps": maps})
    assert answer.status_code == 201
    assert answer.json["items"] == 2  # type: ignore[index]
    assert answer.json["page"] == job["page"], "the page of the maps shows their curves"  # type: ignore[index]
    other = finished(client, context, seed=17)["maps"][0]["map"]
    mixed = client.post("/api/jobs", json={"kind": "faithfulness", "maps": [*maps, other]})
    assert mixed.json["page"] is None, "no one page shows maps of two requests"  # type: ignore[index]
    for body, sentence in [
        ({"maps": [99999]}, "there is no map 99999"),
        ({"maps": []}, "expected from 1 to 10,000 maps"),
        ({"maps": maps, "steps": 1}, "steps: expected a whole number from 2 to 224, got 1"),
        ({"maps": [2**40]}, "maps: expected a list of whole numbers"),
    ]:
        refused = client.post("/api/jobs", json={"kind": "faithfulness"} | body)
        assert refused.status_code == 400
        assert sentence in refused.json["error"]  # type: ignore[index]


def test_an_unreachable_ledger_is_reported(tmp_path: Path) -> None:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path / "home")})
    app = create_app(settings)
    app.server.extensions[EXTENSION].ledger.close()
    for file in settings.home.glob("ledger.sqlite*"):
        file.unlink()
    (settings.home / "ledger.sqlite").mkdir()
    answer = app.server.test_client().get("/api/jobs")
    assert answer.status_code == 503
    assert "ledger.sqlite cannot be opened" in answer.json["error"]  # type: ignore[index]


def test_the_description_is_valid_and_names_just_the_routes_there_are(
    site: tuple[FlaskClient, Context],
) -> None:
    validate(OPENAPI)
    assert site[0].get("/api/openapi.json").json == OPENAPI
    described = {(path, method) for path, methods in OPENAPI["paths"].items() for method in methods}
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(rule)), method.lower())
        for rule in site[0].application.url_map.iter_rules()
        if str(rule).startswith(("/api", "/download"))
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == routes


OPERATIONS_IN_CLIENTS = """
    openapi submit list_jobs show_job cancel retry show_map map_array map_picture map_input show_attack
    attacked_picture attack_input attack_signs attack_change attack_map run_sql sql_tables sql_functions
    list_queries keep_query remove_query begin_upload show_upload abandon show_file receive add_labels
    import_upload list_sets show_set change_set remove_set download_patches download_channel
    download_channel_classes download_channel_histogram download_channel_gratings download_channel_hues
    download_images download_image_channels download_image_predictions download_overview
    download_robustness download_attacks download_attack_steps download_saliency draw_saliency
    download_sql
"""
COMPONENTS_IN_CLIENTS = """
    AblationRequest Attack AttackMap AttackRequest ComparisonRequest Dependents Error
    FaithfulnessRequest ImageImport ImageSet ImportRequest IndexRequest Item Job JobRequest Map
    QueryToSave SQLResult SQLTable SaliencyRequest SavedQuery Submitted TransferRequest Upload
    UploadToBegin WholeAttack WholeImageSet WholeJob
"""


def test_the_names_that_generated_clients_use_stay() -> None:
    operations = [one["operationId"] for methods in OPENAPI["paths"].values() for one in methods.values()]
    assert sorted(operations) == sorted(OPERATIONS_IN_CLIENTS.split())
    assert sorted(OPENAPI["components"]["schemas"]) == sorted(COMPONENTS_IN_CLIENTS.split())


def test_every_example_of_a_body_is_valid() -> None:
    """Each kind of job shows an example of its request."""
    (content,) = OPENAPI["paths"]["/api/jobs"]["post"]["requestBody"]["content"].values()
    examples = {name: one["value"] for name, one in content["examples"].items()}
    assert list(examples) == list(JOB_KINDS)
    for name, example in examples.items():
        read_members(example, JOB_KINDS[name].request, also=("kind",))
    assert read_members({"files": [{"name": "photos.zip", "size": 123456}]}, UploadToBegin)


# Columns that no answer shows: files on the server, and keys of contents.
NOT_SHOWN: dict[type, tuple[Any, set[str]]] = {
    Map: (
        SaliencyMap,
        {"key", "question", "file", "standard_error_file", "input_file", "model_digest", "image_key"},
    ),
    Attack: (
        AttackRow,
        {
            "key", "question", "model_digest", "image_key", "file", "input_file", "change_file", "steps_file",
        },
    ),
    AttackMap: (AttackMapRow, {"file", "difference_file", "standard_error_file", "request"}),
    Transfer: (AttackTransfer, {"judge_digest", "job", "attack"}),
    Ablation: (AttackAblation, {"job", "attack"}),
    Unit: (AttackUnit, {"attack"}),
    LayerShift: (AttackLayer, {"attack", "position"}),
    ImageImport: (ImageImportRow, set()),
    Item: (JobItem, {"item", "job", "image_key", "subject", "finished"}),
    Job: (JobRow, {"key", "question", "claim", "lease_until", "not_before", "sent"}),
    SavedQuery: (SavedQueryRow, set()),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_SHOWN)
def test_an_answer_has_every_column_but_files_and_keys(kind: type) -> None:
    table, left_out = NOT_SHOWN[kind]
    columns = {column.name for column in table.__table__.columns}
    assert left_out <= columns
    assert columns - left_out == columns & kind.__annotations__.keys()


def test_a_row_becomes_the_members_of_its_type() -> None:
    row = {"query": 1, "name": "a", "description": "", "sql": "b", "created": 0, "changed": 0, "secret": 2}
    assert members_of(SavedQuery, row, {"name": "c"}) == {
        "query": 1, "name": "c", "description": "", "sql": "b", "created": 0, "changed": 0,
    }  # fmt: skip
    with pytest.raises(KeyError, match="changed"):
        members_of(SavedQuery, {name: value for name, value in row.items() if name != "changed"})


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (
            "/api/jobs?ofset=1",
            "query: expected parameters among state, kind, model, images, limit, offset, got 'ofset'",
        ),
        ("/api/jobs/1?step=3", "query: expected parameters among limit, offset, steps, got 'step'"),
        ("/api/queries?limit=3", "query: expected no parameters, got 'limit'"),
        (
            "/api/jobs?kind=salience",
            "kind: expected one of saliency, .*, got 'salience'; did you mean 'saliency'\\?",
        ),
        ("/api/sql", "q: expected an SQL statement, got none"),
        ("/download/saliency.png?view=maps", "view: expected one of overlay, map, error, got 'maps'.*"),
        ("/download/images.csv?spreadsheet=yes", "spreadsheet: expected one of 0, 1, got 'yes'"),
        ("/download/attack-steps.csv", "attack: expected a whole number from 1 to 2147483647, got none"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_name(
    client: FlaskClient, address: str, sentence: str
) -> None:
    answer = client.get(address)
    assert answer.status_code == 400
    assert re.fullmatch(sentence, answer.json["error"]), answer.json  # type: ignore[index]


DOWNLOADS: dict[str, type[Address]] = {
    "patches": PatchesAddress,
    "channel": ChannelAddress,
    "channel-classes": ChannelAddress,
    "channel-histogram": ChannelAddress,
    "channel-gratings": ChannelAddress,
    "channel-hues": ChannelAddress,
    "images": ImagesAddress,
    "image-channels": ImageAddress,
    "image-predictions": ImageAddress,
    "overview/{table}": OverviewAddress,
    "robustness/{table}": RobustnessAddress,
    "saliency": SaliencyAddress,
}


def test_every_download_accepts_its_page_address() -> None:
    """Each CSV can escape formulas on request, and takes the parameters of its page."""
    for path, methods in OPENAPI["paths"].items():
        if not path.startswith("/download"):
            continue
        named = {one["name"]: one["schema"] for one in methods["get"]["parameters"] if one["in"] == "query"}
        assert ("spreadsheet" in named) == path.endswith((".csv", ".{form}")), path
        name, _, kind = path.removeprefix("/download/").rpartition(".")
        if name not in DOWNLOADS:
            assert name in ("attacks", "attack-steps", "sql")
            continue
        fields = {item.name: item for item in dataclasses.fields(DOWNLOADS[name])}
        assert set(fields) <= set(named), path
        assert set(named) - set(fields) <= {
            "spreadsheet",
            "job",
            "view",
            "strength",
            "colours",
            "scale",
            "clip",
        }
        for field, item in fields.items():
            assert named[field].get("enum", []) == list(item.metadata.get("choices", ())), (path, field)
        assert kind in ("csv", "png")
    for page, tables in (("overview", OVERVIEW), ("robustness", TABLES)):
        (table, *_) = OPENAPI["paths"][f"/download/{page}/{{table}}.csv"]["get"]["parameters"]
        assert table["schema"]["enum"] == list(tables)


# Downloads read page URLs, in which no choice is an error.
OPERATIONS = [
    (path, method)
    for path, methods in OPENAPI["paths"].items()
    for method in methods
    if path.startswith("/api")
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_one_that_the_description_knows(
    site: tuple[FlaskClient, Context], path: str, method: str
) -> None:
    """Whatever is sent, only documented responses with documented bodies come back, and never a 500."""
    client, context = site
    finished(client, context, seed=20)
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", client.application)

    @hypothesis_settings(
        max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(case=schema[path][method.upper()].as_strategy())
    def check(case: Any) -> None:
        # the description cannot state which models and images exist
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()


@pytest.mark.parametrize("ids", [[0], [0, 1, 2], [3, 1, 2, 7], [0, 2, 4], [9, 8]])
def test_short_numbers_are_read_back(ids: list[int]) -> None:
    assert parse_ids(short_ids(ids)) == ids


@pytest.mark.parametrize(
    "path",
    [
        "/api/jobs", "/api/queries", "/api/uploads", "/api/image_sets/painted", "/api/uploads/x/labels",
        "/api/uploads/x/import",
    ],
)  # fmt: skip
def test_a_body_that_another_site_could_send_is_refused(client: FlaskClient, path: str) -> None:
    found = client.post(path, data="{}")
    assert (found.status_code, found.json) == (415, {"error": "expected a body of type application/json"})
