"""A PostgreSQL server for the tests."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def server_programs() -> Path | None:
    """Return the folder with `initdb` and `pg_ctl`, or None if PostgreSQL is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    found = shutil.which("initdb")
    return None if found is None else Path(found).parent


@contextlib.contextmanager
def postgres_server(programs: Path, folder: Path) -> Iterator[str]:
    """Yield the URL of a server that runs during the block, on a socket in `folder`; the database is `postgres`.

    PostgreSQL refuses to run as root, so for root the server runs as the package's own user.
    """
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    folder.chmod(0o700)
    data = folder / "data"

    def call(*words: str) -> None:
        subprocess.run([*user, *words], check=True, capture_output=True, cwd="/", timeout=60)

    call(str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "convscope", "--no-sync")
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    call(str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://convscope@/postgres?host={folder}"
    finally:
        call(str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")


@contextlib.contextmanager
def installed_postgres() -> Iterator[tuple[str, Path]]:
    """Yield URL and socket folder of a server that runs during the block; skip if none is installed."""
    programs = server_programs()
    if programs is None:
        pytest.skip("NO POSTGRESQL: neither /usr/lib/postgresql nor the PATH has an initdb")
    # socket paths must be short, and another user must reach this one
    with (
        tempfile.TemporaryDirectory(prefix="convscope-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        postgres_server(programs, Path(folder)) as url,
    ):
        yield url, Path(folder)
