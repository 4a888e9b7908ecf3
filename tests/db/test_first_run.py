"""What a first run has to make, and what pages can know about it."""

import os
import time
from pathlib import Path

import pytest
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.atlas.store import Atlas
from db.first_run import (
    FILE,
    SAMPLES,
    SILENT,
    STEPS,
    FirstRun,
    FirstRunBusy,
    Step,
    announce,
    end_first_run,
    filling,
    missing_steps,
    read_first_run,
    stopped,
    write_first_run,
)
from db.settings import Settings


def test_an_empty_home_announces_all_steps(settings: Settings) -> None:
    assert missing_steps(Atlas(settings)) == STEPS
    assert read_first_run(settings.home) is None
    announce(settings.home, STEPS)
    told = read_first_run(settings.home)
    assert told == FirstRun(tuple(step.words() for step in STEPS))
    assert told.steps[0] == "Import photos as samples"
    assert told.steps[-1] == "Index stimuli with convnext-demo"


def test_a_home_with_user_content_needs_no_steps(settings: Settings) -> None:
    import_pictures(settings, painted_pictures(1), image_set="mine")
    assert missing_steps(Atlas(settings)) == ()
    announce(settings.home, ())
    assert read_first_run(settings.home) is None


def test_an_interrupted_first_run_resumes_and_a_finished_one_does_not(settings: Settings) -> None:
    announce(settings.home, STEPS)
    import_pictures(settings, painted_pictures(21), image_set=SAMPLES)
    add_run(settings, image_set=SAMPLES, model="convnext-demo")
    left = missing_steps(Atlas(settings))
    assert left == tuple(
        step for step in STEPS if step not in (Step(SAMPLES), Step(SAMPLES, "convnext-demo"))
    )
    assert len(left) == len(STEPS) - 2
    end_first_run(settings.home)
    assert missing_steps(Atlas(settings)) == ()  # as after `convscope images remove stimuli`


@pytest.mark.parametrize("error", ["", "no space left"])
def test_a_stale_first_run_is_not_shown_as_running(tmp_path: Path, error: str) -> None:
    told = FirstRun(("a", "b"), 1, 3, 10, "images", error)
    write_first_run(tmp_path, told)
    assert read_first_run(tmp_path) == told
    before = time.time() - SILENT - 1
    os.utime(tmp_path / FILE, (before, before))
    # the record of a failure stays, so that someone reads why
    assert read_first_run(tmp_path) == (told if error else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"steps": []}',
        '{"steps": 1}',
        '{"steps": ["a"], "at": 1}',
        '{"steps": ["a"], "more": 2}',
    ],
)
def test_an_unrelated_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_first_run(tmp_path) is None


def test_an_announcement_does_not_overwrite_a_running_process(tmp_path: Path) -> None:
    there = FirstRun(("a", "b"), 1, 3, 10, "images")
    write_first_run(tmp_path, there)
    announce(tmp_path, STEPS)
    assert read_first_run(tmp_path) == there
    write_first_run(tmp_path, FirstRun(("a", "b"), 1, error="no space left"))
    announce(tmp_path, STEPS)
    now = read_first_run(tmp_path)
    assert now is not None
    assert (now.at, now.error) == (0, "")


def test_only_one_process_fills(tmp_path: Path) -> None:
    busy = pytest.raises(FirstRunBusy, match="another process is already filling this installation")
    with filling(tmp_path), busy, filling(tmp_path):
        pass
    with filling(tmp_path):
        pass


def test_a_silent_exit_is_recorded_and_an_earlier_error_is_kept(tmp_path: Path) -> None:
    stopped(tmp_path, "its process ended")
    assert read_first_run(tmp_path) is None  # no record exists
    write_first_run(tmp_path, FirstRun(("a", "b"), 1, 3))
    stopped(tmp_path, "its process ended")
    assert read_first_run(tmp_path) == FirstRun(("a", "b"), 1, error="its process ended")
    stopped(tmp_path, "something else")
    assert read_first_run(tmp_path) == FirstRun(("a", "b"), 1, error="its process ended")
