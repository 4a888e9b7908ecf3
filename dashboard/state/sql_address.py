"""The address of the SQL page: the statement `q`, values `p.NAME`, `explain`, `limit`, and how the result is shown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from dashboard.state.address import MAX_ADDRESS

SHOWN = ("view", "x", "y", "kind", "colour")  # how the result is shown; anything else is part of the question
KEPT = (*SHOWN, "limit")  # kept when the same statement is run again
_TEXT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PARAMETER = re.compile(r"\$([A-Za-z_]\w*)")
_EXPLAINS = re.compile(r"\s*explain\b", re.IGNORECASE)


def parameters_in(sql: str) -> list[str]:
    """Names of the parameters of a statement that may be incomplete, in order; not those in strings and comments."""
    return list(dict.fromkeys(_PARAMETER.findall(_TEXT.sub(" ", sql))))


@dataclass(frozen=True)
class Asked:
    """The parameters of an address of the page."""

    given: Mapping[str, str]

    @classmethod
    def read(cls, search: str | None) -> "Asked":
        """Parse a query string."""
        return cls(dict(parse_qsl((search or "").lstrip("?"), keep_blank_values=True)))

    @property
    def sql(self) -> str:
        """The statement."""
        return self.given.get("q", "")

    @property
    def run_sql(self) -> str:
        """The statement to run: with EXPLAIN if the address asks for it."""
        explains = self.given.get("explain") and not _EXPLAINS.match(self.sql)
        return f"EXPLAIN {self.sql}" if explains else self.sql

    @property
    def typed(self) -> dict[str, str]:
        """Values of parameters that the address gives."""
        return {name.removeprefix("p."): value for name, value in self.given.items() if name.startswith("p.")}

    def value(self, name: str) -> str:
        """The value of a parameter: `$model` and `$images` are those of the pickers unless given."""
        return self.typed.get(name, self.picked(name))

    def picked(self, name: str) -> str:
        """The value of a parameter if nothing is typed."""
        return self.given.get(name, "") if name in ("model", "images") else ""

    def values(self) -> dict[str, str]:
        """The values of the statement's parameters."""
        return {name: self.value(name) for name in parameters_in(self.sql)}

    def question(self) -> dict[str, str]:
        """What determines the result."""
        return {name: value for name, value in self.given.items() if name not in SHOWN}

    def statement(self, sql: str, values: Mapping[str, str], more: Mapping[str, str]) -> str:
        """The query string of a statement with its values; `more` are further parameters.

        The view and the limit remain if it is the same statement.

        Raises:
            ValueError: it is too long for an address.
        """
        found = {name: self.given[name] for name in ("model", "images") if self.given.get(name)}
        found["q"] = sql
        found |= {f"p.{name}": value for name, value in values.items() if value != self.picked(name)}
        kept = {name: self.given.get(name, "") for name in KEPT} if sql == self.sql else {}
        found |= {name: value for name, value in {**kept, **more}.items() if value}
        return _query(found)

    def with_view(self, **changes: str) -> str:
        """The query string with changes to how the result is shown; empty removes a parameter."""
        return _query({name: value for name, value in {**self.given, **changes}.items() if value})


def _query(given: Mapping[str, str]) -> str:
    text = urlencode(given)
    if len(text) > MAX_ADDRESS:
        raise ValueError(
            f"The statement is too long for an address: expected at most {MAX_ADDRESS:,} characters, encoded, got "
            f"{len(text):,}. Use convscope sql in a terminal."
        )
    return f"?{text}"
