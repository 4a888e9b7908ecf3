"""Indexes that are being built right now, seen from outside.

An index under way holds a lock on its folder in `<home>/builds`. Trying the lock could keep a starting build
out of its own folder, so the system's list of locks is read instead; where there is none (only Linux has it),
nothing is said.
"""

import json
from pathlib import Path

LOCKS = Path("/proc/locks")


def builds_under_way(home: Path, locks: Path = LOCKS) -> list[tuple[str, str]]:
    """(model, image set) of each index that a living process builds in `home`."""
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
            continue  # it ended while we looked
    return found


def _locked_files(locks: Path) -> set[int]:
    """Inodes of files that are locked as a whole: `1: FLOCK  ADVISORY  WRITE 4242 08:01:131 0 EOF`."""
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
