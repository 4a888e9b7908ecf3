"""The first run: what an empty installation gets to look at, and how far that is.

A file of the home tells how far: who fills writes it every few seconds, pages read it. It is there while an
installation is being filled and stays where that was stopped or failed, so that the next first run goes on. Where it
was not written for a while nobody fills: whether a process lives, a page cannot know of one in another container.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from db.atlas.store import Atlas
from db.files import make_home, write_file
from db.queries.inventory import image_sets, runs

SAMPLES = "samples"
STIMULI = "stimuli"
MODELS = ("efficientnet-lite0", "convnext-demo")
FILE = "first-run.json"
HEARTBEAT = 2.0  # seconds
SILENT = 30.0  # seconds without a word after which nobody fills; torch takes some to load


class FirstRunBusy(RuntimeError):
    """Another process fills this installation."""


@dataclass(frozen=True)
class Step:
    """A set to make, or, with a model, to index."""

    image_set: str
    model: str = ""

    def words(self) -> str:
        """What happens, for a person."""
        if self.model:
            return f"Index {self.image_set} with {self.model}"
        return {SAMPLES: "Import photographs as samples", STIMULI: "Paint probe pictures as stimuli"}[
            self.image_set
        ]


STEPS = (
    Step(SAMPLES),
    *(Step(SAMPLES, model) for model in MODELS),
    Step(STIMULI),
    *(Step(STIMULI, model) for model in MODELS),
)


@dataclass(frozen=True)
class FirstRun:
    """Where the first run stands.

    Attributes:
        steps: what is made, one after the other, each in words.
        at: place of the present step among `steps`.
        done: units of the present step that are done.
        total: its units in all, 0 where that is not known.
        phase: what is done to them, in words; may be empty.
        error: a sentence where it failed, else empty.
    """

    steps: tuple[str, ...]
    at: int = 0
    done: int = 0
    total: int = 0
    phase: str = ""
    error: str = ""


def write_first_run(home: Path, first: FirstRun) -> None:
    """Tell how far it is; whole at once, for pages read it at any time.

    Raises:
        OSError: it cannot be written.
    """
    make_home(home)
    write_file(home / FILE, json.dumps(asdict(first)).encode())


def end_first_run(home: Path) -> None:
    """It is done, or there is none."""
    (home / FILE).unlink(missing_ok=True)


def read_first_run(home: Path) -> FirstRun | None:
    """Where the first run stands; None where there is none, nobody is at it, or the file is not one of ours."""
    try:
        age = time.time() - (home / FILE).stat().st_mtime
        told = json.loads((home / FILE).read_text())
        first = FirstRun(**told | {"steps": tuple(told["steps"])})
        first.steps[first.at]
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
    return first if first.error or age < SILENT else None


@contextlib.contextmanager
def filling(home: Path) -> Iterator[None]:
    """Nobody else fills this installation meanwhile.

    Raises:
        FirstRunBusy: somebody does already.
    """
    make_home(home)
    with (home / "FIRST-RUN.LOCK").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FirstRunBusy("another process fills this installation right now") from error
        yield


def missing_steps(atlas: Atlas) -> tuple[Step, ...]:
    """What is to be made: all of it where nothing was ever published, the rest where a first run was stopped.

    Where a first run ended, nothing: who removes `stimuli` does not get it back.
    """
    if atlas.version() is None:
        return STEPS
    if not (atlas.home / FILE).exists():
        return ()
    made = {Step(row["image_set"]) for row in atlas.fetch(image_sets())}
    made |= {Step(row["image_set"], row["model"]) for row in atlas.fetch(runs())}
    return tuple(step for step in STEPS if step not in made)


def announce(home: Path, steps: Sequence[Step]) -> None:
    """Say on the pages what is about to be made, or that nothing is; not where somebody is at it."""
    if not steps:
        end_first_run(home)
        return
    told = read_first_run(home)
    if told is None or told.error:
        write_first_run(home, FirstRun(tuple(step.words() for step in steps)))


def stopped(home: Path, sentence: str) -> None:
    """Say on the pages that the first run ended without a word of its own."""
    told = read_first_run(home)
    if told is not None and not told.error:
        write_first_run(home, FirstRun(told.steps, told.at, error=sentence))
