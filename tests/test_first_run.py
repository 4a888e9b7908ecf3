"""`convscope run` in an empty home: what a person sees who just cloned the repository."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.settings import Settings

ROOT = Path(__file__).parents[1]


class Running:
    """A `convscope run` of the test's own, with what it said so far."""

    def __init__(self, home: Path) -> None:
        self.log = home.parent / "run.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "convscope", "run", "--port", "0"],
                cwd=ROOT,
                env={**os.environ, "CONVSCOPE_HOME": str(home)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, pattern: str, *, seconds: float) -> str:
        """The first group of `pattern` in what the command printed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found.group(1)
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"no {pattern!r} within {seconds} s:\n{self.log.read_text()}")

    def group(self) -> list[int]:
        """Processes that still run in the command's session."""
        alive = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if fields[3] == str(self.process.pid) and fields[0] != "Z":
                alive.append(int(entry.parent.name))
        return alive


@pytest.fixture
def running(settings: Settings) -> Iterator[Running]:
    settings.home.parent.mkdir(parents=True, exist_ok=True)
    command = Running(settings.home)
    yield command
    for pid in command.group():
        os.kill(pid, signal.SIGKILL)
    command.process.wait(10)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        content: bytes = answer.read()
    return content


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for left-over processes in /proc")
@pytest.mark.parametrize("killer", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_everything_within_ten_seconds(running: Running, killer: signal.Signals) -> None:
    url = running.wait_for(r"Convscope is at (http://\S+)", seconds=60)
    assert b"Convscope" in get(url)
    running.process.send_signal(killer)
    running.process.wait(10)
    assert running.group() == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for left-over processes in /proc")
def test_a_killed_command_leaves_no_process_behind(running: Running) -> None:
    running.wait_for(r"Convscope is at (http://\S+)", seconds=60)
    running.process.kill()
    running.process.wait(10)
    deadline = time.monotonic() + 10
    while running.group() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running.group() == []


def test_the_first_run_serves_at_once_and_fills_with_samples(running: Running) -> None:
    url = running.wait_for(r"Convscope is at (http://\S+)", seconds=60)
    assert json.loads(get(f"{url}/status.json"))["runs"] == []
    running.wait_for(r"(Ready)", seconds=240)
    status = json.loads(get(f"{url}/status.json"))
    assert status["runs"] == [[1, "efficientnet-lite0", "samples"]]
