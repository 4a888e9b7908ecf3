"""The vendored JavaScript: its packages, their licenses, and that the content security policy lets it run."""

import json
import re

import pytest

from dashboard.document import MODULES

VENDOR = MODULES / "vendor"
TEXT = (VENDOR / "codemirror.js").read_text()
HEADER = TEXT[: TEXT.index("*/")]
PACKAGE = json.loads((VENDOR / "package.json").read_text())
LOCKED = {
    path.removeprefix("node_modules/"): found
    for path, found in json.loads((VENDOR / "package-lock.json").read_text())["packages"].items()
    if path
}


def test_its_header_names_each_package_with_the_locked_version_and_license() -> None:
    named = re.findall(r"^(\S+) (\d+\.\d+\.\d+) \(MIT\)$", HEADER, re.MULTILINE)
    assert {name: LOCKED[name]["version"] for name, _ in named} == dict(named)
    assert dict(named).items() >= PACKAGE["dependencies"].items()
    assert "Permission is hereby granted, free of charge" in HEADER
    assert len(re.findall(r"^Copyright ", HEADER, re.MULTILINE)) >= 3


@pytest.mark.parametrize("part", ["dependencies", "devDependencies"])
def test_its_packages_are_pinned_and_locked(part: str) -> None:
    for name, version in PACKAGE[part].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert LOCKED[name]["version"] == version


def test_it_evaluates_no_text_as_code_and_names_no_other_server() -> None:
    assert not re.search(r"new Function\b|\beval\(", TEXT)
    assert set(re.findall(r"https?://[\w.]+", TEXT)) == {"http://www.w3.org"}
