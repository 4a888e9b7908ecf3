"""Keeps child processes running, and stops them all on exit: no orphans, even if this process is killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.queue.events import log

# Seconds from terminating the children until those left are killed; for all of them together.
STOP_WITHIN = 8.0
FIRST_PAUSE = 1.0  # before a child is restarted; doubles after each early exit in a row
_MAX_PAUSE = 16.0
# A child that lived this many seconds, or that came up, did not fail at startup.
SETTLED = 30.0
MAX_EARLY_ENDS = 6  # in a row; then it is no longer restarted

# Run by a separate Python that then becomes the child: Linux terminates it when its parent dies, even by
# SIGKILL (prctl(2); 1 is PR_SET_PDEATHSIG). Code between fork and exec, such as `preexec_fn`, may deadlock if
# threads are running.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)  # the parent died before prctl took effect
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[2]}: {error.strerror}")
"""


@dataclass
class Child:
    """A child process. `restart`: it is restarted when it exits, unless it keeps failing at startup.

    `came_up` reports whether the process with a given id had started working before it exited.
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
        """Seconds between its exit and its next start."""
        return float(min(_MAX_PAUSE, FIRST_PAUSE * 2.0 ** max(0, self.early_ends - 1)))


class Supervisor:
    """The children of one process. Start them from its main thread: Linux ties a child to its parent's thread."""

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
        """Start a child; `options` are passed to Popen."""
        process = _spawn(command, options)
        self._children[name] = Child(name, command, restart, process, time.monotonic(), options, came_up)
        log("child.started", name=name, pid=process.pid)
        return process

    def restart_as(self, name: str, command: Sequence[str], **options: Any) -> None:
        """Change the command and options for a running child's next start."""
        self._children[name].command = command
        self._children[name].options = options

    def look(self) -> str | None:
        """Restart children that exited and should not have; return the name of one that exited for good, if any."""
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
        """Whether this child exists and has not exited."""
        return name in self._children and self.code(name) is None

    def code(self, name: str) -> int | None:
        """A child's exit code; None while it runs."""
        return self._children[name].process.poll()

    def why(self, name: str) -> str:
        """A sentence about a child that exited and is not restarted."""
        child = self._children[name]
        said = f"the {name} ended with exit code {child.process.poll()}"
        if child.early_ends < MAX_EARLY_ENDS:
            return said
        return f"{said} within {SETTLED:g} seconds of its start, {child.early_ends} times in a row: giving up"

    def kill(self, name: str) -> None:
        """Kill a child that hangs; `look` restarts it if it is set to restart."""
        self._children[name].process.kill()

    def forget(self, name: str) -> None:
        """Stop tracking a child that has exited."""
        assert self._children.pop(name).process.poll() is not None, f"{name} is still running"

    def stop(self) -> None:
        """Stop all children within `STOP_WITHIN` seconds, in reverse order of their start."""
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
    """Start a child in its own session, so that Ctrl-C reaches only this process, which then stops them in order."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
    return subprocess.Popen([*launcher, *command], text=True, start_new_session=True, **options)


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
