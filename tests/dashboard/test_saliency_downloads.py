"""The figure and the CSV of the Saliency page."""

import csv
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import numpy as np
import pytest
from flask.testing import FlaskClient
from ledger_rows import claimed, finish_items, picture_of, values_of
from PIL import Image
from sqlalchemy import update
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.app import create_app
from dashboard.downloads.saliency import Asked, View, caption, map_lines, samples_words, shared_ends
from dashboard.pages import saliency_request
from dashboard.pages.request.frame import read_with_jobs
from dashboard.pictures import figure, heat
from dashboard.state.context import EXTENSION, Context, current
from db.atlas.store import Query
from db.ledger import claims, jobs
from db.ledger.jobs import NewJob
from db.ledger.tables import SaliencyMap
from db.queries import jobs as job_queries
from db.queries.jobs import job_maps
from db.queries.labels import keep_choices
from db.settings import Settings, read_settings
from workers.requests.attacks import attack_job
from workers.requests.images import label_classes, parse_ids
from workers.requests.models import choose_models
from workers.requests.saliency import saliency_job

WHAT = "model=synthetic&images=painted&ids=0,3,5"
PAPER = (255, 255, 255)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with a run over 8 images, and an empty ledger."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("maps"))})
    import_pictures(settings, painted_pictures(8), image_set="painted")
    add_run(settings, image_set="painted")
    return settings


@pytest.fixture
def context(home: Settings) -> Iterator[Context]:
    """The context of a dashboard over that home; the ledger is emptied afterwards."""
    app = create_app(home)
    with app.server.test_request_context():
        found: Context = app.server.extensions[EXTENSION]
        yield found
    found.ledger.close()
    for file in Path(home.home).glob("ledger*"):
        file.unlink()


@pytest.fixture
def client(context: Context) -> FlaskClient:
    """A client for its routes."""
    del context
    return flask.current_app.test_client()


def ask(context: Context, method: str = "smoothgrad", target: Any = "prediction", **parameters: Any) -> int:
    """Queue the job that the URL parameters in WHAT describe, and return its number."""
    atlas = context.atlas
    new: NewJob = saliency_job(
        atlas, models=choose_models(atlas, ["synthetic"]), image_set="painted", image_ids=parse_ids("0,3,5"),
        method=method, parameters=parameters, target=target,
    )  # fmt: skip
    job, _ = jobs.submit_job(context.ledger, new)
    return job


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def cell_of(pixels: np.ndarray, row: int, column: int, *, lines: int) -> np.ndarray:
    """Return the pixels of a cell of the figure."""
    row_height = figure.CELL + 4 + lines * figure.LINE + figure.GAP
    top = figure.MARGIN + figure.LINE + 10 + row * row_height
    left = figure.MARGIN + column * (figure.CELL + figure.GAP)
    return pixels[top : top + figure.CELL, left : left + figure.CELL]


def test_each_cell_of_the_figure_equals_the_map_image(context: Context, client: FlaskClient) -> None:
    job = ask(context)
    finish_items(context.settings, context.ledger, claimed(context.ledger, job))
    answer = client.get(f"/download/saliency.png?{WHAT}&colours=magma&clip=97&strength=0.4")
    assert answer.mimetype == "image/png"
    assert "saliency-painted-smoothgrad.png" in answer.headers["Content-Disposition"]
    found = pixels_of(answer.data)
    for row, image in enumerate((0, 3, 5)):
        alone = client.get(f"/api/maps/{row + 1}.png?colours=magma&clip=97&strength=0.4")
        assert (cell_of(found, row, 1, lines=2) == pixels_of(alone.data)).all()
        assert (cell_of(found, row, 0, lines=2) == picture_of(image)).all()


def test_one_scale_ends_where_the_strongest_map_ends(context: Context, client: FlaskClient) -> None:
    job = ask(context)
    finish_items(context.settings, context.ledger, claimed(context.ledger, job))
    high = max(heat.highest(values_of(image, signed=False), 99.5) for image in (0, 3, 5))
    found = pixels_of(client.get(f"/download/saliency.png?{WHAT}&scale=all&view=map").data)
    for row, image in enumerate((0, 3, 5)):
        expected = heat.colourise(values_of(image, signed=False), colours="inferno", high=high)
        assert (cell_of(found, row, 1, lines=2) == expected).all()


