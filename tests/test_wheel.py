"""The wheel contains everything that Convscope needs at run time and nothing else, and works without a checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running, get, kill_all

ROOT = Path(__file__).parents[1]
PACKAGES = ("commands", "dashboard", "db", "migrations", "precompute", "workers")
DEVELOPERS_ONLY = "precompute/demo/"
MAX_BYTES = 10_000_000  # weights are 7 MB; one training checkpoint would exceed the limit


def source_files() -> set[str]:
    """Return the files in this checkout's packages, as paths separated by "/"."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not {"__pycache__", "node_modules"} & {*path.parts}
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves a build folder behind and would package it the next time."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "convscope.py"):
        shutil.copy(ROOT / name, copy)
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
        )
    built = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(copy))
    (found,) = built.iterdir()
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of commands of an environment with the wheel installed; its dependencies come from this environment.

    A .pth file makes them importable. Python does not process .pth files in a folder that was added this way,
    so the editable installation of the checkout is not visible.
    """
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", "--no-compile", str(wheel))
    return environment / "bin"


def pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def outside(home: Path) -> dict[str, str]:
    """Return an environment in which no variable points to the checkout."""
    return {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    } | {"CONVSCOPE_HOME": str(home)}


def test_the_wheel_contains_every_package_file_except_the_demo_training(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {name for name in source_files() if not name.startswith(DEVELOPERS_ONLY)} | {"convscope.py"}
    assert files == expected
    data = {name for name in files if not name.endswith(".py")}
    assert {re.sub(r"[^/]+\.\w+$", "", name) for name in data} == {
        "dashboard/assets/",
        "dashboard/browser/",
        "dashboard/browser/vendor/",
        "dashboard/security/templates/",
        "workers/models/convnext_demo/",
    }
    assert wheel.stat().st_size < MAX_BYTES


def test_training_checkpoints_are_documented_and_not_in_the_container() -> None:
    demo = ROOT / DEVELOPERS_ONLY
    assert len(list((demo / "checkpoints").glob("*.safetensors"))) == 10
    assert "precompute/demo/checkpoints" in (ROOT / "workers/models/convnext_demo/README.md").read_text()
    assert DEVELOPERS_ONLY.rstrip("/") in (ROOT / ".dockerignore").read_text().split()


def test_the_installed_commands_know_their_version_and_models(installed: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = subprocess.run(
            [installed / words[0], *words[1:]],
            cwd=tmp_path,
            env=outside(tmp_path / "home"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.fullmatch(r"convscope, version \d+\.\d+\.\d+\S*\n", said("convscope", "--version"))
    assert "convnext-demo" in said("convscope", "models", "list")
    places = said(
        "python",
        "-c",
        "import convscope, db, workers; print(convscope.__file__, db.__file__, workers.__file__)",
    ).split()
    assert all(Path(place).is_relative_to(installed.parent) for place in places)


@pytest.fixture
def running(installed: Path, tmp_path: Path) -> Iterator[Running]:
    """Start `convscope run` over an empty home, from the installed wheel and outside the checkout."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    home = tmp_path / "home"
    run = Running(
        home,
        "run",
        "--port",
        "0",
        program=[str(installed / "convscope")],
        root=elsewhere,
        inherited=outside(home),
    )
    yield run
    kill_all(home)
    run.process.wait(30)


def test_the_installed_command_serves_its_first_page_with_its_assets(running: Running) -> None:
    address = running.wait_for(r"Convscope is at (http://\S+)", seconds=60).rstrip("/")
    page = get(f"{address}/").decode()
    assert "<title>Convscope</title>" in page
    linked = set(re.findall(r'(?:src|href)="(/[^"]+)"', page))
    assert {re.sub(r"[^/]*$", "", path) for path in linked} >= {"/assets/"}
    assert len([path for path in linked if path.startswith("/modules/")]) > 10
    for path in (*linked, "/_dash-layout", "/api/openapi.json", "/health.json"):
        assert get(address + path), path
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/assets/nothing.css", timeout=20)
    running.stop(within=30)
    assert running.process.returncode == 1
    assert not running.processes()
