"""A home is inspected before it is changed: older ones open, others are refused and left unchanged byte for byte."""

import shutil
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb
import pytest
from older_atlas import MOMENT, TABLES, write_older_atlas
from sqlalchemy import text

from db.atlas.migrations import latest_version
from db.atlas.store import Atlas, AtlasError, Query
from db.home import HomeError, open_atlas, open_home
from db.ledger.engine import Ledger, LedgerError, ReadOnlyHome, head
from db.settings import Settings, read_settings

OnlyRead = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Homes as older versions left them, with a saved query, by the shape of their atlas."""
    folder = tmp_path_factory.mktemp("older")
    for shape in TABLES:
        settings = read_settings({"CONVSCOPE_HOME": str(folder / shape)})
        write_older_atlas(settings.home, shape)
        ledger = Ledger(settings)
        ledger.migrate("0004")
        with ledger.write() as connection:
            connection.execute(
                text(
                    "INSERT INTO saved_queries (name, sql, created, changed) VALUES ('kept', 'SELECT 1', :now, :now)"
                ),
                {"now": MOMENT},
            )
        ledger.close()
    return folder


@pytest.fixture
def older(settings: Settings, templates: Path) -> Settings:
    """Settings of a copy of such a home, with an atlas of version 3."""
    shutil.copytree(templates / "3b", settings.home)
    return settings


def contents(home: Path) -> dict[str, bytes]:
    """Return every file's bytes, by path."""
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def rows(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in Atlas(settings).fetch(Query(sql))]


# What each shape of an atlas stored of what later ones have: dhash, fit, crop_rounding, digest, rf_exact, how
# a label was matched, and whether it has responses and modules.
KEPT: dict[str, tuple[object, ...]] = {
    "1": (None, "exact", "half_even", "w", None, "case", 0, 0),
    "1b": (None, "exact", "down", "d", True, "case", 0, 0),
    "3": (77, "exact", "down", "d", True, "case", 0, 0),
    "3b": (77, "exact", "down", "d", True, "case", 1, 0),
    "4": (77, "exact", "down", "d", True, "settled", 1, 0),
    "4b": (77, "contain", "down", "d", True, "settled", 1, 1),
}


@pytest.mark.parametrize("shape", TABLES)
def test_an_older_home_opens_with_all_that_it_had(settings: Settings, templates: Path, shape: str) -> None:
    shutil.copytree(templates / shape, settings.home)
    ledger = open_home(settings)
    assert ledger.revision() == head()
    with ledger.read() as connection:
        assert connection.execute(text("SELECT name FROM saved_queries")).scalars().all() == ["kept"]
    ledger.close()
    published = "000007.duckdb" if shape == "4b" else "000008.duckdb"
    assert [path.name for path in (settings.home / "atlas").glob("*.duckdb*")] == [published]
    assert Atlas(settings).schema() == latest_version()
    assert rows(
        settings, "SELECT image_id, label, dhash, created FROM images JOIN image_sets USING (image_set)"
    ) == [
        (0, "crane", KEPT[shape][0], MOMENT),
        (1, None, KEPT[shape][0], MOMENT),
    ]
    [(mean, name, *kept)] = rows(
        settings,
        "SELECT mean, c.name, fit, crop_rounding, digest, rf_exact, how, (SELECT count(*) FROM responses), "
        "(SELECT count(*) FROM modules) FROM models JOIN classes c USING (vocabulary) JOIN layers USING (model) "
        "JOIN label_matches USING (class_index)",
    )
    assert (mean, name) == (pytest.approx([0.1, 0.2, 0.3]), "Crane")
    assert tuple(kept) == KEPT[shape][1:]
    # cell (3, 4) sees [2y - 2, 2y + 3) x [2x - 2, 2x + 3) of an input of 8 x 10
    box = {"y0": 4, "x0": 6, "y1": 8, "x1": 10}
    assert rows(settings, "SELECT image_id, activation, box FROM patches WHERE rank = 1") == [(1, 0.5, box)]
    assert rows(settings, "SELECT run, seconds, finished FROM runs") == [(3, 1.5, MOMENT)]
    matches = [(3, "crane", None, 1, KEPT[shape][5], 0, [])]
    assert rows(settings, "SELECT * FROM label_matches") == matches
    with Atlas(settings).publish() as connection:
        assert connection.execute("SELECT nextval('run_numbers')").fetchone() == (4,)
    before = contents(settings.home)
    open_home(settings).close()
    assert before == {name: data for name, data in contents(settings.home).items() if name in before}


