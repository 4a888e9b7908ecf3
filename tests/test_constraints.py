"""`constraints.txt` pins every requirement of pyproject.toml and all of their dependencies."""

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
WHAT_TO_DO = "run `make lock` and commit constraints.txt"
# Only PyTorch's CUDA build requires these, at its own versions.
CUDA = re.compile(r"nvidia|cuda|triton")


def pinned() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    assert len({one.name for one in found}) == len(found)
    return {canonicalize_name(one.name): _only_version(one) for one in found}


def _only_version(requirement: Requirement) -> Version:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement}: expected one version"
    return Version(specifier.version)


def direct() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [
        Requirement(one) for one in (*project["dependencies"], *(one for extra in extras for one in extra))
    ]


def installed_with(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """Return `name` and its dependencies in this environment, from the metadata of installed packages."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    yield name
    for text in metadata.requires(name) or ():
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield from installed_with(canonicalize_name(needed.name), frozenset(needed.extras), seen)


@pytest.mark.parametrize("requirement", direct(), ids=lambda one: str(one.name))
def test_each_dependency_is_pinned_at_its_version_in_pyproject(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert name in pinned(), WHAT_TO_DO
    assert pinned()[name] == _only_version(requirement), WHAT_TO_DO


def test_all_that_comes_along_is_pinned_at_the_version_that_is_installed() -> None:
    found = set(installed_with("convscope", frozenset({"dev"}), set())) - {"convscope"}
    assert len(found) > 100
    there = {name: Version(metadata.version(name)).public for name in found if not CUDA.match(name)}
    pins = {name: str(version) for name, version in pinned().items()}
    assert {name: pins.get(name) for name in there} == there, f"{WHAT_TO_DO}, or `make setup`"


def test_the_pins_suit_machines_with_and_without_a_gpu() -> None:
    assert not [name for name in pinned() if CUDA.match(name)]
    assert not [str(version) for version in pinned().values() if version.local]
