"""Run the code in the README and in docs/ (SQL, Python, commands and HTTP requests) against a small home.

Every fenced block counts. `sql` and `python` blocks run. In `sh` blocks each `convscope` command is parsed by
the command itself, `convscope sql` runs its statement, and each `curl` must match a route of the dashboard.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click
import pytest
from flask.testing import FlaskClient
from ledger_rows import add_attack
from synthetic_atlas import add_run, import_pictures, painted_pictures

import convscope
from dashboard.app import create_app
from db.atlas.store import Atlas
from db.ledger import jobs
from db.ledger.engine import Ledger
from db.ledger.jobs import NewItem, NewJob
from db.settings import Settings, read_settings
from db.sql.runner import SQLRunner, as_value

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"sql", "python", "sh", "text", "ini", "nginx"}
MODEL, IMAGES, LAYER = "convnext-demo", "samples", "stage1.block1.dwconv"
PARAMETERS = {"model": MODEL, "images": IMAGES, "layer": LAYER}
# Statements on these return no rows in a small synthetic home.
EMPTY = ("tuning", "attack_units", "movers", "near_duplicates", "state = 'done'")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Return language and text of each fenced block, with the indentation of lists removed.

    A block with a title is a file, which tests/e2e/test_extending.py runs.
    """
    for indent, language, title, text in re.findall(
        r"^( *)```(\w*)( title=.*)?\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL
    ):
        if title:
            continue
        yield language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


def found(language: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (of, text) in enumerate(blocks(page))
        if of == language
    ]


def shell_lines(text: str) -> Iterator[str]:
    """Return the commands of a block: continued lines joined, comments removed."""
    joined = text.replace("\\\n", " ")
    for match in re.finditer(r"(?:[^\n'\"#]|'[^']*'|\"(?:\\.|[^\"\\])*\")+", joined):
        line = match.group().strip()
        if line:
            yield line


def words_of(line: str, command: str) -> list[str]:
    """Return the words that a shell passes to `command` on that line; an unset variable is an error."""
    script = f'set -u; {command}() {{ printf "%s\\0" "$@"; }}; HOME=/home/ada; offset=0; size=1; {line}'
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{line}: {ran.stderr}"
    return ran.stdout.split("\0")[:-1]


