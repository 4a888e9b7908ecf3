"""Managing image sets: what depends on a set, renaming, describing and removing it.

A set is in both stores. One transaction of the ledger ensures that no job works on the set and that none is
created until the change is done (`db.ledger.set_states`), and changes the set's rows; then the atlas follows.
A change that dies in between is completed by repeating it: until then no jobs are created for the set.
"""

import contextlib
import fcntl
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from db.atlas.image_sets import UNFINISHED_SECONDS, remove_images, remove_unlisted, set_name_problem
from db.atlas.store import Atlas, AtlasError, NoAtlas, Query
from db.ledger.engine import Ledger, now
from db.ledger.request_identity import content_key, key_in_set
from db.ledger.set_states import begin_change, end_change, set_changes_of
from db.ledger.tables import (
    UNFINISHED,
    Attack,
    AttackAblation,
    AttackLayer,
    AttackMap,
    AttackTransfer,
    AttackUnit,
    ImageImport,
    ImageSetNote,
    Job,
    JobItem,
    MapScore,
    SaliencyMap,
    SavedQuery,
)
from db.queries.inventory import image_sets
from db.stores.images import ImageStore
from db.stores.results import remove_results
from db.suggestions import choices

MAX_DESCRIPTION = 10_000
# Results with files: the table, its number column, its file columns.
_RESULTS: tuple[tuple[Any, Any, tuple[Any, ...]], ...] = (
    (
        SaliencyMap,
        SaliencyMap.map,
        (SaliencyMap.file, SaliencyMap.standard_error_file, SaliencyMap.input_file),
    ),
    (
        Attack,
        Attack.attack,
        (Attack.file, Attack.input_file, Attack.change_file, Attack.steps_file),
    ),
)
_MAP_FILES = (AttackMap.file, AttackMap.difference_file, AttackMap.standard_error_file)
_OF_ATTACKS: tuple[Any, ...] = (AttackUnit, AttackLayer, AttackMap, AttackTransfer, AttackAblation)


class NoSuchSet(LookupError):
    """There is no image set with that name; the message is one sentence."""


class SetNameTaken(ValueError):
    """Another image set has that name; the message is one sentence."""


class WrongSetName(ValueError):
    """The name is not valid for an image set; the message is one sentence."""


class SetBusy(RuntimeError):
    """Jobs are working on the set; the message is one sentence."""


@dataclass(frozen=True)
class Dependents:
    """What is deleted along with a set. `queries` are saved queries that name it: they stay, but will find nothing."""

    images: int
    runs: list[str]
    patches: int
    maps: int
    attacks: int
    jobs: int
    unfinished: int
    queries: list[str]


def dependents_of(atlas: Atlas, ledger: Ledger, image_set: str) -> Dependents:
    """Everything that depends on a set, in both stores.

    Raises:
        NoSuchSet: there is no set with that name.
    """
    images = _images_of(atlas, image_set)
    runs = _rows(
        atlas,
        Query(
            """
SELECT r.model, count(a.run) AS patches
FROM runs r LEFT JOIN activations a USING (run)
WHERE r.image_set = $image_set
GROUP BY r.model
ORDER BY r.model""",
            {"image_set": image_set},
        ),
    )

    with ledger.read() as connection:

        def count(table: Any, *conditions: Any) -> int:
            wanted = select(func.count()).select_from(table).where(table.image_set == image_set, *conditions)
            return int(connection.execute(wanted).scalar_one())

        # as an SQL string literal: other sets' names may contain this one
        naming = select(SavedQuery.name).where(SavedQuery.sql.contains(f"'{image_set}'", autoescape=True))
        found = Dependents(
            images=images or 0,
            runs=[row["model"] for row in runs],
            patches=sum(row["patches"] for row in runs),
            maps=count(SaliencyMap),
            attacks=count(Attack),
            jobs=count(Job),
            unfinished=count(Job, Job.state.in_(UNFINISHED)),
            queries=list(connection.execute(naming.order_by(SavedQuery.name)).scalars()),
        )
    # an interrupted removal can be repeated
    if images is None and not (found.maps or found.attacks or set_changes_of(ledger, image_set) % 2):
        raise _no_such_set(atlas, image_set)
    return found


