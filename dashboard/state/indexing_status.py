"""Detects indexes that other processes are currently building.

A running build holds a lock on its folder in `<home>/builds`. Trying to take the lock could block a build
that is just starting, so this reads the system's list of locks instead. Only Linux has one; elsewhere no
builds are reported.
"""

import json
from pathlib import Path

LOCKS = Path("/proc/locks")


def builds_under_way(home: Path, locks: Path = LOCKS) -> list[tuple[str, str]]:
    """(model, image set) of each index that a running process builds in `home`."""
    folders = sorted((home / "builds").glob("*/LOCK"))
    if not folders:
        return []
    held = _locked_files(locks)
    found = []
    for lock in folders:
        try:
            if lock.stat().st_ino not in held:
                continue
            facts = json.loads((lock.parent / "facts.json").read_text())
            found.append((str(facts["model"]), str(facts["image set"])))
        except (OSError, ValueError, KeyError):
            continue  # the build ended in the meantime
    return found


def _locked_files(locks: Path) -> set[int]:
    """Inodes of files locked as a whole: `1: FLOCK  ADVISORY  WRITE 4242 08:01:131 0 EOF`."""
    try:
        lines = locks.read_text().splitlines()
    except OSError:
        return set()
    fields = [line.split() for line in lines]
    return {
        int(parts[5].rsplit(":", 1)[1])
        for parts in fields
        if len(parts) > 5 and parts[1] == "FLOCK" and parts[5].rsplit(":", 1)[-1].isdigit()
    }
