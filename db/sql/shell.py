"""The interactive SQL prompt; prompt_toolkit provides history, colors and completion."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import PostgresLexer

from db.sql.catalog import Readable

KEYWORDS = """
    SELECT FROM WHERE GROUP BY ALL HAVING ORDER LIMIT OFFSET JOIN LEFT USING ON AS WITH UNION INTERSECT EXCEPT DISTINCT
    CASE WHEN THEN ELSE END AND OR NOT IN LIKE ILIKE BETWEEN IS NULL DESC ASC QUALIFY FILTER OVER PARTITION EXPLAIN
    DESCRIBE SUMMARIZE count sum avg min max median quantile_cont arg_max list round coalesce strftime"""
QUIT = (".quit", ".exit", "quit", "exit")
HELP = """\
A statement ends with a semicolon. Tab completes, the up arrow recalls earlier lines, Ctrl-C discards a statement.
  .tables          list tables and views
  .columns NAME    list the columns of a table or view
  .quit            leave (also Ctrl-D)"""


class SQLCompleter(Completer):
    """Completes tables and views, columns of those that the statement names, and keywords."""

    def __init__(self, readable: Iterable[Readable]) -> None:
        self._readable = {one.name: one for one in readable}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Completions at the cursor."""
        del complete_event
        word = re.split(r"[^\w]", document.text_before_cursor)[-1]
        if not word:
            return
        for name, about in self.candidates(document.text):
            if name.lower().startswith(word.lower()):
                yield Completion(name, start_position=-len(word), display_meta=about[:60])

    def candidates(self, statement: str) -> list[tuple[str, str]]:
        """Unique names with their kinds."""
        named = {word.lower() for word in re.findall(r"\w+", statement)} & set(self._readable)
        found: dict[str, str] = {}
        for name in sorted(named):
            for column in self._readable[name].columns:
                found.setdefault(column.name, f"{name}: {column.comment}")
        for one in self._readable.values():
            found.setdefault(one.name, one.comment)
        for keyword in KEYWORDS.split():
            found.setdefault(keyword, "")
        return list(found.items())


def is_whole(text: str) -> bool:
    """Whether Enter submits the input: it ends with a semicolon, is a dot command or a word that quits, or is empty."""
    stripped = text.strip()
    return not stripped or stripped.endswith(";") or stripped.startswith(".") or stripped in QUIT


def shell(
    readable: tuple[Readable, ...],
    history: Path,
    *,
    run: Callable[[str], None],
    tables: Callable[[str | None], None],
    say: Callable[[str], None],
) -> None:
    """Read statements and `run` them, until the end of input.

    Args:
        history: file for the typed statements, readable by its owner only.
        tables: shows all tables, or the columns of one.
        say: prints a sentence. `run` and `tables` report their own errors.
    """
    history.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(history, os.O_CREAT | os.O_APPEND, 0o600))
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)),
        lexer=PygmentsLexer(PostgresLexer),
        completer=SQLCompleter(readable),
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        # only a complete statement is submitted; until then Enter starts a new line
        multiline=Condition(lambda: not is_whole(session.default_buffer.text)),
        prompt_continuation="     ... ",
    )
    say(".help lists commands; a statement ends with a semicolon.")
    while True:
        try:
            typed = session.prompt("convscope> ").strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if typed.rstrip(";") in QUIT:
            return
        if typed == ".help":
            say(HELP)
        elif typed == ".tables":
            tables(None)
        elif typed.startswith(".columns"):
            tables(typed.removeprefix(".columns").strip() or None)
        elif typed.startswith("."):
            say(f"expected .help, .tables, .columns NAME or .quit, got {typed.split()[0]}")
        elif typed.rstrip(";").strip():
            run(typed)