def _no_such_set(atlas: Atlas, image_set: str) -> NoSuchSet:
    try:
        names = [row["image_set"] for row in atlas.fetch(image_sets())]
    except NoAtlas:
        names = []
    have = choices(image_set, names, nouns="image sets are") if names else "there is no image set yet"
    return NoSuchSet(f"there is no image set {image_set!r}; {have}")


def descriptions(ledger: Ledger) -> dict[str, str]:
    """Users' descriptions of image sets, by name."""
    with ledger.read() as connection:
        rows = connection.execute(select(ImageSetNote.image_set, ImageSetNote.description)).all()
    return {name: text for name, text in rows}  # noqa: C416  # mypy does not accept rows as pairs


def describe_set(atlas: Atlas, ledger: Ledger, image_set: str, description: str) -> None:
    """Store the description of a set, replacing the previous one.

    Raises:
        NoSuchSet: there is no set with that name.
    """
    if _images_of(atlas, image_set) is None:
        raise _no_such_set(atlas, image_set)
    with ledger.write() as connection:
        connection.execute(delete(ImageSetNote).where(ImageSetNote.image_set == image_set))
        if description:
            connection.execute(
                insert(ImageSetNote).values(image_set=image_set, description=description, changed=now())
            )


def rename_set(atlas: Atlas, store: ImageStore, ledger: Ledger, image_set: str, name: str) -> None:
    """Rename a set in the atlas and in all rows of the ledger. The text of saved queries is not changed.

    Raises:
        NoSuchSet, SetNameTaken, WrongSetName: the set cannot be renamed.
        SetBusy, StoreBusy: it is in use.
    """
    problem = set_name_problem(name)
    if problem is not None:
        raise WrongSetName(f"name: {problem}")
    with store.removing():
        if _images_of(atlas, image_set) is None:
            raise _no_such_set(atlas, image_set)
        if _images_of(atlas, name) is not None:
            raise SetNameTaken(f"an image set named {name!r} already exists: choose another name")
        names = (image_set, name)
        with ledger.write() as connection:
            begin_change(connection, names)
            for busy in names:
                _check_idle(connection, busy)
            _remove_leftovers(connection, name)
            _rename_rows(connection, image_set, name)
        try:
            with atlas.publish() as published:
                for table in ("image_sets", "images", "runs", "label_choices"):
                    published.execute(
                        f"UPDATE {table} SET image_set = $name WHERE image_set = $image_set",
                        {"image_set": image_set, "name": name},
                    )
        except BaseException:
            with ledger.write() as connection:
                _rename_rows(connection, name, image_set)
            end_change(ledger, names)
            raise
        end_change(ledger, names)


def remove_image_set(atlas: Atlas, store: ImageStore, ledger: Ledger, image_set: str) -> Dependents:
    """Remove a set with its runs, jobs, maps and attacks, and the files that nothing else needs.

    The user's own files are kept. The atlas's file shrinks by the size of the set.

    Raises:
        NoSuchSet: there is no set with that name.
        SetBusy, StoreBusy: the set is in use, or images are being imported.
    """
    with store.removing():
        gone = dependents_of(atlas, ledger, image_set)
        with ledger.write() as connection:
            begin_change(connection, [image_set])
            _check_idle(connection, image_set)
            files = _remove_rows(connection, image_set)
        try:
            remove_results(store.home, files)
            if _images_of(atlas, image_set) is not None:
                with atlas.publish(compact=True) as published:
                    orphans = remove_images(published, image_set)
                # After the publication: an extra file is harmless, a missing one is not.
                store.remove(orphans.keys, orphans.originals)
            remove_builds(store.home, image_set)
        finally:
            end_change(ledger, [image_set])  # the set is gone, or exists without results
    with contextlib.suppress(AtlasError):
        remove_unlisted(atlas, store, older_than=UNFINISHED_SECONDS)  # left by killed imports
    return gone


def remove_builds(home: Path, image_set: str) -> None:
    """Remove files left in `builds` by interrupted indexing of a set; builds locked by another process are kept."""
    for facts in (home / "builds").glob("*/facts.json"):
        folder = facts.parent
        try:
            of = json.loads(facts.read_text()).get("image set")
            with (folder / "LOCK").open("a") as lock:
                if of == image_set:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
        except (OSError, ValueError):  # in use, already gone, or not a build of ours
            continue


