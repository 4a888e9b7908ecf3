"""Migration steps of the atlas: each yields its version's recorded tables, and a new one is a module and a line."""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pytest
from older_atlas import TABLES, write_older_atlas

from db.atlas import migrations, schema
from db.atlas.migrations import STEPS, latest_version, v0003, v0004, v0004_additions
from db.atlas.migrations.chain import attach
from db.atlas.migrations.steps import OlderAtlas, Step
from db.atlas.store import Atlas, AtlasError, Query
from db.home import open_home
from db.settings import Settings


def recorded(shape: str) -> dict[str, dict[str, str]]:
    """Return column types by name, by table, of a shape that published code wrote."""
    with duckdb.connect() as connection:
        connection.execute(TABLES[shape])
        return column_types(connection, "memory", "main", "duckdb_tables")


def column_types(
    connection: duckdb.DuckDBPyConnection, database: str, in_schema: str, listing: str
) -> dict[str, dict[str, str]]:
    name = listing.removeprefix("duckdb_").removesuffix("s") + "_name"
    rows = connection.execute(
        f"""
SELECT c.table_name, c.column_name, c.data_type
FROM duckdb_columns() c
JOIN {listing}() t ON t.database_name = c.database_name AND t.schema_name = c.schema_name AND t.{name} = c.table_name
WHERE c.database_name = ? AND c.schema_name = ? AND c.table_name <> 'atlas_info'""",
        [database, in_schema],
    ).fetchall()
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    return found


ONE_STEP = [
    ("1", Step(1, 3, v0003.tables), "3b"),
    ("1b", Step(1, 3, v0003.tables), "3b"),
    ("3", Step(3, 4, v0004.tables), "4"),
    ("3b", Step(3, 4, v0004.tables), "4"),
    ("4", Step(4, 4, v0004_additions.tables), "4b"),
]


@pytest.mark.parametrize(("shape", "step", "reached"), ONE_STEP, ids=lambda value: str(value)[:2])
def test_a_step_gives_the_tables_that_its_version_had(
    tmp_path: Path, shape: str, step: Step, reached: str
) -> None:
    write_older_atlas(tmp_path, shape)
    with duckdb.connect() as connection:
        found = attach(connection, tmp_path / "atlas" / "000007.duckdb", [step])
        database, in_schema = found.schema.split(".")
        assert column_types(connection, database, in_schema, "duckdb_views") == recorded(reached)
        assert connection.execute(f"SELECT count(*) FROM {found.schema}.activations").fetchone() == (2,)


def test_the_present_tables_are_recorded_as_the_shape_of_the_latest_version() -> None:
    """Fails when a table changes without a new version number, a migration step and a recorded shape."""
    with duckdb.connect() as connection:
        connection.execute(schema.ddl())
        assert column_types(connection, "memory", "main", "duckdb_tables") == recorded("4b")
    assert latest_version() == 4


def test_every_step_starts_where_the_one_before_ended() -> None:
    assert [step.before for step in STEPS[1:]] == [step.after for step in STEPS[:-1]]


def toy_tables(older: OlderAtlas) -> Mapping[str, str]:
    """What the module of a version 5 would contain: a derived column, a new table, and a dropped one."""
    return {
        "runs": f"SELECT *, images - unreadable AS readable FROM {older.schema}.runs",
        "class_counts": f"SELECT label, count(*)::INTEGER AS images FROM {older.schema}.images GROUP BY label",
    }