def commands_named(command: str) -> list[Any]:
    lines = []
    for page in PAGES:
        for language, text in blocks(page):
            if language != "sh":
                continue
            for line in shell_lines(text):
                start = re.search(rf"(?:^|[|\s])(?:\.venv/bin/)?({command}) ", f"{line} ")
                if start and not line.startswith(("docker", "sudo", "export")):
                    lines.append(pytest.param(line[start.start(1) :], id=f"{page.name}-{line[:60]}"))
    return lines


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with an image set, a run and two attacks, named as in the documentation."""
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("documented"))})
    import_pictures(settings, painted_pictures(12), image_set=IMAGES)
    add_run(settings, image_set=IMAGES, model=MODEL)
    ledger = Ledger(settings)
    ledger.migrate()
    job, _ = jobs.submit_job(
        ledger, NewJob("k", "attack", "batch", MODEL, IMAGES, {}, (NewItem(MODEL, 0, "0"),))
    )
    with ledger.write() as connection:
        add_attack(connection, job, model=MODEL, image_set=IMAGES, image_id=0, epsilon=0.004)
        add_attack(connection, job, model=MODEL, image_set=IMAGES, image_id=2, outcome="resisted")
    ledger.close()
    return settings


@pytest.fixture(scope="module")
def client(home: Settings) -> FlaskClient:
    return create_app(home).server.test_client()


@pytest.fixture(scope="module")
def runner(home: Settings) -> Iterator[SQLRunner]:
    """Runs user SQL over that home."""
    ledger = Ledger(home)
    made = SQLRunner(home, Atlas(home), ledger)
    yield made
    made.close()
    ledger.close()


def rows_of(runner: SQLRunner, statement: str, values: Mapping[str, str]) -> int:
    with runner.run(
        statement, {name: as_value(text) for name, text in values.items()}, rows=1000, size=10**7
    ) as result:
        return int(result.table().num_rows)


def test_every_block_of_code_names_a_language_that_is_known_here() -> None:
    unknown = {
        page.name: language for page in PAGES for language, _ in blocks(page) if language not in LANGUAGES
    }
    assert unknown == {}


@pytest.mark.parametrize("statement", found("sql"))
def test_sql_runs(runner: SQLRunner, statement: str) -> None:
    values = {name: value for name, value in PARAMETERS.items() if f"${name}" in statement}
    rows = rows_of(runner, statement, values)
    assert rows or any(name in statement for name in EMPTY)


@pytest.mark.parametrize("script", found("python"))
def test_python_runs(home: Settings, tmp_path: Path, script: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "CONVSCOPE_HOME": str(home.home), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() not in ("", "[]")


def parsed(line: str) -> tuple[click.Command, dict[str, Any]]:
    """Return the command that a line names and its arguments; fail on unknown commands, options or values."""
    words = words_of(line.split(" | ")[0], "convscope")
    command: click.Command = convscope.convscope
    context = click.Context(command, info_name="convscope")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        inner = command.get_command(context, name)
        assert inner is not None, f"{line}: no command {name}"
        command, context = inner, click.Context(inner, info_name=name, parent=context)
    values, _, order = command.make_parser(context).parse_args(words)
    given = {
        str(one.name): values[str(one.name)]
        for one in order
        if isinstance(values.get(str(one.name)), str | list | bool)
    }
    for one in order:
        if isinstance(one.type, click.Choice | click.IntRange | click.FloatRange) and one.name in given:
            one.type_cast_value(context, given[one.name])
    return command, given


def run_its_statement(runner: SQLRunner, command: click.Command, given: Mapping[str, Any]) -> None:
    if command.name == "sql" and "statement" in given and "lists" not in given:
        rows_of(runner, given["statement"], dict(one.split("=", 1) for one in given.get("given", ())))


@pytest.mark.parametrize("line", commands_named("convscope"))
def test_commands_and_their_options_exist(runner: SQLRunner, line: str) -> None:
    command, given = parsed(line)
    missing = [one.name for one in command.params if one.required and one.name not in given]
    assert missing == [], f"{line}: without {missing}"
    run_its_statement(runner, command, given)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_and_their_options_exist(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for line in re.findall(r"`((?:\.venv/bin/)?convscope [a-z][^`]*)`", prose):
        parsed(line.removeprefix(".venv/bin/"))


def test_examples_in_help_run(runner: SQLRunner) -> None:
    commands = [convscope.convscope, *convscope.convscope.commands.values()]
    commands += [
        inner for one in commands[1:] if isinstance(one, click.Group) for inner in one.commands.values()
    ]
    lines = re.findall(
        r"(?:^|: ) *(convscope [a-z].*)$", "\n".join(str(one.help) for one in commands), re.MULTILINE
    )
    assert len(lines) >= 4
    for line in lines:
        run_its_statement(runner, *parsed(line))


@pytest.mark.parametrize("line", commands_named("curl"))
def test_http_requests_meet_a_route(client: FlaskClient, line: str) -> None:
    words = words_of(line, "curl")
    method, body, query, url = "", "", [], ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word in ("-d", "--data-urlencode", "--data-binary"):
            body = words.pop(0)
            query += parse_qsl(body.replace("+", "%2B").replace("%", "%25"), separator="\0")
        elif word in ("-H", "-o"):
            words.pop(0)
        elif word == "-G":
            method = "GET"
        elif not word.startswith("-"):
            url = word
    address = urlsplit(url if "://" in url else f"http://{url}")
    method = method or ("POST" if body else "GET")
    adapter = client.application.url_map.bind("127.0.0.1")
    adapter.match(address.path, method=method)  # raises if no route matches
    if method == "GET" and query:
        answer = client.get(address.path, query_string=dict(query))
        assert answer.status_code == 200, answer.text
    elif body.startswith("{"):
        json.loads(body)
