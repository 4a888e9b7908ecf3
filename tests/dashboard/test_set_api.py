"""Image sets over HTTP: described, renamed and removed, in both stores and with all that depends on them."""

import contextlib
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from ledger_rows import add_attack, claimed, finish_items
from sqlalchemy import func, select, update
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.app import create_app
from dashboard.state.context import EXTENSION, Context
from db.atlas.store import Atlas, Query
from db.ledger import claims, jobs
from db.ledger.saved_queries import save_query
from db.ledger.set_states import SetChanged, set_changes_of
from db.ledger.tables import Attack, ImageSetNote, Job, JobItem, SaliencyMap
from db.settings import Settings
from workers.requests.models import choose_models
from workers.requests.parameters import InvalidRequest
from workers.requests.saliency import faithfulness_job, saliency_job

REQUEST = {"kind": "saliency", "models": ["synthetic"], "images": "painted", "ids": [0, 1]}


@pytest.fixture
def opened(settings: Settings) -> tuple[FlaskClient, Context]:
    import_pictures(settings, painted_pictures(12), image_set="painted")
    import_pictures(settings, painted_pictures(4), image_set="other")
    add_run(settings, image_set="painted")
    app = create_app(settings)
    return app.server.test_client(), app.server.extensions[EXTENSION]


@pytest.fixture
def client(opened: tuple[FlaskClient, Context]) -> FlaskClient:
    return opened[0]


@pytest.fixture
def context(opened: tuple[FlaskClient, Context]) -> Context:
    return opened[1]


def with_results(client: FlaskClient, context: Context) -> int:
    """A finished job with two maps and an attack."""
    job: int = client.post("/api/jobs", json=REQUEST).json["job"]  # type: ignore[index]
    claim = claimed(context.ledger, job)
    finish_items(context.settings, context.ledger, claim)
    claims.finish(context.ledger, claim)
    with context.ledger.write() as connection:
        add_attack(connection, job)
    save_query(
        context.ledger, name="mine", description="", sql="SELECT 1 WHERE 'painted' = ''", replace=False
    )
    return job


def counted(context: Context, image_set: str) -> list[int]:
    with context.ledger.read() as connection:
        return [
            connection.execute(
                select(func.count()).select_from(table).where(table.image_set == image_set)
            ).scalar_one()
            for table in (Job, SaliencyMap, Attack, ImageSetNote)
        ]


def post(client: FlaskClient, image_set: str, /, **body: Any) -> Any:
    return client.post(f"/api/image_sets/{image_set}", json=body)


def test_sets_are_listed_with_runs_and_available_models(client: FlaskClient) -> None:
    post(client, "painted", description="  Painted by hand.  ")
    told: Any = client.get("/api/image_sets").json
    found = {one["image_set"]: one for one in told["image_sets"]}
    assert (found["painted"]["images"], found["painted"]["runs"]) == (12, ["synthetic"])
    assert (found["painted"]["description"], found["other"]["description"]) == ("Painted by hand.", "")
    assert told["models"][0]["name"] == "efficientnet-lite0"
    assert "synthetic" in [one["name"] for one in told["models"]]
    assert told["folders"] == []


def test_dependents_of_a_set_are_listed(client: FlaskClient, context: Context) -> None:
    with_results(client, context)
    told: Any = client.get("/api/image_sets/painted").json
    found = told["dependents"]
    assert found["patches"] > 0
    assert {name: found[name] for name in ("images", "runs", "maps", "attacks", "jobs", "unfinished", "queries")} == {
        "images": 12, "runs": ["synthetic"], "maps": 2, "attacks": 1, "jobs": 1, "unfinished": 0, "queries": ["mine"],
    }  # fmt: skip
    missing = client.get("/api/image_sets/none")
    assert (missing.status_code, missing.json) == (
        404,
        {"error": "there is no image set 'none'; image sets are other, painted"},
    )


def test_a_new_name_reaches_the_atlas_and_all_rows_of_the_ledger(
    client: FlaskClient, context: Context
) -> None:
    job = with_results(client, context)
    post(client, "painted", description="Painted.")
    answer = post(client, "painted", name="renamed")
    assert answer.status_code == 200, answer.json
    assert (answer.json["image_set"], answer.json["description"]) == ("renamed", "Painted.")
    assert (answer.json["dependents"]["maps"], answer.json["dependents"]["runs"]) == (2, ["synthetic"])
    assert counted(context, "painted") == [0, 0, 0, 0]
    assert counted(context, "renamed") == [1, 2, 1, 1]
    shown: Any = client.get(f"/api/jobs/{job}").json
    assert (shown["image_set"], shown["parameters"]["image_set"]) == ("renamed", "renamed")
    assert client.get("/images?images=renamed&model=synthetic").status_code == 200
    asked: Any = client.post("/api/jobs", json=REQUEST | {"images": "renamed"}).json
    assert (asked["job"], asked["state"]) == (job, "done"), "a request of the new name is the same request"
    assert client.get("/api/image_sets/painted").status_code == 404


