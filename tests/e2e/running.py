"""Commands of Convscope as processes of a test's own, and all that they leave running."""

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
    """Run `convscope WORDS` in a process of its own, as a person would."""
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
    """What a server answers."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        content: bytes = answer.read()
    return content


class Running:
    """A `convscope WORDS` over a home, with what it said so far.

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
        """The first group of `pattern` in what the command printed."""

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
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        self.process.wait(within)

    def processes(self) -> dict[int, str]:
        """Command lines of all processes that work in this home, by number; whoever started them."""
        return processes_of(self.home)


def processes_of(home: Path) -> dict[int, str]:
    """Command lines of all living processes that were started with this home."""
    marked = f"CONVSCOPE_HOME={home}\0".encode()
    alive = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            # the broker writes its title over its environment, but stays in its folder
            ours = marked in (entry / "environ").read_bytes() or home in (entry / "cwd").readlink().parents
            if fields[0] != "Z" and ours:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                alive[int(entry.name)] = " ".join(words)
    alive.pop(os.getpid(), None)
    return alive


def kill_all(home: Path) -> None:
    """Kill whatever works in a home."""
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
    """Wait until `true`; after `seconds`, fail and say `what` was missing."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.05)
