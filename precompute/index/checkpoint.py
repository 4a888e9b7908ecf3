"""Checkpoints of an index build: a build resumed after its process was killed yields bit-identical results.

One file contains everything and is replaced atomically, so a checkpoint is always complete: the new one or
the previous one. Its folder is named by the digest of everything that the result depends on: a build finds a
checkpoint only if it would produce the same result.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from db.files import no_space_sentence, write_file

# Part of every digest: raise it if the meaning of the stored state changes.
FORMAT = 1


class BuildBusy(RuntimeError):
    """Another process is building the same index; the message is one sentence for the user."""


@dataclass(frozen=True)
class Progress:
    """Progress of a build: position of the next batch in the set, seconds spent, images that could not be read."""

    next_place: int
    seconds: float
    unreadable: tuple[tuple[int, str, str], ...]


class CheckpointFailed(RuntimeError):
    """A checkpoint cannot be written (full disk); the previous one is intact. The message is one sentence."""


class Checkpoint:
    """The stored state of one build. `facts` are all values that the result depends on, as JSON values.

    Facts must name "model" and "image set": `why_not_used` compares with checkpoints of the same pair and
    other facts.
    """

    def __init__(self, home: Path, facts: Mapping[str, str | int]) -> None:
        self.facts = {"format": FORMAT, **facts}
        text = json.dumps(self.facts, sort_keys=True)
        self._builds = home / "builds"
        self.folder = self._builds / hashlib.sha256(text.encode()).hexdigest()[:32]
        self._state = self.folder / "state.safetensors"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock the build: no other process can work on it meanwhile.

        Raises:
            BuildBusy: another process has locked it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "LOCK").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BuildBusy(
                    f"another process is indexing {self.facts['image set']!r} with {self.facts['model']!r} right now"
                ) from error
            write_file(self.folder / "facts.json", json.dumps(self.facts, indent=1).encode())
            try:
                yield
            finally:
                if not self._state.exists():
                    shutil.rmtree(self.folder, ignore_errors=True)

    def save(self, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
        """Store the state, replacing the previous one.

        Raises:
            CheckpointFailed: it cannot be written.
        """
        about = {
            "next_place": progress.next_place,
            "seconds": progress.seconds,
            "unreadable": progress.unreadable,
        }
        temporary = self._state.with_suffix(".new")
        given = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(given, temporary, metadata={"progress": json.dumps(about)})
        except SafetensorError as error:
            temporary.unlink(missing_ok=True)
            full = "no space left" in str(error).lower()
            needed = sum(tensor.numel() * tensor.element_size() for tensor in given.values())
            why = no_space_sentence(self.folder, needed=needed) if full else error
            raise CheckpointFailed(f"no checkpoint can be written to {self.folder}: {why}") from error
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(self._state)

    def load(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """The stored state; None if there is none or it is unreadable."""
        try:
            with safe_open(self._state, framework="pt") as file:
                about = json.loads(file.metadata()["progress"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):
            return None
        unreadable = tuple((int(number), str(name), str(why)) for number, name, why in about["unreadable"])
        return Progress(about["next_place"], about["seconds"], unreadable), tensors

    def why_not_used(self) -> str | None:
        """Why the build cannot resume from a checkpoint of the same model and set; None if there is none."""
        if self._state.exists():
            return "the checkpoint of the earlier run cannot be read"
        for other in self._of_the_pair():
            if other == self.folder or not (other / self._state.name).exists():
                continue
            theirs = _facts(other)
            names = sorted(
                name for name in {*theirs, *self.facts} if theirs.get(name) != self.facts.get(name)
            )
            changed = ", ".join(_change(name, theirs.get(name), self.facts.get(name)) for name in names)
            return f"the run that left the checkpoint had another {changed}"
        return None

    def remove(self) -> None:
        """Delete this build and outdated, unlocked ones of the same model and set."""
        for folder in self._of_the_pair():
            with contextlib.suppress(OSError), (folder / "LOCK").open("w") as lock:
                if folder != self.folder:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._builds.rmdir()

    def _of_the_pair(self) -> list[Path]:
        return sorted(
            path.parent
            for path in self._builds.glob("*/facts.json")
            if all(_facts(path.parent).get(name) == self.facts[name] for name in ("model", "image set"))
        )


def _facts(folder: Path) -> dict[str, str | int]:
    try:
        found: dict[str, str | int] = json.loads((folder / "facts.json").read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return found


def _change(name: str, before: object, now: object) -> str:
    short = all(len(str(value)) <= 24 for value in (before, now))
    return f"{name} ({before}, now {now})" if short else name
