"""The first run in action, with small models in place of the installed ones; tests/e2e runs the real ones."""

from functools import partial
from pathlib import Path

import pytest
from running import wait

import precompute.first_run as first_run_module
from db.atlas.store import Atlas, Query
from db.first_run import (
    SAMPLES,
    STEPS,
    STIMULI,
    FirstRunBusy,
    Step,
    announce,
    missing_steps,
    read_first_run,
)
from db.stores.images import ImageStore
from precompute.first_run import fill
from precompute.images.stimuli import FEWEST, import_stimuli
from workers.models.vision import ModelUnavailable, VisionModel, load_model

SHORT = tuple(step for step in STEPS if step.image_set == SAMPLES or not step.model)


@pytest.fixture
def small_models(small_convnext: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the installed models by a small one; the list collects the names that were loaded."""
    loaded: list[str] = []

    def load(name: str) -> VisionModel:
        loaded.append(name)
        return load_model(str(small_convnext), name=name)

    monkeypatch.setattr(first_run_module, "load_model", load)
    monkeypatch.setattr(first_run_module, "import_stimuli", partial(import_stimuli, count=FEWEST))
    return loaded


def step_of(atlas: Atlas) -> str:
    """Return the step that pages show as the current one."""
    now = read_first_run(atlas.home)
    return "" if now is None else now.steps[now.at]


def test_steps_run_once_and_progress_is_reported(
    atlas: Atlas, store: ImageStore, small_models: list[str]
) -> None:
    steps = (*SHORT, Step(STIMULI, "convnext-demo"))
    announce(atlas.home, steps)
    told = []
    for sentence in fill(atlas, store, steps, device="cpu"):
        told.append(sentence.rpartition(":")[0])
        wait(lambda: step_of(atlas) == told[-1], seconds=5, what=lambda: str(read_first_run(atlas.home)))
        with pytest.raises(FirstRunBusy):
            next(fill(atlas, store, steps, device="cpu"))
        assert read_first_run(atlas.home) is not None  # the second process removes nothing
    assert told == [step.words() for step in steps]
    assert small_models == ["efficientnet-lite0", "convnext-demo"]  # each loaded once
    assert read_first_run(atlas.home) is None
    made = atlas.fetch(Query("SELECT model, image_set FROM runs ORDER BY run"))
    assert [tuple(row.values()) for row in made] == [
        ("efficientnet-lite0", SAMPLES),
        ("convnext-demo", SAMPLES),
        ("convnext-demo", STIMULI),
    ]


def test_a_failed_step_is_reported_and_the_next_first_run_resumes_there(
    atlas: Atlas, store: ImageStore, small_models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = first_run_module.load_model

    def fails(name: str) -> VisionModel:
        if name == "convnext-demo":
            raise ModelUnavailable("its weights\nare not here")
        return whole(name)

    monkeypatch.setattr(first_run_module, "load_model", fails)
    announce(atlas.home, SHORT)
    with pytest.raises(ModelUnavailable):
        list(fill(atlas, store, SHORT, device="cpu"))
    now = read_first_run(atlas.home)
    assert now is not None
    assert now.error == "its weights are not here"
    assert now.steps[now.at] == "Index samples with convnext-demo"
    left = missing_steps(atlas)
    assert left[0] == Step(SAMPLES, "convnext-demo")
    monkeypatch.setattr(first_run_module, "load_model", whole)
    list(fill(atlas, store, left[:1], device="cpu"))
    assert read_first_run(atlas.home) is None
    assert small_models == ["efficientnet-lite0", "convnext-demo"]


def test_an_interrupted_run_is_not_a_failure(
    atlas: Atlas, store: ImageStore, small_models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(first_run_module, "run_index", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(fill(atlas, store, SHORT, device="cpu"))
    now = read_first_run(atlas.home)
    assert now is None or now.error == ""
    assert missing_steps(atlas)[0] == SHORT[1]
    assert small_models == ["efficientnet-lite0"]
