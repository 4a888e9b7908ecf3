"""The command line: help, exit codes and messages, on real stores and a real network."""

import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image
from running import ROOT, command
from synthetic_atlas import add_run, import_pictures, painted_pictures

from convscope import convscope
from db.atlas.store import Atlas
from db.settings import Settings


def every_command(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, member in group.commands.items():
        yield (*path, name), member
        if isinstance(member, click.Group):
            yield from every_command(member, (*path, name))


COMMANDS = dict(every_command(convscope))


@pytest.fixture
def home(settings: Settings) -> Path:
    return settings.home


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes with two images each, and one file that is not an image."""
    folder = tmp_path / "photos"
    for wnid, colour in [("n01440764", (200, 30, 30)), ("n02123045", (30, 30, 200))]:
        (folder / wnid).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (80 + i, 60), colour).save(folder / wnid / f"{i}.png")
    (folder / "n01440764" / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_every_option_explains_itself(path: tuple[str, ...]) -> None:
    explained = COMMANDS[path]
    assert explained.help
    assert explained.help.split("\n")[0].endswith((".", "?"))
    for parameter in explained.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.opts[0]} has no help"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["index"],
        ["index", "--model", "efficientnet-lite0", "--images", "samples", "--k", "0"],
        ["images", "show", "samples", "minus-one"],
    ],
)
def test_wrong_use_ends_with_2_and_names_what_was_given(words: list[str], home: Path) -> None:
    done = command(*words, home=home)
    assert done.returncode == 2
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not home.exists(), "wrong use writes nothing"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["images", "list"], "there is no atlas in"),
        (["images", "import", "birds", "/nowhere/birds"], "/nowhere/birds"),
        (["images", "import", "No Such Name", "."], "No Such Name"),
        (["index", "--model", "efficientnet-lite0", "--images", "birds"], "nothing was imported yet"),
        (["models", "show", "efficientnet-lite"], "efficientnet-lite0"),
    ],
)
def test_a_failure_ends_with_1_and_one_sentence(words: list[str], sentence: str, home: Path) -> None:
    done = command(*words, home=home)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sentence in done.stderr
    assert "unexpected" not in done.stderr


def test_debug_adds_the_traceback(home: Path) -> None:
    done = command("images", "import", "birds", "/nowhere/birds", "--debug", home=home)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("convscope: ")


def test_a_setting_that_cannot_be_used_is_one_sentence(home: Path) -> None:
    done = command("images", "list", home=home, CONVSCOPE_PORT="http")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "CONVSCOPE_PORT" in done.stderr


@pytest.mark.parametrize(
    ("words", "host"),
    [
        ("serve", "0.0.0.0"),
        ("run", "lab.example.org"),
        ("serve --host ::", "::"),
        ("run --host 192.168.1.20", "192.168.1.20"),
    ],
)
def test_nothing_is_served_to_others_without_a_login(home: Path, words: str, host: str) -> None:
    environment = {} if "--host" in words else {"CONVSCOPE_HOST": host}
    done = command(*words.split(), home=home, **environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"convscope: others could reach {host}")
    assert "set CONVSCOPE_PASSWORD, or CONVSCOPE_USER_HEADER" in done.stderr
    assert not home.exists(), "before anything starts"


def test_images_are_imported_listed_shown_and_removed(home: Path, photos: Path) -> None:
    done = command("images", "import", "two", str(photos), home=home)
    assert done.returncode == 0, done.stderr
    assert "two: 4 images added, 0 already there, 1 refused" in done.stdout
    assert "n01440764/broken.jpg" in done.stderr

    again = command("images", "import", "two", str(photos), home=home)
    assert "two: 0 images added, 4 already there, 1 refused" in again.stdout

    assert "two" in command("images", "list", home=home).stdout
    shown = command("images", "show", "two", "2", home=home).stdout
    assert "n02123045" in shown
    assert str(photos / "n02123045" / "0.png") in shown

    missing = command("images", "show", "two", "9", home=home)
    assert missing.returncode == 1
    assert missing.stderr.startswith("convscope: there is no image 9 in image set 'two'")

    refused = subprocess.run(
        [sys.executable, "-m", "convscope", "images", "remove", "two"],
        cwd=ROOT,
        env={**os.environ, "CONVSCOPE_HOME": str(home)},
        input="n\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "two" in command("images", "list", home=home).stdout
    assert "removed two (4 images)" in command("images", "remove", "two", "--yes", home=home).stdout
    assert "two" not in command("images", "list", home=home).stdout.split()
    assert (photos / "n02123045" / "0.png").exists(), "the user's files stay"


def test_models_show_prints_preprocessing_and_layers(home: Path) -> None:
    done = command("models", "show", "efficientnet-lite0", home=home)
    assert done.returncode == 0, done.stderr
    assert "224 x 224 pixels" in done.stdout
    assert "0.5, 0.5, 0.5" in done.stdout
    assert "imagenet-1k (1,000 classes)" in done.stdout


def test_models_show_dot_is_a_drawing_of_every_layer(home: Path) -> None:
    done = command("models", "show", "efficientnet-lite0", "--dot", home=home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == 'digraph "efficientnet-lite0" {'
    assert lines[-1] == "}"
    assert done.stdout.count("{") == done.stdout.count("}")
    assert sum(" -> " in line for line in lines) >= 49
    assert any("subgraph" in line for line in lines)


def test_an_index_is_repeated_only_with_replace(home: Path, photos: Path, small_convnext: Path) -> None:
    assert command("images", "import", "two", str(photos), home=home).returncode == 0
    words = ["index", "--model", str(small_convnext), "--images", "two", "--k", "3"]
    first = command(*words, home=home)
    assert first.returncode == 0, first.stderr
    assert "run 1: 4 images" in first.stdout
    second = command(*words, home=home)
    assert second.returncode == 1
    assert "--replace" in second.stderr
    assert "run 2: 4 images" in command(*words, "--replace", home=home).stdout
    other = command(*words, "--name", "another", home=home)
    assert "run 3: 4 images" in other.stdout, other.stderr


def test_the_doctor_skips_missing_files_by_name(home: Path, photos: Path) -> None:
    assert command("images", "import", "two", str(photos), home=home).returncode == 0
    (photos / "n02123045" / "0.png").unlink()
    done = command("models", "doctor", "efficientnet-lite0", "--images", "two", home=home)
    assert "on 3 labeled images of two" in done.stdout, done.stderr
    assert "no longer readable: n02123045/0.png: the file is missing" in done.stderr


def test_a_terminated_command_reports_that_it_stopped(home: Path, photos: Path) -> None:
    assert command("images", "import", "two", str(photos), home=home).returncode == 0
    words = ["index", "--model", "efficientnet-lite0", "--images", "two"]
    with subprocess.Popen(
        [sys.executable, "-m", "convscope", *words],
        cwd=ROOT,
        env={**os.environ, "CONVSCOPE_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(home.glob("builds/*/facts.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip().endswith("convscope: stopped")


def test_labels_that_are_ambiguous_are_settled_by_hand_from_a_file_and_forgotten(
    settings: Settings, tmp_path: Path
) -> None:
    """Six images, one label each: four match a class by WordNet id, one by name in another case, one matches none."""
    import_pictures(settings, painted_pictures(6), image_set="painted")
    add_run(settings, image_set="painted", divide=96, over=("embeddings",))
    with Atlas(settings).publish() as connection:
        connection.execute("UPDATE images SET wnid = NULL, label = 'unicorn' WHERE image_id = 1")
        connection.execute("UPDATE images SET wnid = NULL, label = 'Kind 2' WHERE image_id = 2")

    def run(*words: str) -> tuple[int, str]:
        env = {"CONVSCOPE_HOME": str(settings.home)}
        asked = ["models", "map-labels", "synthetic", "--images", "painted", *words]
        done = CliRunner().invoke(convscope, asked, env=env)
        return done.exit_code, f"{done.output}{done.exception or ''}"

    def classes() -> dict[str, list[str]]:
        code, told = run("--csv")
        assert code == 0, told
        return {row["label"]: [row["class"], row["how"]] for row in csv.DictReader(io.StringIO(told))}

    # labels with a WordNet id are listed by that id
    assert classes() == {
        "n10000000": ["0", "wnid"], "unicorn": ["", "none"], "Kind 2": ["2", "case"],
        "n10000003": ["3", "wnid"], "n10000004": ["4", "wnid"], "n10000005": ["5", "wnid"],
    }  # fmt: skip
    code, told = run()
    assert code == 0
    assert "5 of 6 labels are classes of synthetic" in told
    assert "unicorn (1 image) is not a class" in told
    code, told = run("--set", "unicorn", "kind 4")
    assert code == 0
    assert (
        "Saved. Predictions follow with: convscope index --model synthetic --images painted --replace" in told
    )
    assert classes()["unicorn"] == ["4", "settled"]
    (tmp_path / "labels.csv").write_text("label,class\nunicorn,\nKind 2,3\n")
    assert run("--from", str(tmp_path / "labels.csv"))[0] == 0
    assert (classes()["unicorn"], classes()["Kind 2"]) == (["", "settled"], ["3", "settled"])
    assert run("--unset", "unicorn")[0] == 0
    assert classes()["unicorn"] == ["", "none"]
    assert run("--clear")[0] == 0
    assert classes()["Kind 2"] == ["2", "case"]
    for words, sentence in (
        (("--set", "unicorm", "1"), "'painted' has no label 'unicorm'"),
        (("--set", "unicorn", "griffin"), "expected a WordNet id, a class name or an index from 0 to 11"),
        (("--from", str(tmp_path / "photo.csv")), "does not exist"),
    ):
        code, told = run(*words)
        assert code != 0
        assert sentence in told
