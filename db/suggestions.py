"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable

MAX_LISTED = 12


def meant(given: str, known: Iterable[str]) -> str | None:
    """The known name closest to `given`, None if none is close; case, spaces and separators count little."""
    by_key: dict[str, str] = {}
    for name in known:
        by_key.setdefault(_key(name), name)
    wanted = _key(given)
    if wanted in by_key:
        return by_key[wanted]
    near = difflib.get_close_matches(wanted, by_key, n=1, cutoff=0.6)
    return by_key[near[0]] if near else None


def choices(given: str, known: Iterable[str], *, nouns: str = "there are") -> str:
    """Half a sentence to follow a semicolon: the closest name, then the valid names, of a long list only the first."""
    names = list(dict.fromkeys(known))
    if not names:
        return "none exist yet"
    near = meant(given, names)
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    listed = f"{nouns} {', '.join(names[:MAX_LISTED])}{more}"
    return listed if near is None else f"did you mean {near!r}? {listed}"


def hint(given: object, known: Iterable[str]) -> str:
    """A suggestion to append to an error that already lists the valid names: the closest one, or an empty string."""
    near = meant(given, known) if isinstance(given, str) else None
    return "" if near is None else f"; did you mean {near!r}?"


def _key(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name
