"""The files expected of a repository agree with the project: license, citation, CI, hooks, links."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT) for pattern in ("*.md", "docs/*.md", "docker/*.md") for path in ROOT.glob(pattern)
)


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_license_is_the_same_in_all_files_that_name_it() -> None:
    text = (ROOT / "LICENSE").read_text().split()
    assert text[:5] == ["Apache", "License", "Version", "2.0,", "January"]
    assert project()["license"] == "Apache-2.0"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "Apache-2.0"


def test_the_citation_names_the_version_and_authors_of_the_project() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project()["version"]
    assert citation["authors"] == project()["authors"]
    assert {"title", "message", "type"} <= citation.keys()


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    titles = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == project()["version"]
    assert len(titles) == len(set(titles))


def test_ci_runs_make_targets_that_exist_on_the_oldest_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert "make test" in commands
    assert {command.removeprefix("make ") for command in commands} <= make_targets()
    pythons = {step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")}
    assert pythons == {project()["requires-python"].removeprefix(">=")}


def test_hooks_run_the_commands_of_make_lint() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [one["repo"] for one in repositories] == ["local"], "no hook is downloaded"
    entries = [hook["entry"] for one in repositories for hook in one["hooks"]]
    assert "make --silent lint" in entries
    recipe = subprocess.run(
        ["make", "-n", "lint"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    on_commit = next(entry for entry in entries if entry.startswith("sh "))
    for command in re.findall(r"\.venv/bin/ruff \w+", on_commit):
        assert command in recipe


def test_the_guide_for_contributors_names_make_targets_that_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert {"setup", "run", "test", "lint"} <= named <= make_targets()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_between_pages_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())
    local = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#|/", link)]
    assert [link for link in local if not (ROOT / page.parent / link).exists()] == []


def test_the_site_has_every_page_of_the_documentation_and_loads_nothing_from_elsewhere() -> None:
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    in_menu = re.findall(r"[\w-]+\.md", str(configuration["nav"]))
    assert sorted(in_menu) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert configuration["theme"]["font"] is False
    for file in configuration["extra_css"] + configuration.get("extra_javascript", []):
        assert (ROOT / "docs" / file).is_file()


def test_the_findings_page_lists_every_finding() -> None:
    page = (ROOT / "docs/findings.md").read_text()
    assert re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE) == sorted(
        path.name for path in (ROOT / "findings").glob("*.sh")
    )


def test_the_package_diagram_shows_the_existing_packages() -> None:
    picture = (ROOT / "docs/images/packages.svg").read_text()
    drawn = set(re.findall(r"monospace\">([a-z_]+)/?</text>", picture))
    folders = ("commands", "dashboard", "db", "precompute", "workers")
    packages = {path.parent.name for folder in folders for path in (ROOT / folder).glob("*/__init__.py")}
    # folders of static files, not packages
    assert drawn == packages | set(folders) | {"assets", "browser"}


def test_the_readme_is_one_screen() -> None:
    assert 40 <= len((ROOT / "README.md").read_text().splitlines()) <= 80
