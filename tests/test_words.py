"""Words that a reader of Convscope should not meet, in strings, docstrings, comments, documentation and help.

Each pattern comes with what to say instead. Names that are stored or public keep their spelling (`labelled`,
`colours`): text in backquotes, SQL, addresses and single words are not read.
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import convscope
from db.settings import SETTINGS

ROOT = Path(__file__).parents[1]
RULES = {
    r"\b(tells?|told|telling)\b": "shows, reports, prints, states",
    r"\bways? back\b": "backward pass",
    r"\bpictures?\b": "image",
    r"\bphotographs?\b": "photo",
    r"\bright first\b|\bright in five\b|\bnamed right\b": "top-1, top-5, correct",
    r"\bfor ever\b": "permanently",
    r"\b(is|are) like that\b": "matches",
    r"\b(goes|go|went|going|gone) on\b": "resumes, continues",
    r"\banew\b": "again",
    r"\bsigns? of life\b": "heartbeat",
    r"\b(is|are|was|were|be|been) given back\b": "is re-queued",
    r"\bany more\b": "no longer",
    r"\bby (itself|themselves)\b": "automatically, separately",
    r"\bthat (is|are) none\b": "invalid",
    r"\bcut short\b": "truncated",
    r"\b(whoever|somebody|nobody waits|who asked)\b": "user, client, caller",
    r"\b(most moved|moved most)\b": "most shifted",
    r"\bfell silent\b": "stopped sending heartbeats",
    r"\w*(?:colour|grey|labelled|labelling|normalis|neighbour|behaviour|favour|honour|initialis|optimis|recognis"
    r"|visualis|summaris|judgement)\w*|\bcentred?\b": "US spelling",
}
# This list itself and third-party text.
ALLOWED_FILES = ("tests/test_words.py", "dashboard/browser/vendor/")
# A parameter of methods and a value of `verdict`.
ALLOWED = ("colours", "unlabelled")
SQL = re.compile(r"\b(SELECT|FROM|WHERE|INSERT|UPDATE|CREATE|ORDER BY|JOIN)\b")
# Code within text: backquotes, quoted names, holes of f-strings, options and values, paths,
# names of parameters in docstrings.
CODE = re.compile(
    r"```.*?```|`[^`\n]*`|'\w+'|\bcolour-bar\b|\{[^{}]*\}|\S*[/=_$<>\\]\S*|^\s*[\w, ]+:(?=\s)",
    re.DOTALL | re.MULTILINE,
)


# Comments and texts of several words in JavaScript.
SCRIPT = re.compile(r"/\*.*?\*/|(?<!:)//[^\n]*|\"[^\"\n]* [^\"\n]*\"|`[^`\n]* [^`\n]*`", re.DOTALL)


def faults(text: str) -> list[str]:
    """The rules that `text` breaks, as `word: what to say`."""
    read = CODE.sub(" ", text)
    found = [
        (match.group(), say)
        for rule, say in RULES.items()
        for match in re.finditer(rule, read, re.IGNORECASE)
    ]
    return [f"{word!r}: say {say}" for word, say in found if word not in ALLOWED]


def texts(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and text of everything that a person reads in a file."""
    if path.endswith(".js"):
        for match in SCRIPT.finditer(source):
            said = re.sub(r"\$\{[^}]*\}", " ", match.group().strip("`"))
            yield source.count("\n", 0, match.start()) + 1, said
        return
    if not path.endswith(".py"):
        yield 1, source
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        sentence = " " in node.value.strip()
        if sentence and not SQL.search(node.value) and "import " not in node.value:
            yield node.lineno, node.value


def files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        path
        for path in listed.stdout.splitlines()
        if path.endswith((".py", ".js", ".md", ".sh")) and not path.startswith(ALLOWED_FILES)
    ]


def test_text_uses_the_words_of_the_field() -> None:
    found = [
        f"{path}:{line}: {fault}"
        for path in files()
        for line, text in texts(path, (ROOT / path).read_text())
        for fault in faults(text)
    ]
    assert found == [], "\n".join(found)


def commands(group: click.Command, names: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Help of a command and of all below it."""
    yield " ".join(names), group.get_help(click.Context(group))
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*names, name))


def test_help_and_settings_use_the_words_of_the_field() -> None:
    shown = [*commands(convscope.convscope), *((one.name, one.help) for one in SETTINGS)]
    assert [f"{name}: {fault}" for name, text in shown for fault in faults(text)] == []


@pytest.mark.parametrize(
    "sample",
    [
        "The page tells how far it is.",
        "each is a way back",
        "a grey picture",
        "The job is given back and made anew.",
    ],
)
def test_a_planted_sample_is_found(sample: str) -> None:
    assert faults(sample)
    assert list(texts("sample.py", f"# {sample}\n")) == [(1, f"# {sample}")]
    assert list(texts("sample.js", f"f(1); // {sample}\n")) == [(1, f"// {sample}")]
    assert faults("`labelled` images of `/pictures/`") == []
