"""How an atlas of an older version of the schema becomes one of the present version.

    older file (read only) -> v0003 -> v0004 -> ... -> present tables in a new file

Each module is one step: a pure function from the columns of the older version to SQL, a query for each table that
differs in the next version. Steps read each other's queries, so a chain of any length writes every row once, and no
file is altered in place. A step to a version 5 is one module, one line in `STEPS` and the tables in `db.atlas.schema`;
the last line of `STEPS` states the present version. Tables never change without a new version.
"""

from db.atlas.migrations import v0003, v0004, v0004_additions
from db.atlas.migrations.steps import Step

STEPS: tuple[Step, ...] = (
    Step(1, 3, v0003.tables),  # no published code wrote version 2
    Step(3, 4, v0004.tables),
    Step(4, 4, v0004_additions.tables),
)


def latest_version() -> int:
    """The version of the schema that this code reads and writes."""
    return STEPS[-1].after


def known_versions() -> frozenset[int]:
    """The versions that this code reads or upgrades."""
    return frozenset(step.before for step in STEPS) | {latest_version()}
