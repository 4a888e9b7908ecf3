"""The container's health: the web server answers, or this host's worker sent a heartbeat."""

import contextlib
import os
import socket
import sys
import tempfile
import urllib.request
from pathlib import Path

from db.ledger.engine import Ledger, LedgerError
from db.queries.jobs import workers
from db.settings import read_settings


def main() -> int:
    """0 healthy, 1 not."""
    with contextlib.suppress(FileNotFoundError):
        role = (Path(tempfile.gettempdir()) / "convscope-role").read_text().strip()
        if role == "worker":
            try:
                found = workers(Ledger(read_settings()))
            except LedgerError as error:
                print(error)
                return 1
            mine = [worker for worker in found if worker["worker"].startswith(socket.gethostname() + ":")]
            return 0 if any(not worker["silent"] for worker in mine) else 1
    try:
        port = os.environ.get("CONVSCOPE_PORT", "8050")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health.json", timeout=5) as answer:
            return 0 if answer.status == 200 else 1
    except OSError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
