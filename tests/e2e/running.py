"""Convscope commands as child processes of a test, and everything that they leave running."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def command(*words: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `convscope WORDS` in a separate process, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "convscope", *words],
        cwd=ROOT,
        env={**os.environ, "CONVSCOPE_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def get(url: str) -> bytes:
    """Return the body of the response."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        content: bytes = answer.read()
    return content


class Running:
    """A running `convscope WORDS` over a home, with its output so far.

    Args:
        program: the command, as words; default: the checkout's.
        root: the folder that it starts in; default: the checkout.
        inherited: environment variables, to which `environment` is added; default: this process's.
    """

    def __init__(
        self,
        home: Path,
        *words: str,
        program: Sequence[str] = (sys.executable, "-m", "convscope"),
        root: Path = ROOT,
        inherited: Mapping[str, str] = os.environ,
        **environment: str,
    ) -> None:
        home.parent.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.log = home.parent / f"{words[0]}-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*program, *words],
                cwd=root,
                env={**inherited, "CONVSCOPE_HOME": str(home), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, pattern: str, *, seconds: float) -> str:
        """Wait for `pattern` in the command's output and return its first group."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.log.read_text())
            assert match or self.process.poll() is None, self.log.read_text()
            return match

        wait(
            lambda: found() is not None, seconds=seconds, what=lambda: f"{pattern!r}:\n{self.log.read_text()}"
        )
        match = found()
        assert match is not None
        return match.group(1)

    def stop(self, *, by: signal.Signals = signal.SIGTERM, within: float = 60) -> None:
        """Send a signal and wait for the process to exit."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        self.process.wait(within)

    def processes(self) -> dict[int, str]:
        """Return the command lines of all processes of this home by process id, whatever their parent."""
        return processes_of(self.home)


def processes_of(home: Path) -> dict[int, str]:
    """Return the command lines of all living processes of this home, by process id."""
    marked = f"CONVSCOPE_HOME={home}\0".encode()
    alive = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            # the broker's title overwrites its environment, but its working directory is inside the home
            ours = marked in (entry / "environ").read_bytes() or home in (entry / "cwd").readlink().parents
            if fields[0] != "Z" and ours:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                alive[int(entry.name)] = " ".join(words)
    alive.pop(os.getpid(), None)
    return alive


def kill_all(home: Path) -> None:
    """Kill every process of a home."""
    for _ in range(50):
        left = processes_of(home)
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    raise AssertionError(f"cannot be killed: {left}")


def wait(true: Callable[[], bool], *, seconds: float, what: Callable[[], str]) -> None:
    """Wait until `true()`; after `seconds`, fail with `what()` as the description of what was missing."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.05)