def test_a_model_s_scale_ends_where_its_strongest_map_ends() -> None:
    own, models = {0: 1.0, 1: 5.0, 2: 3.0}, {0: "a", 1: "b", 2: "a"}
    assert shared_ends(own, models, "own") == own
    assert shared_ends(own, models, "model") == {0: 3.0, 1: 5.0, 2: 3.0}
    assert shared_ends(own, models, "all") == {0: 5.0, 1: 5.0, 2: 5.0}


def test_a_job_s_number_and_its_request_name_the_same_figure(context: Context, client: FlaskClient) -> None:
    job = ask(context)
    finish_items(context.settings, context.ledger, claimed(context.ledger, job))
    for kind in ("png", "csv"):
        by_number = client.get(f"/download/saliency.{kind}?job={job}")
        assert by_number.status_code == 200
        assert by_number.data == client.get(f"/download/saliency.{kind}?{WHAT}").data
    assert client.get("/download/saliency.png?job=77").status_code == 404
    assert client.get("/download/saliency.png?job=x").status_code == 400
    assert client.get("/download/saliency.png?job=99999999999").status_code == 400


def test_maps_with_a_sign_are_diverging_and_their_errors_are_not(
    context: Context, client: FlaskClient
) -> None:
    job = ask(context)
    finish_items(context.settings, context.ledger, claimed(context.ledger, job), signed=True)
    values = values_of(3, signed=True)
    found = pixels_of(client.get(f"/download/saliency.png?{WHAT}&view=map").data)
    expected = heat.colourise(values, colours="rdbu", high=heat.highest(values, 99.5))
    assert (cell_of(found, 1, 1, lines=2) == expected).all()
    found = pixels_of(client.get(f"/download/saliency.png?{WHAT}&view=error").data)
    errors = values / 10
    expected = heat.colourise(errors, colours="inferno", high=heat.highest(errors, 99.5))
    assert (cell_of(found, 1, 1, lines=2) == expected).all()


def test_missing_maps_are_marked_in_their_cells(context: Context, client: FlaskClient) -> None:
    job = ask(context)
    claim = claimed(context.ledger, job)
    finish_items(context.settings, context.ledger, claim, 1)
    failing = claims.open_items(context.ledger, claim)[0]
    claims.fail_item(context.ledger, claim, failing["item"], seconds=0.1, error="=image 3 is too dark")
    found = pixels_of(client.get(f"/download/saliency.png?{WHAT}").data)
    failed, waiting = (cell_of(found, row, 1, lines=2) for row in (1, 2))
    assert (failed != waiting).any()
    assert {tuple(corner) for corner in (failed[0, 0], waiting[0, 0])} == {(0xEC, 0xEE, 0xF0)}
    lines = list(csv.DictReader(io.StringIO(client.get(f"/download/saliency.csv?{WHAT}").text)))
    assert [(line["image_id"], line["state"]) for line in lines] == [
        ("0", "done"),
        ("3", "failed"),
        ("5", "queued"),
    ]
    assert lines[1]["error"] == "=image 3 is too dark"
    guarded = list(
        csv.DictReader(io.StringIO(client.get(f"/download/saliency.csv?{WHAT}&spreadsheet=1").text))
    )
    assert guarded[1]["error"] == "'=image 3 is too dark"
    assert lines[0]["predicted_name"] == "a fish"
    assert lines[0]["samples"] == "25"
    assert not {"file", "key", "input_file"} & set(lines[0])


def shown(search: str) -> dict[str, Any]:
    """Return the page that is shown for a query string."""
    context = current()
    return saliency_request.read_page(context, context.catalogue(), search)


