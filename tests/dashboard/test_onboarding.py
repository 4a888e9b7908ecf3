"""What a user sees first."""

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import flask
import pytest
from dash._utils import to_json
from sqlalchemy import update
from synthetic_atlas import add_run, import_pictures, painted_pictures
from test_pages import text

from dashboard.api.status import status, work
from dashboard.components.onboarding import first_run_line
from dashboard.pages import channel, image, images, model_offers, overview, patches
from dashboard.state.address import (
    Address,
    AttackAddress,
    ChannelAddress,
    ImageAddress,
    ImagesAddress,
    OverviewAddress,
    SaliencyAddress,
    SQLAddress,
)
from dashboard.state.context import Context
from dashboard.state.selections import default_layer
from db.atlas.store import Atlas
from db.first_run import STEPS, STIMULI, FirstRun, write_first_run
from db.ledger.tables import Job
from db.settings import Settings
from workers.models.names import NAMED_MODELS

WORDS = tuple(step.words() for step in STEPS)


def properties(component: Any) -> Iterator[dict[str, Any]]:
    """Yield the properties of a component and of all its descendants."""

    def within(found: Any) -> Iterator[dict[str, Any]]:
        if isinstance(found, list):
            for item in found:
                yield from within(item)
        elif isinstance(found, dict) and "props" in found:
            yield found["props"]
            yield from within(found["props"].get("children"))

    yield from within(json.loads(to_json(component)))


def test_empty_pages_show_the_steps_of_the_first_run(empty_context: Context) -> None:
    write_first_run(empty_context.settings.home, FirstRun(WORDS, 1, 5, 36, "indexing"))
    for words in (
        text(patches.show_patches("", None, "/").heading),
        text(channel.show_channel("", None, "/channel")),
        text(images.show_images("", None, "/images").body),
        text(image.show_image("", None, "/image")[0]),
        text(overview.show_overview("", None, "/overview")),
    ):
        assert "Import photos as samples  (done)" in words
        assert "Index samples with efficientnet-lite0  (under way)" in words
        assert words.count("(waiting)") == len(WORDS) - 2
    assert status(empty_context)["first_run"] == [1, ""]
    assert work(empty_context)["first_run"]["done"] == 5


def test_user_sets_are_not_part_of_the_first_run(empty_context: Context) -> None:
    write_first_run(empty_context.settings.home, FirstRun(WORDS, 1, 5, 36, "indexing"))
    import_pictures(empty_context.settings, painted_pictures(3), image_set="mine")
    words = text(overview.show_overview("?images=mine", None, "/overview"))
    assert "convscope index --model efficientnet-lite0 --images mine" in words
    assert "(waiting)" not in words


def test_a_failed_first_run_shows_its_error(empty_context: Context) -> None:
    write_first_run(empty_context.settings.home, FirstRun(WORDS, 2, error="no space left on device"))
    words = text(patches.show_patches("", None, "/").heading)
    assert (
        "The first run has stopped no space left on device. It resumes with the next convscope run." in words
    )
    assert "Index samples with convnext-demo  (failed)" in words
    assert status(empty_context)["first_run"] == [2, "no space left on device"]


def test_the_tour_is_shown_until_something_is_selected(context: Context) -> None:
    assert "What to click first" in text(patches.show_patches("", None, "/").tour)
    assert patches.show_patches("?model=synthetic&images=painted", None, "/").tour is not None
    assert patches.show_patches("?layer=stage2.downsampling", None, "/").tour is None
    assert patches.show_patches("?images=none", None, "/").tour is None
    assert context.tours


