"""Image sets as people manage them: what depends on one, another name, a description, its end.

A set lies in both stores. A change goes to the ledger and the atlas so that one which dies in between is made whole by
asking again; nothing is changed while a job or an import works on the set.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from db.atlas import Atlas, NoAtlas, Query
from db.image_sets import remove_images, set_name_problem
from db.images import ImageStore
from db.ledger import Ledger, now
from db.ledger_tables import (
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
from db.results import remove_results

MOST_DESCRIPTION = 10_000
# Results with files: the table, its number, the kind of jobs that make it, columns of files.
_RESULTS: tuple[tuple[Any, Any, str, tuple[Any, ...]], ...] = (
    (
        SaliencyMap,
        SaliencyMap.map,
        "saliency",
        (SaliencyMap.file, SaliencyMap.standard_error_file, SaliencyMap.input_file),
    ),
    (
        Attack,
        Attack.attack,
        "attack",
        (Attack.file, Attack.input_file, Attack.change_file, Attack.steps_file),
    ),
)
_MAP_FILES = (AttackMap.file, AttackMap.difference_file, AttackMap.standard_error_file)
_OF_ATTACKS: tuple[Any, ...] = (AttackUnit, AttackLayer, AttackMap, AttackTransfer, AttackAblation)


class NoSuchSet(LookupError):
    """There is no image set of that name; the message is one sentence."""


class SetNameTaken(ValueError):
    """Another image set has that name; the message is one sentence."""


class WrongSetName(ValueError):
    """No image set can have that name; the message is one sentence."""


class SetBusy(RuntimeError):
    """Jobs work on the set; the message is one sentence."""


@dataclass(frozen=True)
class Dependents:
    """What goes away with a set. `queries` are those of the saved ones that name it: they stay, and find nothing."""

    images: int
    runs: list[str]
    patches: int
    maps: int
    attacks: int
    jobs: int
    unfinished: int
    queries: list[str]


def dependents_of(atlas: Atlas, ledger: Ledger, image_set: str) -> Dependents:
    """What depends on a set, in both stores.

    Raises:
        NoSuchSet: there is none of that name.
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

        # as a text in SQL: other sets' names may hold this one
        naming = select(SavedQuery.name).where(SavedQuery.sql.contains(f"'{image_set}'", autoescape=True))
        found = Dependents(
            images=images or 0,
            runs=[row["model"] for row in runs],
            patches=sum(row["patches"] for row in runs),
            maps=count(SaliencyMap),
            attacks=count(Attack),
            jobs=count(Job),
            unfinished=count(Job, Job.state.in_(("queued", "running"))),
            queries=list(connection.execute(naming.order_by(SavedQuery.name)).scalars()),
        )
    if images is None and not (found.maps or found.attacks):
        raise NoSuchSet(f"there is no image set {image_set!r}")
    return found


def descriptions(ledger: Ledger) -> dict[str, str]:
    """What people wrote about image sets, by name."""
    with ledger.read() as connection:
        rows = connection.execute(select(ImageSetNote.image_set, ImageSetNote.description)).all()
    return {name: text for name, text in rows}  # noqa: C416  # rows are no pairs to mypy


def describe_set(atlas: Atlas, ledger: Ledger, image_set: str, description: str) -> None:
    """Keep what somebody wrote about a set, in place of what was written before.

    Raises:
        NoSuchSet: there is none of that name.
    """
    if _images_of(atlas, image_set) is None:
        raise NoSuchSet(f"there is no image set {image_set!r}")
    with ledger.write() as connection:
        connection.execute(delete(ImageSetNote).where(ImageSetNote.image_set == image_set))
        if description:
            connection.execute(
                insert(ImageSetNote).values(image_set=image_set, description=description, changed=now())
            )


def rename_set(atlas: Atlas, store: ImageStore, ledger: Ledger, image_set: str, name: str) -> None:
    """Give a set another name, in the atlas and in all rows of the ledger. Saved queries stay as they were typed.

    Raises:
        NoSuchSet, SetNameTaken, WrongSetName: it cannot be.
        SetBusy, StoreBusy: somebody works on it.
    """
    problem = set_name_problem(name)
    if problem is not None:
        raise WrongSetName(f"name: {problem}")
    with store.removing():
        if _images_of(atlas, image_set) is None:
            raise NoSuchSet(f"there is no image set {image_set!r}")
        if _images_of(atlas, name) is not None:
            raise SetNameTaken(f"there is an image set {name!r} already: choose another name")
        with ledger.write() as connection:
            for busy in (image_set, name):
                _check_idle(connection, busy)
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
            raise


