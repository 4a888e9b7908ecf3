"""What a person may have meant by a name that there is none of."""

import difflib
from collections.abc import Iterable

MAX_LISTED = 12


def meant(given: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `given`, None where none is near. Case, spaces and separators count little."""
    by_key: dict[str, str] = {}
    for name in known:
        by_key.setdefault(_key(name), name)
    wanted = _key(given)
    if wanted in by_key:
        return by_key[wanted]
    near = difflib.get_close_matches(wanted, by_key, n=1, cutoff=0.6)
    return by_key[near[0]] if near else None


def choices(given: str, known: Iterable[str], *, nouns: str = "there are") -> str:
    """Half a sentence for behind a semicolon: the nearest name, and what there is where that is not long."""
    names = list(dict.fromkeys(known))
    if not names:
        return "there is none yet"
    near = meant(given, names)
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    listed = f"{nouns} {', '.join(names[:MAX_LISTED])}{more}"
    return listed if near is None else f"did you mean {near!r}? {listed}"


def hint(given: object, known: Iterable[str]) -> str:
    """What to add to a sentence that refuses a name and lists what is valid: the nearest, empty where none is near."""
    near = meant(given, known) if isinstance(given, str) else None
    return "" if near is None else f"; did you mean {near!r}?"


def _key(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name