@pytest.fixture
def version_5(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version 5 of the schema: its tables, and its step in one line."""
    tables = schema._TABLES.replace(
        "finished TIMESTAMP, version", "readable INTEGER, finished TIMESTAMP, version"
    )
    tables += "CREATE TABLE class_counts (label VARCHAR, images INTEGER);"
    monkeypatch.setattr(schema, "_TABLES", tables)
    monkeypatch.setattr(migrations, "STEPS", (*STEPS, Step(4, 5, toy_tables)))


@pytest.mark.usefixtures("version_5")
@pytest.mark.parametrize("shape", TABLES)
def test_a_new_version_upgrades_every_older_one_by_its_one_step(settings: Settings, shape: str) -> None:
    write_older_atlas(settings.home, shape)
    atlas = Atlas(settings)
    atlas.upgrade()
    assert (atlas.version(), atlas.schema()) == ("000008", 5)
    assert atlas.fetch(Query("SELECT run, readable, seconds, version FROM runs")) == [
        {"run": 3, "readable": 2, "seconds": 1.5, "version": "0.1.0"}
    ]
    assert atlas.fetch(Query("SELECT * FROM class_counts ORDER BY label")) == [
        {"label": "crane", "images": 1},
        {"label": None, "images": 1},
    ]
    assert len(atlas.fetch(Query("SELECT box FROM patches"))) == 2
    assert len(atlas.fetch(Query("SELECT how FROM label_matches"))) == 1
    with atlas.publish() as connection:
        assert connection.execute("SELECT nextval('run_numbers')").fetchone() == (4,)


@pytest.mark.usefixtures("version_5")
def test_a_step_that_forgets_a_column_publishes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(older: OlderAtlas) -> Mapping[str, str]:
        return {"class_counts": toy_tables(older)["class_counts"]}

    monkeypatch.setattr(migrations, "STEPS", (*STEPS, Step(4, 5, forgetful)))
    write_older_atlas(settings.home, "4b")
    with pytest.raises(
        AtlasError, match=r"000007\.duckdb cannot be upgraded: .* its table runs has the columns run,"
    ):
        open_home(settings)
    assert [path.name for path in (settings.home / "atlas").glob("0*")] == ["000007.duckdb"]


@pytest.mark.parametrize("shape", ["1", "3b", "4"])
def test_publishing_over_an_older_atlas_upgrades_its_tables(settings: Settings, shape: str) -> None:
    write_older_atlas(settings.home, shape)
    atlas = Atlas(settings)
    assert atlas.is_older()
    with atlas.publish() as connection:
        connection.execute("INSERT INTO label_choices VALUES ('m', 's', 'crane', NULL)")
    assert (atlas.schema(), atlas.is_older()) == (4, False)
    assert atlas.fetch(
        Query("SELECT fit, run, rank, image_id FROM patches JOIN models USING (model) ORDER BY rank")
    ) == [
        {"fit": "exact", "run": 3, "rank": 1, "image_id": 1},
        {"fit": "exact", "run": 3, "rank": 2, "image_id": 0},
    ]


def test_a_version_that_no_published_code_wrote_is_refused(settings: Settings) -> None:
    write_older_atlas(settings.home, "3")
    path = settings.home / "atlas" / "000007.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE atlas_info SET schema_version = 2")
    with pytest.raises(
        AtlasError, match=r"tables of version 2, which no Convscope has written: expected one of 1, 3, 4;"
    ):
        open_home(settings)


def test_an_older_atlas_that_lost_a_table_is_left_as_it_is(settings: Settings) -> None:
    write_older_atlas(settings.home, "1")
    path = settings.home / "atlas" / "000007.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE activations")
    before = path.read_bytes()
    with pytest.raises(
        AtlasError, match=r"cannot be upgraded: it has no table activations, and may be damaged"
    ):
        open_home(settings)
    assert path.read_bytes() == before


LABELS = """
INSERT INTO images (image_set, image_id, wnid, label)
SELECT 's', n, wnid, label FROM (VALUES
    (2, 'n01', 'kite'), (3, 'n01', 'kite'), (4, NULL, 'barn-owl'), (5, NULL, 'Barn owl'), (6, NULL, 'barn owl'),
    (7, NULL, 'maillot'), (8, NULL, 'zebra'), (9, NULL, 'zebra')) AS rows (n, wnid, label);
INSERT INTO classes (vocabulary, class_index, wnid, name)
VALUES ('v', 1, 'n01', 'bird of prey'), ('v', 2, NULL, 'barn owl'), ('v', 3, NULL, 'maillot'),
       ('v', 4, NULL, 'maillot');
UPDATE image_sets SET images = 10;
UPDATE runs SET images = 9, unreadable = 1;
-- image 3 could not be read, image 9 came after the run
INSERT INTO predictions (run, image_id, rank, class_index, is_label)
VALUES (3, 2, 1, 1, TRUE), (3, 4, 7, 2, TRUE), (3, 4, 1, 0, FALSE), (3, 5, 1, 2, TRUE), (3, 6, 1, 2, TRUE),
       (3, 7, 1, 0, FALSE), (3, 8, 1, 0, FALSE);
"""


def test_the_classes_of_labels_are_those_by_which_an_older_run_judged(settings: Settings) -> None:
    write_older_atlas(settings.home, "3")
    with duckdb.connect(str(settings.home / "atlas" / "000007.duckdb")) as connection:
        connection.execute(LABELS)
    open_home(settings).close()
    found = Atlas(settings).fetch(
        Query("SELECT label, wnid, images, how, class_index, candidates FROM label_matches ORDER BY label")
    )
    assert [tuple(row.values()) for row in found] == [
        ("Barn owl", None, 1, "case", 2, []),
        ("barn owl", None, 1, "exact", 2, []),
        ("barn-owl", None, 1, "separators", 2, []),
        ("crane", None, 1, "case", 0, []),
        ("kite", "n01", 2, "wnid", 1, []),
        ("maillot", None, 1, "ambiguous", None, [3, 4]),
        ("zebra", None, 1, "none", None, []),
    ]
