"""The atlas: versions, atomic publishing, readers that never see half a version."""

import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from db.atlas.store import Atlas, AtlasError, NoAtlas, Query
from db.settings import Settings

SETS = Query("SELECT image_set FROM image_sets ORDER BY 1")


@pytest.fixture
def atlas(settings: Settings) -> Atlas:
    return Atlas(settings)


def add_set(atlas: Atlas, name: str, images: int = 0) -> None:
    with atlas.publish() as connection:
        connection.execute("INSERT INTO image_sets VALUES (?, '', ?, 0, now()::TIMESTAMP)", [name, images])


def test_reading_an_empty_atlas_shows_the_next_step(atlas: Atlas) -> None:
    assert atlas.version() is None
    with pytest.raises(NoAtlas, match="import images first"):
        atlas.fetch(SETS)


def test_a_reader_sees_a_new_version_at_its_next_query_and_only_one_file_stays(atlas: Atlas) -> None:
    add_set(atlas, "a")
    assert atlas.fetch(SETS) == [{"image_set": "a"}]
    add_set(atlas, "b")
    assert atlas.fetch(SETS) == [{"image_set": "a"}, {"image_set": "b"}]
    assert [path.name for path in atlas.folder.glob("*.duckdb*")] == ["000002.duckdb"]


def test_an_open_cursor_keeps_its_version(atlas: Atlas) -> None:
    add_set(atlas, "a")
    with atlas.read() as cursor:
        add_set(atlas, "b")
        assert atlas.fetch(SETS) == [{"image_set": "a"}, {"image_set": "b"}]
        assert cursor.execute(SETS.sql).fetchall() == [("a",)]


def test_a_failing_publisher_leaves_the_current_version_untouched(atlas: Atlas) -> None:
    add_set(atlas, "a")

    def fail_in_the_middle() -> None:
        with atlas.publish() as connection:
            connection.execute("DELETE FROM image_sets")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()
    assert atlas.fetch(SETS) == [{"image_set": "a"}]
    assert [path.name for path in atlas.folder.glob("0*")] == ["000001.duckdb"]


def test_a_version_that_breaks_an_invariant_is_not_published(atlas: Atlas) -> None:
    add_set(atlas, "a")
    with pytest.raises(
        AtlasError, match=r"the invariant 'image_sets[.]images is the number of images' does not hold for 'b'"
    ):
        add_set(atlas, "b", images=3)
    assert atlas.fetch(SETS) == [{"image_set": "a"}]


def test_a_publisher_that_is_killed_leaves_the_current_version_and_the_next_one_cleans_up(
    atlas: Atlas, settings: Settings
) -> None:
    add_set(atlas, "a")
    script = textwrap.dedent(
        f"""
        import os, signal
        from db.atlas.store import Atlas
        from db.settings import read_settings
        atlas = Atlas(read_settings({{"CONVSCOPE_HOME": {str(settings.home)!r}}}))
        with atlas.publish() as connection:
            connection.execute("INSERT INTO image_sets VALUES ('lost', '', 0, 0, now()::TIMESTAMP)")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    assert atlas.fetch(SETS) == [{"image_set": "a"}]
    assert list(atlas.folder.glob("*.building"))
    add_set(atlas, "b")
    assert atlas.fetch(SETS) == [{"image_set": "a"}, {"image_set": "b"}]
    assert not list(atlas.folder.glob("*.building*"))


def test_publishers_wait_for_each_other_and_none_is_lost(atlas: Atlas, settings: Settings) -> None:
    names = [f"s{i}" for i in range(8)]
    threads = [threading.Thread(target=add_set, args=(Atlas(settings), name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["image_set"] for row in atlas.fetch(SETS)] == names
    assert atlas.version() == "000008"


def test_readers_never_fail_while_versions_are_replaced(atlas: Atlas, settings: Settings) -> None:
    add_set(atlas, "a")
    stop = threading.Event()
    counts: list[int] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                counts.append(len(atlas.fetch(SETS)))
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    writer = Atlas(settings)
    for i in range(10):
        add_set(writer, f"b{i}")
    time.sleep(0.05)
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert max(counts) == 11


def test_a_file_of_another_schema_version_is_refused_in_one_sentence(atlas: Atlas) -> None:
    add_set(atlas, "a")
    with duckdb.connect(str(atlas.path())) as connection:
        connection.execute("UPDATE atlas_info SET schema_version = 99")
    with pytest.raises(AtlasError, match="tables of version 99"):
        atlas.fetch(SETS)


def test_a_damaged_file_is_named_in_one_sentence(atlas: Atlas) -> None:
    add_set(atlas, "one")
    path = atlas.path()
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(AtlasError, match=rf"{path.name} cannot be opened, and may be damaged: ") as caught:
        atlas.fetch(SETS)
    assert "\n" not in str(caught.value)


def test_a_query_text_runs_standalone_with_the_same_rows(atlas: Atlas) -> None:
    add_set(atlas, "it's")
    add_set(atlas, "b")
    query = Query(
        "SELECT $k AS k, $kind AS kind, image_set FROM image_sets WHERE list_contains($names, image_set)",
        {"k": 3, "kind": "o'k", "names": ["it's", "c"]},
    )
    with atlas.read() as cursor:
        assert cursor.execute(query.text()).fetchall() == [(3, "o'k", "it's")]
    assert atlas.fetch(query) == [{"k": 3, "kind": "o'k", "image_set": "it's"}]


def test_a_value_that_contains_another_name_is_unchanged() -> None:
    values = {
        "a": "costs $b and $ab",
        "b": "'$a'",
        "ab": [float("inf"), 0.5],
        "when": datetime(2026, 1, 2, 3, 4),
    }
    query = Query("SELECT $a, $b, $ab, $when, $a", values)
    assert duckdb.sql(query.text().rstrip(";")).fetchall() == [
        (values["a"], values["b"], values["ab"], values["when"], values["a"])
    ]
