"""Keeps child processes running, and ends them all: no orphan, also where this process is killed itself."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.queue.events import log

# In seconds: until a child is told again, and until it is killed; all of them together.
STOP_WITHIN = 8.0
FIRST_PAUSE = 1.0  # before a child is started again; twice as long after each early end in a row
_MAX_PAUSE = 16.0
# A child that lived for so many seconds did not fail at its start; nor did one that came up.
SETTLED = 30.0
MAX_EARLY_ENDS = 6  # in a row; then it is given up

# Run by a Python of its own, which becomes the child: Linux then ends it when its parent dies, even by SIGKILL
# (prctl(2); 1 is PR_SET_PDEATHSIG). Code between fork and exec, as `preexec_fn` is, may deadlock where threads run.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)  # it died before the kernel was told
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[2]}: {error.strerror}")
"""


@dataclass
class Child:
    """A child process. `again`: it is started anew when it ends, unless it keeps failing at its start.

    `came_up` says of a process number whether that process had come to work before it ended.
    """

    name: str
    command: Sequence[str]
    restart: bool
    process: subprocess.Popen[str]
    started: float
    options: Mapping[str, Any]
    came_up: Callable[[int], bool] = lambda _: False
    early_ends: int = 0
    ended: float | None = None

    @property
    def pause(self) -> float:
        """Seconds between its end and its next start."""
        return float(min(_MAX_PAUSE, FIRST_PAUSE * 2.0 ** max(0, self.early_ends - 1)))


class Supervisor:
    """The children of one process. Start them from its main thread: Linux ends a child with its parent's thread."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        restart: bool,
        came_up: Callable[[int], bool] = lambda _: False,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a child; `options` are Popen's."""
        process = _spawn(command, options)
        self._children[name] = Child(name, command, restart, process, time.monotonic(), options, came_up)
        log("child.started", name=name, pid=process.pid)
        return process

    def restart_as(self, name: str, command: Sequence[str], **options: Any) -> None:
        """What a running child is started with from its next start on."""
        self._children[name].command = command
        self._children[name].options = options

    def look(self) -> str | None:
        """Start what ended and should not have; the name of a child that ended and is not started again, if any."""
        for child in self._children.values():
            code = child.process.poll()
            if code is None:
                continue
            now = time.monotonic()
            if not child.restart:
                return child.name
            if child.ended is None:
                child.ended = now
                early = now - child.started < SETTLED and not child.came_up(child.process.pid)
                child.early_ends = child.early_ends + 1 if early else 0
                given_up = child.early_ends >= MAX_EARLY_ENDS
                log("child.ended", name=child.name, code=code, again_in=None if given_up else child.pause)
            if child.early_ends >= MAX_EARLY_ENDS:
                return child.name
            if now - child.ended >= child.pause:
                _close_pipes(child.process)
                child.process = _spawn(child.command, child.options)
                child.started, child.ended = now, None
                log("child.started", name=child.name, pid=child.process.pid)
        return None

    def is_running(self, name: str) -> bool:
        """Whether there is such a child, and it has not ended."""
        return name in self._children and self.code(name) is None

    def code(self, name: str) -> int | None:
        """A child's exit code; None while it runs."""
        return self._children[name].process.poll()

    def why(self, name: str) -> str:
        """A sentence of a child that ended and is not started again."""
        child = self._children[name]
        said = f"the {name} ended with exit code {child.process.poll()}"
        if child.early_ends < MAX_EARLY_ENDS:
            return said
        return f"{said} within {SETTLED:g} seconds of its start, {child.early_ends} times in a row: it is given up"

    def kill(self, name: str) -> None:
        """Kill a child that hangs; where it is one to start again, `look` does."""
        self._children[name].process.kill()

    def forget(self, name: str) -> None:
        """Look after a child no more that has ended."""
        assert self._children.pop(name).process.poll() is not None, f"{name} still runs"

    def stop(self) -> None:
        """End all children within `STOP_WITHIN` seconds, in the reverse order of their start."""
        running = [c.process for c in reversed(self._children.values()) if c.process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_WITHIN
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._children.clear()


def wait_until(true: Callable[[], bool], *, seconds: float) -> bool:
    """Whether `true` became true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _spawn(command: Sequence[str], options: Mapping[str, Any]) -> subprocess.Popen[str]:
    """A child in a session of its own, so that Ctrl-C reaches this process alone, which then ends them in order."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
    return subprocess.Popen([*launcher, *command], text=True, start_new_session=True, **options)


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
