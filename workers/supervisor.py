"""Keeps child processes running, and ends them all: no orphan, also where this process is killed itself."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workers.events import log

# In seconds: until a child is told again, and until it is killed; all of them together.
STOP_WITHIN = 8.0
_LONGEST_PAUSE = 16.0
# One that lived so long did not fail at its start.
_SETTLED = 5.0


@dataclass
class Child:
    """A child process. `again`: it is started anew when it ends; otherwise its end is the end of all."""

    name: str
    command: Sequence[str]
    again: bool
    process: subprocess.Popen[str]
    started: float
    pause: float = 1.0
    ended: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Supervisor:
    """The children of one process. Start them from its main thread: Linux ends a child with its parent's thread."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(
        self, name: str, command: Sequence[str], *, again: bool, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a child; `options` are Popen's."""
        process = _spawn(command, options)
        self._children[name] = Child(name, command, again, process, started=time.monotonic(), options=options)
        log("child.started", name=name, pid=process.pid)
        return process

    def look(self) -> str | None:
        """Start what ended and should not have; the name of a child whose end is the end of all, if one ended."""
        for child in self._children.values():
            code = child.process.poll()
            if code is None:
                continue
            if not child.again:
                return child.name
            now = time.monotonic()
            if child.ended is None:
                child.ended = now
                child.pause = 1.0 if now - child.started > _SETTLED else min(_LONGEST_PAUSE, child.pause * 2)
                log("child.ended", name=child.name, code=code, again_in=child.pause)
            elif now - child.ended >= child.pause:
                child.process = _spawn(child.command, child.options)
                child.started, child.ended = now, None
                log("child.started", name=child.name, pid=child.process.pid)
        return None

    def code(self, name: str) -> int | None:
        """A child's exit code; None while it runs."""
        return self._children[name].process.poll()

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
    parent = os.getpid()
    return subprocess.Popen(
        list(command),
        text=True,
        start_new_session=True,
        preexec_fn=lambda: _die_with_parent(parent),
        **options,
    )


def _die_with_parent(parent: int) -> None:
    """On Linux, have the kernel end this process when its parent dies, even by SIGKILL (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel was told