def _check_idle(connection: Connection, image_set: str) -> None:
    numbers = connection.execute(
        select(Job.job).where(Job.image_set == image_set, Job.state.in_(UNFINISHED)).order_by(Job.job)
    ).scalars()
    waiting = list(numbers)
    if waiting:
        jobs = "job" if len(waiting) == 1 else "jobs"
        raise SetBusy(
            f"{jobs} {', '.join(map(str, waiting[:5]))} on {image_set!r} have not ended yet: wait, or cancel them"
        )


def _rename_rows(connection: Connection, before: str, after: str) -> None:
    for table, number, _ in _RESULTS:
        rows = connection.execute(
            select(number, table.key, table.question, table.image_id).where(table.image_set == before)
        ).all()
        keys = [
            {
                "number": row[0],
                "named": _key(row.question, row.key, after, row.image_id),
            }
            for row in rows
        ]
        if keys:
            named = update(table.__table__).where(number == bindparam("number"))
            connection.execute(named.values(image_set=after, key=bindparam("named")), keys)
    connection.execute(update(ImageImport).where(ImageImport.image_set == before).values(image_set=after))
    connection.execute(delete(ImageSetNote).where(ImageSetNote.image_set == after))
    connection.execute(update(ImageSetNote).where(ImageSetNote.image_set == before).values(image_set=after))
    found = connection.execute(
        select(Job.job, Job.key, Job.question, Job.parameters).where(Job.image_set == before)
    ).all()
    for job, key, question, parameters in found:
        named = parameters | {"image_set": after} if "image_set" in parameters else parameters
        other = _key(question, key, after)
        # a failed job to create a set with the new name may have been the same request
        taken = connection.execute(select(Job.job).where(Job.key == other)).scalar()
        if taken is not None:
            connection.execute(update(Job).where(Job.job == taken).values(key=content_key(other, taken)))
        connection.execute(
            update(Job).where(Job.job == job).values(image_set=after, key=other, parameters=named)
        )


def _key(question: str | None, key: str, image_set: str, *image_id: int) -> str:
    """The key under another set's name. Rows from older versions have no question and are never looked up by key."""
    return key_in_set(question or key, image_set, *image_id)


def _remove_leftovers(connection: Connection, image_set: str) -> None:
    """Remove leftover results under an unused name before a set takes it."""
    for table, _, _ in _RESULTS:
        wanted = select(func.count()).select_from(table).where(table.image_set == image_set)
        if connection.execute(wanted).scalar_one():
            _remove_rows(connection, image_set)


def _remove_rows(connection: Connection, image_set: str) -> set[str]:
    """Remove all ledger rows of a set; returns the files that no row refers to now."""
    files: set[str] = set()
    attacks = select(Attack.attack).where(Attack.image_set == image_set)
    maps = select(SaliencyMap.map).where(SaliencyMap.image_set == image_set)
    files |= _files(connection, select(*_MAP_FILES).where(AttackMap.attack.in_(attacks)))
    connection.execute(delete(MapScore).where(MapScore.map.in_(maps)))
    for of_attack in _OF_ATTACKS:
        connection.execute(delete(of_attack).where(of_attack.attack.in_(attacks)))
    for table, _, columns in _RESULTS:
        files |= _files(connection, select(*columns).where(table.image_set == image_set))
        connection.execute(delete(table).where(table.image_set == image_set))
    for table in (ImageImport, ImageSetNote):
        connection.execute(delete(table).where(table.image_set == image_set))
    jobs = select(Job.job).where(Job.image_set == image_set)
    connection.execute(delete(JobItem).where(JobItem.job.in_(jobs)))
    connection.execute(delete(Job).where(Job.image_set == image_set))
    for _, _, columns in _RESULTS:
        files -= _files(connection, select(*columns))
    return files - _files(connection, select(*_MAP_FILES))


def _files(connection: Connection, wanted: Any) -> set[str]:
    return {file for row in connection.execute(wanted) for file in row if file is not None}


def _images_of(atlas: Atlas, image_set: str) -> int | None:
    query = Query("SELECT images FROM image_sets WHERE image_set = $image_set", {"image_set": image_set})
    found = _rows(atlas, query)
    return int(found[0]["images"]) if found else None


def _rows(atlas: Atlas, query: Query) -> list[Any]:
    try:
        return atlas.fetch(query)
    except NoAtlas:
        return []