def test_a_map_that_arrives_between_two_readings_of_the_last_look_is_shown(context: Context) -> None:
    """When the job has ended nobody looks again: the page must have all results that were stored before."""
    claim = claimed(context.ledger, ask(context))
    finish_items(context.settings, context.ledger, claim, count=2)
    stored: list[int] = []

    def read() -> dict[str, Any]:
        page = shown(f"?{WHAT}")
        stored.append(len(page["stored"]))
        if len(stored) == 1:
            finish_items(context.settings, context.ledger, claim)
            claims.finish(context.ledger, claim)
        return page

    page, watched = read_with_jobs(read, lambda _page: ())
    assert stored == [2, 3]
    assert len(page["stored"]) == 3
    assert not watched.unfinished
    read_with_jobs(read, lambda _page: ())
    assert stored == [2, 3, 3], "a complete page is read once"


def test_maps_of_any_job_are_shown(context: Context, client: FlaskClient) -> None:
    """One job mapped images 0, 3 and 5 (class 3 is predicted); the URLs below have no job of their own."""
    job = ask(context)
    finish_items(context.settings, context.ledger, claimed(context.ledger, job))
    there = "model=synthetic&images=painted&ids=5,1,0"
    page = shown(f"?{there}")
    assert page["job"] is None
    assert [(found["image_id"], found["map"]) for found in page["stored"]] == [(5, 3), (0, 1)]
    assert "file" not in page["stored"][0]
    assert [found["map"] for found in shown(f"?{there}&target=3")["stored"]] == [3, 1], "the predicted class"
    for other in ("p_samples=24", "p_seed=1", "p_noise_level=0.1", "method=gradient", "target=4"):
        assert shown(f"?{there}&{other}")["stored"] == [], other
    lines = list(csv.DictReader(io.StringIO(client.get(f"/download/saliency.csv?{there}").text)))
    assert [(line["image_id"], line["state"], line.get("map")) for line in lines] == [
        ("5", "done", "3"),
        ("1", "queued", ""),
        ("0", "done", "1"),
    ]
    found = pixels_of(client.get(f"/download/saliency.png?{there}&view=map").data)
    for row, image in ((0, 5), (2, 0)):
        values = values_of(image, signed=False)
        expected = heat.colourise(values, colours="inferno", high=heat.highest(values, 99.5))
        assert (cell_of(found, row, 1, lines=2) == expected).all()


def test_a_job_that_was_cancelled_hides_no_map_of_another(context: Context, client: FlaskClient) -> None:
    job = ask(context)
    finish_items(context.settings, context.ledger, claimed(context.ledger, job))
    asked = saliency_job(
        context.atlas, models=choose_models(context.atlas, ["synthetic"]), image_set="painted", image_ids=[3, 4],
        method="smoothgrad", parameters={},
    )  # fmt: skip
    other, _ = jobs.submit_job(context.ledger, asked)
    jobs.cancel(context.ledger, other)
    page = shown("?model=synthetic&images=painted&ids=3,4")
    assert (page["job"], [found["map"] for found in page["stored"]]) == (other, [2])
    lines = client.get("/download/saliency.csv?model=synthetic&images=painted&ids=3,4").text.splitlines()
    assert len(lines) == 3
    assert "a fish" in lines[1]


def test_a_caption_states_the_number_of_samples() -> None:
    """25 are requested; a map may stop earlier, once two halves of its samples agree."""
    words = [
        samples_words(25, [{"samples": drawn} for drawn in maps])
        for maps in ((), (25, 25), (9, 25, 13), (9,))
    ]
    assert words == [
        "at most 25 samples",
        "25 samples drawn",
        "9 to 25 samples drawn of at most 25",
        "9 samples drawn of at most 25",
    ]


def test_maps_that_stopped_early_show_their_samples(context: Context) -> None:
    job = ask(context)
    finish_items(context.settings, context.ledger, claimed(context.ledger, job))
    with context.ledger.write() as connection:
        connection.execute(update(SaliencyMap).values(parameters={"samples": 25}))
        connection.execute(update(SaliencyMap).where(SaliencyMap.image_id == 3).values(samples=9))
    maps = job_maps(context.ledger, job, steps=50)
    assert ["9 samples drawn" in map_lines(found, 1.0) for found in maps] == [False, True, False]
    asked = Asked(
        {"image_set": "painted", "parameters": maps_request(context, job)}, [], dict(enumerate(maps))
    )
    view = View(view="map", strength=1.0, colours="auto", scale="own", clip=99.5)
    assert "9 to 25 samples drawn of at most 25, noise level 0.15" in caption(asked, view)[0]