def test_every_stop_of_the_tour_leads_to_something(context: Context) -> None:
    shown = patches.show_patches("", None, "/").tour
    links = [found["href"] for found in properties(shown) if "href" in found]
    pages = (ChannelAddress, ImageAddress, SaliencyAddress, AttackAddress)
    kinds: dict[str, type[Address]] = {
        kind.path: kind for kind in (*pages, OverviewAddress, SQLAddress, ImagesAddress)
    }
    assert {link.partition("?")[0] for link in links} == set(kinds)
    for link in links:
        path, _, search = link.partition("?")
        address, problems = kinds[path].read(search)
        assert problems == {}
        assert (address.model, address.images) == ("synthetic", "painted")
        if isinstance(address, ChannelAddress):
            assert f"Channel  {address.channel} " in text(channel.show_channel(search, None, path))
        if isinstance(address, ImageAddress):
            assert f"image {address.id}" in text(image.show_image(search, None, path)[0])
        if isinstance(address, SaliencyAddress | AttackAddress):
            row = context.catalogue().run("", "")
            assert row is not None
            assert int(address.ids) < row["images"]


def test_the_line_above_every_page_shows_the_step_its_phase_and_its_count() -> None:
    shown = first_run_line(asdict(FirstRun(WORDS, 1, 1005, 3600, "indexing")))
    assert (shown["hidden"], shown["className"]) == (False, "")
    words = text(shown["children"])
    assert "First run, step 2 of 6: Index samples with efficientnet-lite0" in words
    assert "indexing 1,005 of 3,600" in words
    (bar,) = [found for found in properties(shown["children"]) if "max" in found]
    assert (bar["max"], bar["value"]) == (3600, "1005")
    failed = first_run_line(asdict(FirstRun(WORDS, 2, error="no space left on device")))
    assert failed["className"] == "failed"
    sentence = ": no space left on device. It resumes with the next convscope run."
    assert f"The first run has stopped: {WORDS[2]}{sentence}" in text(failed["children"])
    assert first_run_line(None)["hidden"]


def test_the_job_of_an_offered_model_is_followed_until_it_ends(empty_context: Context) -> None:
    import_pictures(empty_context.settings, painted_pictures(21), image_set="painted")
    job, said, done = model_offers.index({"offer": "mobilenet-v2", "images": "painted"})
    assert job is not None
    assert (text(said), done) == (f"Job {job['job']} , mobilenet-v2 over painted: queued.", False)
    for state, words, ended in (
        ("running", f"Job {job['job']} , mobilenet-v2 over painted: fetching.", False),
        ("done", f"Job {job['job']} : mobilenet-v2 over painted is indexed.", True),
        ("failed", f"Job {job['job']}  failed: no disk", True),
        ("cancelled", f"Job {job['job']}  was cancelled.", True),
    ):
        with empty_context.ledger.write() as connection:
            connection.execute(update(Job).values(state=state, note="fetching", error="no disk"))
        said, done = model_offers.follow(1, job)
        assert (text(said), done) == (words, ended)


@pytest.mark.usefixtures("empty_context")
def test_an_offer_that_cannot_be_indexed_says_why() -> None:
    job, said, done = model_offers.index({"offer": "mobilenet-v2", "images": "nothing"})
    assert (job, done) == (None, True)
    assert "nothing" in text(said)
    assert said.className == "problem"


def test_models_that_wait_on_a_hub_are_offered_until_they_are_there(empty_context: Context) -> None:
    import_pictures(empty_context.settings, painted_pictures(21), image_set="painted")
    add_run(empty_context.settings, image_set="painted", model="resnet-50")
    offered = [
        found for found in properties(patches.show_patches("", None, "/").tour) if "data-offer" in found
    ]
    assert [found["data-offer"] for found in offered] == ["convnext-tiny", "mobilenet-v2"]
    assert {found["data-images"] for found in offered} == {"painted"}
    assert all(NAMED_MODELS[found["data-offer"]].download for found in offered)


