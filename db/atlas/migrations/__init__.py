"""Upgrades an atlas from an older schema version to the current one.

    older file (read only) -> v0003 -> v0004 -> ... -> current tables in a new file

Each module is one step: a pure function from the older version's columns to SQL, one query per table that
differs in the next version. Steps read each other's queries, so a chain of any length writes every row once, and no
file is altered in place. A step to a version 5 is one module, one line in `STEPS` and the tables in `db.atlas.schema`;
the last line of `STEPS` defines the current version. Tables never change without a new version.
"""

from db.atlas.migrations import v0003, v0004, v0004_additions
from db.atlas.migrations.steps import Step

STEPS: tuple[Step, ...] = (
    Step(1, 3, v0003.tables),  # no released code wrote version 2
    Step(3, 4, v0004.tables),
    Step(4, 4, v0004_additions.tables),
)


def latest_version() -> int:
    """The schema version that this code reads and writes."""
    return STEPS[-1].after


def known_versions() -> frozenset[int]:
    """The schema versions that this code can read or upgrade."""
    return frozenset(step.before for step in STEPS) | {latest_version()}