def maps_request(context: Context, job: int) -> dict[str, Any]:
    """Return the parameters of a job."""
    found: dict[str, Any] = job_queries.job(context.ledger, job)["parameters"]
    return found


def test_matching_a_label_makes_another_request(context: Context) -> None:
    """Image 0's label in the index is the class of its WNID; a user then settles it as class 3, which was mapped."""
    job = ask(context)
    finish_items(context.settings, context.ledger, claimed(context.ledger, job))
    there = "?model=synthetic&images=painted&ids=0&target=label"
    atlas = context.atlas
    wnid = atlas.fetch(Query("SELECT wnid FROM images WHERE image_id = 0"))[0]["wnid"]
    before = label_classes(atlas, "synthetic", "painted", [0])
    assert before[0] != 3
    assert shown(there)["stored"] == []
    models = choose_models(atlas, ["synthetic"])
    request = {"models": models, "image_set": "painted", "image_ids": [0], "parameters": {}}
    by_label = functools.partial(saliency_job, atlas, **request, method="smoothgrad", target="label")  # type: ignore[arg-type]
    leaving = functools.partial(attack_job, atlas, **request, relative_to="label")  # type: ignore[arg-type]
    unsettled = by_label().key, leaving().key
    with atlas.publish() as connection:
        keep_choices(connection, "synthetic", "painted", {wnid: 3})
    assert label_classes(atlas, "synthetic", "painted", [0]) == {0: 3}
    assert [found["map"] for found in shown(there)["stored"]] == [1]
    settled = by_label().key, leaving().key
    assert not set(settled) & set(unsettled)
    with atlas.publish() as connection:
        keep_choices(connection, "synthetic", "painted", {wnid: None})
    assert label_classes(atlas, "synthetic", "painted", [0]) == {}
    assert shown(there)["stored"] == []
    with atlas.publish() as connection:
        keep_choices(connection, "synthetic", "painted", {}, forget=[wnid])
    assert (by_label().key, leaving().key) == unsettled


@pytest.mark.parametrize("kind", ["png", "csv"])
def test_invalid_downloads_give_one_sentence(context: Context, client: FlaskClient, kind: str) -> None:
    answer = client.get(f"/download/saliency.{kind}?{WHAT}")
    assert answer.status_code == 404
    assert "not asked for yet" in answer.json["error"]
    ask(context)
    answer = client.get(f"/download/saliency.{kind}?model=synthetic&images=painted&ids=0-9")
    assert answer.status_code == 400
    assert "images 0 to 7" in answer.json["error"]
    if kind == "png":
        for wrong in ("clip=20", "clip=x", "strength=2", "colours=jet", "scale=mine", "view=nothing"):
            answer = client.get(f"/download/saliency.png?{WHAT}&{wrong}")
            assert answer.status_code == 400
            assert wrong.partition("=")[0] in answer.json["error"]


def test_a_figure_fits_its_text_and_truncates_long_text() -> None:
    font = figure._font(figure.TEXT)
    words = "a name that is far longer than the cell below it, and then some more"
    assert figure.shortened("short", font, 200) == "short"
    cut = figure.shortened(words, font, 200)
    assert font.getlength(cut) <= 200
    assert cut.endswith("…")
    lines = figure.wrapped(words + " " + "x" * 100, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert " ".join(lines).startswith(words)


def test_without_dejavu_words_are_written_in_plain_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "_dejavu", lambda: None)
    assert figure.written("café × 3 – 4…") == "cafe x 3 - 4..."


def test_an_empty_figure_is_a_caption_on_paper() -> None:
    bar = figure.ColourBar("inferno", "0", "", "1")
    found = np.asarray(figure.compose(["Input"], [], bar=bar, caption=["Nothing to see."]))
    assert tuple(found[0, 0]) == PAPER
    assert (found != 255).any()