def test_the_atlas_alone_opens_an_older_home_whole(older: Settings) -> None:
    assert len(open_atlas(older).fetch(Query("SELECT fit FROM models"))) == 1
    assert Ledger(older).revision() == head()


def newer_atlas(settings: Settings) -> None:
    with duckdb.connect(str(settings.home / "atlas" / "000007.duckdb")) as connection:
        connection.execute("UPDATE atlas_info SET schema_version = 99")


def newer_ledger(settings: Settings) -> None:
    ledger = Ledger(settings)
    with ledger.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ledger.close()


def garbage_in_the_ledger(settings: Settings) -> None:
    (settings.home / "ledger.sqlite").write_bytes(b"no database at all" * 1000)


def garbage_in_the_atlas(settings: Settings) -> None:
    (settings.home / "atlas" / "000007.duckdb").write_bytes(b"no database at all" * 1000)


def empty_atlas(settings: Settings) -> None:
    (settings.home / "atlas" / "000007.duckdb").write_bytes(b"")


def no_atlas_file(settings: Settings) -> None:
    (settings.home / "atlas" / "000007.duckdb").unlink()


def another_database(settings: Settings) -> None:
    no_atlas_file(settings)
    duckdb.connect(str(settings.home / "atlas" / "000007.duckdb")).close()


def wrong_pointer(settings: Settings) -> None:
    (settings.home / "atlas" / "CURRENT").write_bytes(b"\xff\xfe../../etc")


def pointer_to_nothing(settings: Settings) -> None:
    (settings.home / "atlas" / "CURRENT").write_text("000099\n")


def no_pointer(settings: Settings) -> None:
    (settings.home / "atlas" / "CURRENT").unlink()


REFUSED: dict[Callable[[Settings], None], tuple[type[Exception], str]] = {
    newer_atlas: (
        AtlasError,
        r"atlas/000007\.duckdb has tables of version 99, and Convscope \S+ reads version 4: use the newer Convscope",
    ),
    newer_ledger: (
        LedgerError,
        r"ledger\.sqlite has tables of revision 9999, Convscope \S+ knows up to \d+: use the newer Convscope",
    ),
    garbage_in_the_ledger: (
        LedgerError,
        r"ledger\.sqlite cannot be read, .*restore a backup, or move it away",
    ),
    garbage_in_the_atlas: (AtlasError, r"000007\.duckdb cannot be opened, .*restore a backup of .*atlas"),
    empty_atlas: (AtlasError, r"000007\.duckdb cannot be opened, .*restore a backup of .*atlas"),
    no_atlas_file: (AtlasError, r"000007\.duckdb is missing, but .*CURRENT names .*restore a backup"),
    another_database: (AtlasError, r"000007\.duckdb is not an atlas, or it is damaged: .*restore a backup"),
    wrong_pointer: (
        AtlasError,
        r"CURRENT is damaged: .*write 000007 into it, the newest atlas in the folder",
    ),
    pointer_to_nothing: (
        AtlasError,
        r"000099\.duckdb is missing, but .*CURRENT names .*write 000007 into it",
    ),
    no_pointer: (AtlasError, r"CURRENT is missing, .*write 000007 into it"),
}


@pytest.mark.parametrize("damage", REFUSED, ids=lambda damage: damage.__name__)
def test_a_home_that_cannot_be_opened_is_left_as_it_is(
    older: Settings, damage: Callable[[Settings], None]
) -> None:
    damage(older)
    before = contents(older.home)
    kind, sentence = REFUSED[damage]
    with pytest.raises(kind, match=sentence) as caught:
        open_home(older)
    assert "\n" not in str(caught.value)
    assert contents(older.home) == before


def whole(home: Path) -> dict[str, bytes]:
    """Return the files that a user could lose, with their bytes: lock files are empty."""
    return {name: data for name, data in contents(home).items() if "LOCK" not in name}


