"""Tables in the documentation that are generated from the program's own descriptions.

`python tests/test_documented_tables.py` rewrites them between the lines `<!-- table NAME -->` and `<!-- end
-->`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from db.settings import SETTINGS
from db.sql.catalog import catalogue
from workers.attacks.registry import ATTACKS
from workers.attribution.registry import METHODS
from workers.requests.parameters import MethodDescription, Parameter

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def _values(parameter: Parameter) -> str:
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if isinstance(parameter.default, str):
        return "a name"
    return " to ".join(
        f"{end:,}" if end == int(end) else f"{end:g}" for end in (parameter.low, parameter.high)
    )


def _methods(methods: Mapping[str, MethodDescription]) -> str:
    """Parameters that several methods share with the same meaning have one row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for method in methods.values():
        for one in method.parameters:
            default = "none" if one.default == "" else f"`{one.default}`"
            rows.setdefault((f"`{one.name}`", default, _values(one), one.help), []).append(f"`{method.name}`")
    return "\n".join(
        ["| parameter | of | default | values | meaning |", "| --- | --- | --- | --- | --- |"]
        + [
            f"| {name} | {', '.join(of)} | {default} | {values} | {about} |"
            for (name, default, values, about), of in rows.items()
        ]
    )


def _settings() -> str:
    return "\n".join(
        ["| setting | default | what it does |", "| --- | --- | --- |"]
        + [
            f"| `{one.name}` | {f'`{one.default}`' if one.default else 'none'} | {one.help} |"
            for one in SETTINGS
        ]
    )


def _tables(place: str) -> str:
    return "\n".join(
        ["| name | what it holds |", "| --- | --- |"]
        + [f"| `{one.name}` | {one.comment} |" for one in catalogue() if one.place == place]
    )


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("methods.md", "attribution"): lambda: _methods(METHODS),
    ("methods.md", "attacks"): lambda: _methods(ATTACKS),
    ("settings.md", "settings"): _settings,
    ("sql.md", "views"): lambda: _tables("view"),
    ("sql.md", "atlas"): lambda: _tables("atlas"),
    ("sql.md", "ledger"): lambda: _tables("ledger"),
}


def _place(page: str, name: str) -> tuple[str, str, str]:
    """Return the text before the table, the table, and the text after it."""
    match = re.fullmatch(
        rf"(.*<!-- table {name} -->\n\n)(.*?)(\n\n<!-- end -->\n.*)", (DOCS / page).read_text(), re.DOTALL
    )
    assert match, f"{page}: expected a table {name} between two comments"
    return match[1], match[2], match[3]


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_documented_tables_match_the_program(page: str, name: str) -> None:
    assert _place(page, name)[1] == TABLES[page, name](), "python tests/test_documented_tables.py rewrites it"


def test_each_method_and_attack_has_its_formula_and_reference() -> None:
    page = (DOCS / "methods.md").read_text()
    rows = re.findall(
        r"^\| `(\w+)` \| .+ \| (.+) \|$", page.partition("<!-- table attribution")[0], re.MULTILINE
    )
    assert sorted(name for name, _ in rows) == sorted(METHODS)
    for name, reference in rows:
        assert _letters(METHODS[name].reference) == _letters(reference), name
    for attack in ATTACKS.values():
        assert attack.title in page


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def test_tests_that_the_documentation_names_exist() -> None:
    for page in DOCS.glob("*.md"):
        file = ""
        for path, name in re.findall(r"`(tests/[\w/]+\.py|…)?(?:::(\w+))?`", page.read_text()):
            file = path if path not in ("", "…") else file
            if path and path != "…":
                assert (ROOT / path).is_file(), f"{page.name}: {path}"
            if name and (path or file):
                assert f"def {name}(" in (ROOT / file).read_text(), f"{page.name}: {file}::{name}"


if __name__ == "__main__":
    for (page, name), made in TABLES.items():
        before, _, after = _place(page, name)
        (DOCS / page).write_text(before + made() + after)