def test_photos_are_preferred_to_newer_probe_images(empty_context: Context) -> None:
    settings = empty_context.settings
    import_pictures(settings, painted_pictures(21), image_set="painted")
    add_run(settings, image_set="painted")
    import_pictures(settings, painted_pictures(22), image_set=STIMULI)
    assert empty_context.catalogue().newest_set() == "painted"
    add_run(settings, image_set=STIMULI)
    catalogue = empty_context.catalogue()
    for model in ("", "synthetic"):
        found = catalogue.run(model, "")
        assert found is not None
        assert found["image_set"] == "painted"
    asked = catalogue.run("", STIMULI)
    assert asked is not None
    assert asked["image_set"] == STIMULI


def judge(settings: Settings, run: int, *, right: int) -> None:
    """Make a run correct on the first `right` of its labeled images and wrong on the rest."""
    with Atlas(settings).publish() as connection:
        connection.execute(
            "WITH places AS (SELECT image_id, rank, row_number() OVER (ORDER BY image_id) <= $right AS good "
            "FROM predictions WHERE run = $run AND is_label) "
            "UPDATE predictions p SET rank = CASE WHEN p.is_label THEN if(good, 1, 9) "
            "WHEN good = (p.rank = 1) THEN 9 ELSE p.rank END "
            "FROM places l WHERE p.run = $run AND p.image_id = l.image_id",
            {"run": run, "right": right},
        )


def opens(context: Context, model: str = "", images: str = "") -> tuple[str, str]:
    """Return model and image set of the run that a URL opens."""
    found = context.catalogue().run(model, images)
    assert found is not None
    return found["model"], found["image_set"]


def test_a_page_opens_on_the_most_accurate_model_over_labeled_photos(empty_context: Context) -> None:
    """Fixed beforehand: over `samples` (12 photos, 11 labeled) `good` has 10 correct; `poor`, which is newer, has 2.

    Probe images, all of which a model may classify correctly, and sets without labels never come first; a
    newer labeled set of the user's own does.
    """
    settings = empty_context.settings
    run = functools.partial(add_run, settings, over=("embeddings",))
    import_pictures(settings, painted_pictures(12), image_set="samples")
    good = run(image_set="samples", model="good", seed=1)
    poor = run(image_set="samples", model="poor", seed=2)
    judge(settings, good, right=10)
    judge(settings, poor, right=2)
    assert empty_context.catalogue().top1 == {good: pytest.approx(10 / 11), poor: pytest.approx(2 / 11)}
    assert opens(empty_context) == ("good", "samples")
    import_pictures(settings, painted_pictures(12), image_set=STIMULI)
    judge(settings, run(image_set=STIMULI, model="poor", seed=3), right=11)
    bare = [replace(picture, wnid=None, label=None) for picture in painted_pictures(6)]
    import_pictures(settings, bare, image_set="bare")
    run(image_set="bare", model="poor", seed=4)
    assert opens(empty_context) == ("good", "samples")
    assert opens(empty_context, model="poor") == ("poor", "samples")
    assert opens(empty_context, images=STIMULI) == ("poor", STIMULI)
    assert opens(empty_context, images="bare") == ("poor", "bare")
    answer = flask.current_app.test_client().get("/saliency")
    assert answer.headers["Location"] == "/saliency?model=good&images=samples"
    import_pictures(settings, painted_pictures(8), image_set="mine", created=datetime(2026, 2, 1))
    judge(settings, run(image_set="mine", model="poor", seed=5), right=1)
    assert opens(empty_context) == ("poor", "mine")


def test_the_layer_that_opens_sees_a_third_of_the_input(context: Context) -> None:
    run = context.catalogue().runs[0]
    layers = context.catalogue().layers["synthetic"]
    chosen = default_layer(run, layers)
    assert chosen is not None
    before = layers[: layers.index(chosen)]
    assert chosen["rf_size_y"] >= 224 / 3
    assert all(layer["rf_size_y"] < 224 / 3 for layer in before)
    assert default_layer(run, before) == layers[0]
    assert default_layer(run, ()) is None
    everywhere = {"layer": "attention", "rf_size_y": None, "rf_size_x": None}
    assert default_layer(run, [*before, everywhere]) == everywhere
