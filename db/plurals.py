"""Counts with their nouns, for every message shown to users."""


def count(number: int, noun: str) -> str:
    """`1 image`, `1,000 images`, `2 classes`, `3 patches`."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{ending}"