def remove_image_set(atlas: Atlas, store: ImageStore, ledger: Ledger, image_set: str) -> Dependents:
    """Remove a set with its runs, jobs, maps and attacks, and the files that nothing else needs.

    A person's own files stay.

    Raises:
        NoSuchSet: there is none of that name.
        SetBusy, StoreBusy: somebody works on it, or imports images.
    """
    with store.removing():
        gone = dependents_of(atlas, ledger, image_set)
        with ledger.read() as reading:
            _check_idle(reading, image_set)
        if _images_of(atlas, image_set) is not None:
            with atlas.publish() as published:
                orphans = remove_images(published, image_set)
            # After the publication: a file too many is harmless, a file too few is not.
            store.remove(orphans.keys, orphans.originals)
        with ledger.write() as connection:
            files = _remove_rows(connection, image_set)
        remove_results(store.home, files)
    return gone


def _check_idle(connection: Connection, image_set: str) -> None:
    numbers = connection.execute(
        select(Job.job)
        .where(Job.image_set == image_set, Job.state.in_(("queued", "running")))
        .order_by(Job.job)
    ).scalars()
    waiting = list(numbers)
    if waiting:
        jobs = "job" if len(waiting) == 1 else "jobs"
        raise SetBusy(
            f"{jobs} {', '.join(map(str, waiting[:5]))} on {image_set!r} did not end yet: wait, or cancel them"
        )


def _rename_rows(connection: Connection, before: str, after: str) -> None:
    for table in (SaliencyMap, Attack, ImageImport):
        connection.execute(update(table).where(table.image_set == before).values(image_set=after))
    connection.execute(delete(ImageSetNote).where(ImageSetNote.image_set == after))
    connection.execute(update(ImageSetNote).where(ImageSetNote.image_set == before).values(image_set=after))
    found = connection.execute(select(Job.job, Job.key, Job.parameters).where(Job.image_set == before)).all()
    for job, key, parameters in found:
        named = parameters | {"image_set": after} if "image_set" in parameters else parameters
        # a request for a new set of the old name is another one
        other = hashlib.sha256(f"{key} {after}".encode()).hexdigest()
        connection.execute(
            update(Job).where(Job.job == job).values(image_set=after, key=other, parameters=named)
        )


def _remove_rows(connection: Connection, image_set: str) -> set[str]:
    """Remove what the ledger has of a set; gives the files that no row names any more."""
    files: set[str] = set()
    attacks = select(Attack.attack).where(Attack.image_set == image_set)
    maps = select(SaliencyMap.map).where(SaliencyMap.image_set == image_set)
    files |= _files(connection, select(*_MAP_FILES).where(AttackMap.attack.in_(attacks)))
    connection.execute(delete(MapScore).where(MapScore.map.in_(maps)))
    for of_attack in _OF_ATTACKS:
        connection.execute(delete(of_attack).where(of_attack.attack.in_(attacks)))
    for table, number, kind, columns in _RESULTS:
        _hand_over(connection, table, number, kind, image_set)
        files |= _files(connection, select(*columns).where(table.image_set == image_set))
        connection.execute(delete(table).where(table.image_set == image_set))
    for table in (ImageImport, ImageSetNote):
        connection.execute(delete(table).where(table.image_set == image_set))
    jobs = select(Job.job).where(Job.image_set == image_set)
    connection.execute(delete(JobItem).where(JobItem.job.in_(jobs)))
    connection.execute(delete(Job).where(Job.image_set == image_set))
    for _, _, _, columns in _RESULTS:
        files -= _files(connection, select(*columns))
    return files - _files(connection, select(*_MAP_FILES))


def _hand_over(connection: Connection, table: Any, number: Any, kind: str, image_set: str) -> None:
    """Results that jobs over other sets share, since the image is in both, become those sets' own."""
    shared = connection.execute(
        select(number, Job.job, Job.image_set, JobItem.image_id)
        .join(JobItem, JobItem.result == number)
        .join(Job, Job.job == JobItem.job)
        .where(table.image_set == image_set, Job.image_set != image_set, Job.kind == kind)
        .order_by(JobItem.item)
    ).all()
    for result, job, other, image_id in {row[0]: row for row in shared}.values():
        connection.execute(
            update(table).where(number == result).values(job=job, image_set=other, image_id=image_id)
        )


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
