"""Classes by the name that somebody typed: one of a model's classes, or a label of a set's images."""

import re
from collections.abc import Callable, Sequence

from dashboard.state.context import Record

MAX_NAMED = 5


def find_class(names: Sequence[str], text: str, model: str) -> tuple[int | None, str]:
    """The index of the class that `text` names, or a sentence that says why there is not exactly one.

    `text` is an index, `index: name`, a name, or a part of a name; the case of letters does not matter. A
    whole name comes before a part of one.
    """
    wanted = text.strip().casefold()
    leading = re.match(r"([0-9]{1,9})\s*(?::|$)", wanted)
    found: list[int] = []
    if leading:
        found = [int(leading[1])] if int(leading[1]) < len(names) else []
    elif wanted:
        found = _where(names, lambda name: name == wanted) or _where(names, lambda name: wanted in name)
    if len(found) == 1:
        return found[0], ""
    if not found:
        expected = f"expected a name, or an index from 0 to {len(names) - 1}"
        return None, f"No class of {model} is called “{text}”: {expected}."
    some = ", ".join(f"{index}: {names[index]}" for index in found[:MAX_NAMED])
    more = ", …" if len(found) > MAX_NAMED else ""
    return None, f"{len(found)} classes of {model} match “{text}”: {some}{more}."


def _where(names: Sequence[str], fits: Callable[[str], bool]) -> list[int]:
    return [index for index, name in enumerate(names) if fits(name.casefold())]


def find_label(rows: Sequence[Record], text: str) -> str:
    """Key of the label with that name, or whose name contains it; empty if there is none.

    `rows` are those of `image_classes`.
    """
    wanted = text.strip().casefold()
    names = [(str(row["label"]).casefold(), str(row["class"])) for row in rows]
    whole = [key for name, key in names if name == wanted]
    part = [key for name, key in names if wanted in name]
    return next(iter(whole + part), "")
