"""Fixtures shared by many test packages."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from db.ledger.engine import Ledger
from db.settings import Settings, read_settings

_STATUS = pytest.StashKey[int]()
# Variables that a developer's shell may set and that tests and their child processes would read: settings of
# an installation, of database clients, of proxies and of the terminal.
_PERSONAL = re.compile(
    r"CONVSCOPE_(?!TEST_)\w+|PG[A-Z]+|GIT_\w+|\w+_PROXY|COLUMNS|LINES|(NO|FORCE)_COLOR|CLICOLOR\w*|LANGUAGE|LC_\w+",
    re.IGNORECASE,
)


def _settle_the_process() -> None:
    """Give this process and its children the same environment on every machine, whatever the developer's shell sets.

    Shells start background commands with Ctrl-C (SIGINT) ignored, and children inherit that; some tests send
    SIGINT, so its default handler is restored. Processes of pytest-xdist share the processors, and torch's
    threads in each of them would wait for one another, so torch gets one thread; it reads the number once, at
    import.
    """
    for name in list(filter(_PERSONAL.fullmatch, os.environ)):
        del os.environ[name]
    os.environ["LC_ALL"] = "C.UTF-8"
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_settle_the_process()  # not in pytest_configure: by then a conftest.py of a folder has imported torch


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty home in the test's own folder."""
    return read_settings({"CONVSCOPE_HOME": str(tmp_path / "home")})


@pytest.fixture(scope="session")
def migrated_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a ledger with tables and no rows, to be copied: migrating takes a third of a second."""
    made = Ledger(read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("migrated"))}))
    made.migrate()
    made.close()
    assert made.file is not None
    return made.file


@pytest.fixture
def ledger(settings: Settings, migrated_ledger: Path) -> Iterator[Ledger]:
    """A ledger with tables and no rows."""
    settings.home.mkdir(parents=True, exist_ok=True)
    shutil.copy(migrated_ledger, settings.home / migrated_ledger.name)
    found = Ledger(settings)
    found.migrate()
    yield found
    found.close()


@contextlib.contextmanager
def _only_read(home: Path) -> Iterator[None]:
    if os.getuid():
        folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o500)
        try:
            yield
        finally:
            for folder in folders:
                folder.chmod(0o700)
        return
    for command in (["mount", "--bind", home, home], ["mount", "-o", "remount,ro,bind", home]):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("root may write everywhere, and nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", home], check=True)


@pytest.fixture
def only_read() -> Callable[[Path], contextlib.AbstractContextManager[None]]:
    """Makes a home read-only within a block: by a mount for root, who may write everywhere, else by file modes."""
    return _only_read


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real photos and weights; skips the test if there is none."""
    given = os.environ.get("CONVSCOPE_TEST_DATA")
    if not given:
        pytest.skip("CONVSCOPE_TEST_DATA is not set: it names the folder with the ImageNet photos")
    folder = Path(given)
    assert folder.is_dir(), f"CONVSCOPE_TEST_DATA names {given!r}, which is not a folder"
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests recorded, one line per property, above pytest's own summary."""
    tables: dict[str, list[str]] = {}
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for table, line in report.user_properties if report.when == "call" else ():
            tables.setdefault(table, []).append(str(line))
    for table, lines in tables.items():
        terminalreporter.section(table)
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not hasattr(session.config, "workerinput"):  # workers of pytest-xdist must exit normally
        session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Exit without Python's own shutdown, once everything is done and reported.

    After Hypothesis has run, DuckDB's bindings find live objects at shutdown and print pages about them below
    pytest's summary, which should be the last line.
    """
    if _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])


@pytest.fixture(scope="session")
def small_convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder written by `save_pretrained`: a small ConvNeXt with random weights and 1,000 classes."""
    import torch

    from workers.torchvision_import import import_library

    library = import_library("transformers")
    torch.manual_seed(0)
    config = library.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64], num_labels=1000)
    folder = tmp_path_factory.mktemp("models") / "small-convnext"
    library.ConvNextForImageClassification(config).save_pretrained(folder)
    library.ConvNextImageProcessor(size={"shortest_edge": 224}).save_pretrained(folder)
    return folder