def test_an_upgrade_that_fails_changes_nothing(older: Settings) -> None:
    with duckdb.connect(str(older.home / "atlas" / "000007.duckdb")) as connection:
        connection.execute("UPDATE image_sets SET images = 5")
    before = whole(older.home)
    with pytest.raises(
        AtlasError, match=r"the invariant 'image_sets[.]images is the number of images' does not hold for 's'"
    ):
        open_home(older)
    assert whole(older.home) == before


def test_an_upgrade_killed_between_the_stores_is_completed_by_the_next_start(
    older: Settings,
) -> None:
    ledger = Ledger(older)

    def killed() -> None:
        ledger.migrate()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Atlas(older).upgrade(meanwhile=killed)
    assert Atlas(older).schema() == 3
    ledger.close()
    open_home(older).close()
    assert Atlas(older).schema() == latest_version()


def test_an_older_home_that_is_read_only_is_refused_and_left(older: Settings, only_read: OnlyRead) -> None:
    before = contents(older.home)
    with (
        only_read(older.home),
        pytest.raises(
            HomeError,
            match=r"is read-only and has an atlas of version 3 and a ledger of revision 0004, .* open it once where",
        ),
    ):
        open_home(older)
    assert contents(older.home) == before


def test_a_read_only_home_is_read_and_refuses_writes(older: Settings, only_read: OnlyRead) -> None:
    open_home(older).close()
    before = contents(older.home)
    with only_read(older.home):
        ledger = open_home(older)
        with ledger.read() as connection:
            assert connection.execute(text("SELECT name FROM saved_queries")).scalars().all() == ["kept"]
        assert rows(older, "SELECT count(*) AS n FROM images") == [(2,)]
        with pytest.raises(ReadOnlyHome, match="is read-only: Convscope shows it"), ledger.write():
            pass
        ledger.close()
        assert contents(older.home) == before


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_and_its_ledger_are_private(settings: Settings) -> None:
    ledger = open_home(settings)
    assert mode(settings.home) == 0o700
    with ledger.write() as connection:
        connection.execute(text("DELETE FROM saved_queries"))
        beside = [settings.home / f"ledger.sqlite{end}" for end in ("", "-wal", "-shm")]
        assert [mode(path) for path in beside] == [0o600] * 3
    ledger.close()


def test_a_password_closes_a_home_that_was_open_to_all(older: Settings) -> None:
    older.home.chmod(0o755)
    (older.home / "ledger.sqlite").chmod(0o644)
    open_home(older).close()
    assert mode(older.home) == 0o755, "without a password it stays as its owner made it"
    guarded = read_settings({"CONVSCOPE_HOME": str(older.home), "CONVSCOPE_PASSWORD": "long enough"})
    open_home(guarded).close()
    assert mode(older.home) == 0o700
    assert mode(older.home / "ledger.sqlite") == 0o600
    assert mode(older.home / "atlas") == 0o700


def test_a_home_that_a_group_shares_stays_the_groups(older: Settings) -> None:
    older.home.chmod(0o2775)
    (older.home / "ledger.sqlite").chmod(0o664)
    guarded = read_settings({"CONVSCOPE_HOME": str(older.home), "CONVSCOPE_PASSWORD": "long enough"})
    open_home(guarded).close()
    assert mode(older.home) == 0o2770
    assert mode(older.home / "ledger.sqlite") == 0o660


@pytest.mark.parametrize("found", [0o1777, 0o755])
def test_a_folder_that_serves_other_things_too_is_not_closed(tmp_path: Path, found: int) -> None:
    (tmp_path / "mine.txt").write_text("not Convscope's")
    tmp_path.chmod(found)
    guarded = read_settings({"CONVSCOPE_HOME": str(tmp_path), "CONVSCOPE_PASSWORD": "long enough"})
    open_home(guarded).close()
    assert mode(tmp_path) == found
    assert mode(tmp_path / "ledger.sqlite") == 0o600
    if found & stat.S_ISVTX:  # the ledger now marks it as a home, and it is still world-writable
        open_home(guarded).close()
        assert mode(tmp_path) == found