@pytest.mark.parametrize(
    ("name", "body", "status", "sentence"),
    [
        ("painted", {"name": "other"}, 409, "an image set named 'other' already"),
        ("painted", {"name": "My Set"}, 400, "name: expected a name of at most 100 lowercase letters"),
        ("painted", {"name": 3}, 400, "name: expected a text, got 3"),
        ("painted", {"description": "x" * 10_001}, 400, "description: expected a string of at most 10,000"),
        (
            "painted",
            {"description": "\ud800"},
            400,
            "description: expected a string of at most 10,000 characters, got",
        ),
        ("painted", {}, 400, "expected a name, a description, or both"),
        ("painted", {"nmae": "x"}, 400, "body: expected members among name, description, got 'nmae'"),
        ("none", {"name": "x"}, 404, "there is no image set 'none'"),
        ("none", {"description": "x"}, 404, "there is no image set 'none'"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_changes_nothing(
    name: str, body: dict[str, Any], status: int, sentence: str, client: FlaskClient, context: Context
) -> None:
    before = context.atlas.version()
    answer = post(client, name, **body)
    assert answer.status_code == status
    assert sentence in answer.json["error"]
    assert context.atlas.version() == before


def test_a_set_with_unfinished_jobs_is_neither_renamed_nor_removed(
    client: FlaskClient, context: Context
) -> None:
    job = client.post("/api/jobs", json=REQUEST).json["job"]  # type: ignore[index]
    for answer in (
        post(client, "painted", name="new"),
        client.delete("/api/image_sets/painted?confirm=painted"),
    ):
        assert answer.status_code == 409
        assert answer.json["error"] == f"job {job} on 'painted' have not ended yet: wait, or cancel them"
    client.delete(f"/api/jobs/{job}")
    with context.store.adding():
        busy = client.delete("/api/image_sets/painted?confirm=painted")
    assert busy.status_code == 409
    assert "images are being imported or removed" in busy.json["error"]  # type: ignore[index]
    assert post(client, "painted", name="new").status_code == 200


def test_a_publication_that_fails_leaves_the_old_name_in_both_stores(
    client: FlaskClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_results(client, context)
    monkeypatch.setattr("db.atlas.store._INVARIANTS", {"never": "SELECT 1"})
    answer = post(client, "painted", name="new")
    assert answer.status_code == 503
    assert counted(context, "painted")[:3] == [1, 2, 1]
    assert counted(context, "new") == [0, 0, 0, 0]


def test_a_set_goes_with_all_that_depends_on_it_and_nothing_else(
    client: FlaskClient, context: Context
) -> None:
    with_results(client, context)
    other: Any = client.post("/api/image_sets/other", json={"description": "stays"})
    assert other.status_code == 200
    results = context.settings.home / "results"
    assert [path for path in results.rglob("*") if path.is_file()]
    unsure = client.delete("/api/image_sets/painted?confirm=paint")
    assert unsure.status_code == 400
    assert "expected the set's name 'painted' once more, got 'paint'" in unsure.json["error"]  # type: ignore[index]
    gone: Any = client.delete("/api/image_sets/painted?confirm=painted").json
    assert (gone["removed"]["maps"], gone["removed"]["images"]) == (2, 12)
    assert counted(context, "painted") == [0, 0, 0, 0]
    with context.ledger.read() as connection:
        assert connection.execute(select(func.count()).select_from(JobItem)).scalar_one() == 0
    assert [path for path in results.rglob("*") if path.is_file()] == []
    told: Any = client.get("/api/image_sets").json
    assert [one["image_set"] for one in told["image_sets"]] == ["other"]
    assert client.get("/api/image_sets/other").json["description"] == "stays"  # type: ignore[index]
    assert client.delete("/api/image_sets/painted?confirm=painted").status_code == 404


def test_files_that_another_set_s_map_shares_stay(client: FlaskClient, context: Context) -> None:
    with_results(client, context)
    with context.ledger.write() as connection:
        row = connection.execute(select(SaliencyMap.__table__).where(SaliencyMap.map == 1)).mappings().one()
    asked: Any = client.post("/api/jobs", json=REQUEST | {"images": "other", "ids": [3]}).json
    with context.ledger.write() as connection:
        own = dict(row) | {"map": 9, "key": "9", "job": asked["job"], "image_set": "other", "image_id": 3}
        connection.execute(SaliencyMap.__table__.insert().values(own))
    assert client.delete("/api/image_sets/painted?confirm=painted").status_code == 200
    kept: Any = client.get("/api/maps/9").json
    assert (kept["image_set"], kept["image_id"]) == ("other", 3)
    assert client.get("/api/maps/9.npy").status_code == 200
    assert client.get("/api/maps/1").status_code == 404


def built(context: Context, image_set: str = "painted") -> jobs.NewJob:
    return saliency_job(
        context.atlas,
        models=choose_models(context.atlas, ["synthetic"]),
        image_set=image_set,
        image_ids=[0],
        method="gradient",
        parameters={},
    )


def test_no_job_is_created_for_a_set_changed_since_it_was_read(client: FlaskClient, context: Context) -> None:
    new = built(context)
    before = set_changes_of(context.ledger, "painted")
    assert post(client, "painted", name="renamed").status_code == 200
    with pytest.raises(InvalidRequest, match="there is no image set 'painted'"):
        context.submitter.submit(new)
    # a client that read the atlas before the change and reaches the ledger after it
    with pytest.raises(
        SetChanged, match="'painted' was renamed or removed in the meantime: submit the request again"
    ):
        jobs.submit_job(context.ledger, new, set_changes=before)
    assert counted(context, "painted")[0] == 0
    assert context.submitter.submit(built(context, "renamed")).queued


@pytest.mark.parametrize("change", ["rename", "remove"])
def test_no_job_is_created_while_a_set_is_renamed_or_removed(
    change: str, client: FlaskClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = with_results(client, context)
    with context.ledger.write() as connection:
        connection.execute(update(Job).where(Job.job == job).values(state="failed"))
    said: list[str] = []
    publish = Atlas.publish

    @contextlib.contextmanager
    def slowly(atlas: Atlas, **options: Any) -> Any:
        with publish(atlas, **options) as connection:
            said.append(client.post("/api/jobs", json=REQUEST).json["error"])  # type: ignore[index]
            said.append(client.post(f"/api/jobs/{job}/retry").json["error"])  # type: ignore[index]
            yield connection

    monkeypatch.setattr(Atlas, "publish", slowly)
    if change == "rename":
        assert post(client, "painted", name="new").status_code == 200
    else:
        assert client.delete("/api/image_sets/painted?confirm=painted").status_code == 200
    assert "'painted' is being renamed or removed" in said[0]
    assert "being renamed or removed" in said[1] if change == "rename" else "there is no job" in said[1]
    assert counted(context, "painted")[0] == 0


def test_requests_about_removed_results_are_refused(client: FlaskClient, context: Context) -> None:
    with_results(client, context)
    new = faithfulness_job(context.ledger, [1])
    with context.ledger.write() as connection:
        connection.execute(SaliencyMap.__table__.delete().where(SaliencyMap.map == 1))
    with pytest.raises(InvalidRequest, match="map 1 was removed in the meantime"):
        context.submitter.submit(new)


def test_a_removal_takes_builds_along_and_the_atlas_shrinks(client: FlaskClient, context: Context) -> None:
    builds = context.settings.home / "builds"
    for name in ("painted", "other"):
        (builds / name).mkdir(parents=True)
        (builds / name / "facts.json").write_text(json.dumps({"image set": name, "model": "m"}))
        (builds / name / "state.safetensors").write_bytes(b"x")
    with context.atlas.publish() as connection:  # as many rows as a real run leaves
        connection.execute(
            "INSERT INTO predictions SELECT r.run, i, 1, 1, random(), random(), false "
            "FROM runs r, range(200000) t(i) WHERE image_set = 'painted'"
        )
    size = context.atlas.path().stat().st_size
    before = context.atlas.fetch(Query("SELECT * FROM images WHERE image_set = 'other' ORDER BY image_id"))
    assert client.delete("/api/image_sets/painted?confirm=painted").status_code == 200
    assert context.atlas.path().stat().st_size < size / 2
    assert [path.name for path in builds.iterdir()] == ["other"]
    assert context.atlas.fetch(Query("SELECT * FROM images ORDER BY image_id")) == before
    comment = "SELECT comment FROM duckdb_tables() WHERE table_name = 'image_sets'"
    assert context.atlas.fetch(Query(comment)) == [{"comment": "Imported image sets."}]


def test_a_removal_that_died_between_the_stores_is_made_whole_by_asking_again(
    client: FlaskClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_results(client, context)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("db.queries.set_changes.remove_images", dies)
        patch.setattr("db.queries.set_changes.end_change", dies)  # killed: nothing after this point runs
        with pytest.raises(KeyboardInterrupt):
            client.delete("/api/image_sets/painted?confirm=painted")
    assert counted(context, "painted") == [0, 0, 0, 0]
    refused: Any = client.post("/api/jobs", json=REQUEST)
    assert refused.status_code == 400
    assert "repeat that step if it was interrupted" in refused.json["error"]
    assert client.delete("/api/image_sets/painted?confirm=painted").status_code == 200
    assert counted(context, "painted") == [0, 0, 0, 0]
