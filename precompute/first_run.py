"""The first run: fills an empty installation with images, models and indexes.

Runs in one process, so torch and each model are loaded once.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from db.atlas.store import Atlas
from db.first_run import (
    HEARTBEAT,
    SAMPLES,
    FirstRun,
    Step,
    end_first_run,
    filling,
    write_first_run,
)
from db.stores.images import ImageStore
from precompute.images.samples import import_samples
from precompute.images.stimuli import import_stimuli
from precompute.index.run import run_index
from workers.models.vision import VisionModel, load_model

_SECONDS_BETWEEN_REPORTS = 0.25


def fill(atlas: Atlas, store: ImageStore, steps: Sequence[Step], *, device: str = "auto") -> Iterator[str]:
    """Create what is missing, and yield a sentence after each step.

    Raises:
        FirstRunBusy: another process is running it.
        Exception: raised by a step; the pages report it, and the next first run resumes at that step.
    """
    models: dict[str, VisionModel] = {}
    with filling(atlas.home), _ProgressWriter(atlas.home, steps) as tell:
        for at, step in enumerate(steps):
            began = time.monotonic()
            tell.step(at)
            if step.model:
                tell(0, None, f"loading {step.model}")
                if step.model not in models:
                    models[step.model] = load_model(step.model)
                run_index(
                    atlas,
                    store,
                    model=models[step.model],
                    image_set=step.image_set,
                    progress=tell,
                    resume=True,
                    device=device,
                )
            elif step.image_set == SAMPLES:
                import_samples(atlas, store, progress=tell)
            else:
                import_stimuli(atlas, store, progress=tell)
            yield f"{step.words()}: {time.monotonic() - began:.0f} s"


class _ProgressWriter:
    """Writes the progress of the first run to disk periodically: for pages to show, and as a heartbeat."""

    def __init__(self, home: Path, steps: Sequence[Step]) -> None:
        self._home = home
        self._now = FirstRun(tuple(step.words() for step in steps))
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)

    def step(self, at: int) -> None:
        """Begin the step at this index."""
        self._now = FirstRun(self._now.steps, at)

    def __call__(self, done: int, total: int | None, phase: str = "images") -> None:
        """Set the finished and total units of the step, and the name of its phase."""
        self._now = FirstRun(self._now.steps, self._now.at, done, total or 0, phase)

    def _write(self) -> None:
        written, due = None, 0.0
        while not self._ended.wait(_SECONDS_BETWEEN_REPORTS):
            now = self._now
            if now != written or time.monotonic() >= due:
                with contextlib.suppress(OSError):  # a full disk: the step itself will report it
                    write_first_run(self._home, now)
                written, due = now, time.monotonic() + HEARTBEAT

    def __enter__(self) -> "_ProgressWriter":
        self._writer.start()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        self._ended.set()
        self._writer.join()
        if error is None:
            end_first_run(self._home)
        elif isinstance(error, Exception):
            # Ctrl-C is not an Exception and not a failure: the heartbeat stops, and the next first run
            # resumes
            sentence = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            with contextlib.suppress(OSError):
                write_first_run(self._home, FirstRun(self._now.steps, self._now.at, error=sentence))
