"""The first run: what an empty installation is filled with, and its progress.

Progress is kept in a file in the home. The filling process rewrites it every few seconds, and the pages read
it. The file exists while an installation is being filled; it stays after an interruption or a failure, so the
next first run can resume. If it has not been written for a while, the filling process is presumed dead: a
page cannot check for a process that runs in another container.
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
SILENT = 30.0  # seconds without an update before the filler is presumed dead; loading torch takes a few


class FirstRunBusy(RuntimeError):
    """Another process is already filling this installation."""


@dataclass(frozen=True)
class Step:
    """One step: import or create an image set or, if `model` is given, index that set with it."""

    image_set: str
    model: str = ""

    def words(self) -> str:
        """The step as the user reads it."""
        if self.model:
            return f"Index {self.image_set} with {self.model}"
        return {SAMPLES: "Import photos as samples", STIMULI: "Paint probe images as stimuli"}[self.image_set]


STEPS = (
    Step(SAMPLES),
    *(Step(SAMPLES, model) for model in MODELS),
    Step(STIMULI),
    *(Step(STIMULI, model) for model in MODELS),
)


@dataclass(frozen=True)
class FirstRun:
    """Progress of the first run.

    Attributes:
        steps: descriptions of all steps, in order.
        at: index of the current step in `steps`.
        done: completed units of the current step.
        total: total units of the current step, 0 if unknown.
        phase: description of the current phase; may be empty.
        error: one sentence if the run failed, otherwise empty.
    """

    steps: tuple[str, ...]
    at: int = 0
    done: int = 0
    total: int = 0
    phase: str = ""
    error: str = ""


def write_first_run(home: Path, first: FirstRun) -> None:
    """Write the progress file atomically, because pages may read it at any time.

    Raises:
        OSError: the file cannot be written.
    """
    make_home(home)
    write_file(home / FILE, json.dumps(asdict(first)).encode())


def end_first_run(home: Path) -> None:
    """Remove the progress file: the first run is finished, or there is none."""
    (home / FILE).unlink(missing_ok=True)


def read_first_run(home: Path) -> FirstRun | None:
    """Progress of the first run; None if there is no file, it is stale without an error, or it is not valid."""
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
    """Hold the lock that lets only one process fill this installation.

    Raises:
        FirstRunBusy: another process holds it.
    """
    make_home(home)
    with (home / "FIRST-RUN.LOCK").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FirstRunBusy("another process is already filling this installation") from error
        yield


def missing_steps(atlas: Atlas) -> tuple[Step, ...]:
    """The steps left to do: all if nothing was ever published, the remaining ones if a first run was interrupted.

    None once a first run has finished: a user who removes `stimuli` does not get the set back.
    """
    if atlas.version() is None:
        return STEPS
    if not (atlas.home / FILE).exists():
        return ()
    made = {Step(row["image_set"]) for row in atlas.fetch(image_sets())}
    made |= {Step(row["image_set"], row["model"]) for row in atlas.fetch(runs())}
    return tuple(step for step in STEPS if step not in made)


def announce(home: Path, steps: Sequence[Step]) -> None:
    """Show the upcoming steps on the pages, unless a run is active; without steps, remove the progress file."""
    if not steps:
        end_first_run(home)
        return
    told = read_first_run(home)
    if told is None or told.error:
        write_first_run(home, FirstRun(tuple(step.words() for step in steps)))


def stopped(home: Path, sentence: str) -> None:
    """Record an error for a first run that ended without reporting one, so the pages can show it."""
    told = read_first_run(home)
    if told is not None and not told.error:
        write_first_run(home, FirstRun(told.steps, told.at, error=sentence))
