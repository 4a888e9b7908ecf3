"""A command restarts itself with the C library settings, once, and only where that helps."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from workers.models.speedups.runtime import SETTINGS

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc and its OpenMP"
)
ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, sys
print("start", os.getpid(), flush=True)
{first}
from workers.models.speedups.runtime import restart_with_settings
restart_with_settings()
print("started", os.environ.get("MALLOC_MMAP_THRESHOLD_"), sys.argv[1:])
"""


def started(folder: Path, *, first: str = "", **environment: str) -> list[str]:
    script = folder / "command.py"
    script.write_text(SCRIPT.format(first=first))
    inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), "a b", "--c"],
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_process_restarts_once_with_its_arguments_and_pid(tmp_path: Path) -> None:
    lines = started(tmp_path)
    assert len(lines) == 3
    assert lines[0] == lines[1]
    assert lines[2] == f"started {SETTINGS['MALLOC_MMAP_THRESHOLD_']} ['a b', '--c']"


def test_a_user_setting_is_kept(tmp_path: Path) -> None:
    lines = started(tmp_path, MALLOC_MMAP_THRESHOLD_="1000000")
    assert lines[2:] == ["started 1000000 ['a b', '--c']"]


def test_it_is_too_late_once_torch_is_loaded(tmp_path: Path) -> None:
    lines = started(tmp_path, first="sys.modules['torch'] = sys")
    assert lines[1:] == ["started None ['a b', '--c']"]
