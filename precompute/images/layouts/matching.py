"""Match paths in tables to images. No path is ever opened: it is only compared with the names in the source."""

from collections import defaultdict
from collections.abc import Sequence


class Matcher:
    """A source's images by name, file name and stem.

    Memory: three dictionaries of all names, so it is created only if there is a table.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = set(names)
        self._files: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        for name in names:
            last = name.rpartition("/")[2]
            self._files[last].append(name)
            self._stems[_stem(last)].append(name)

    def find(self, value: object, folder: str = "") -> tuple[str, bool] | None:
        """The image that `value` refers to in a table inside `folder`, and whether the suffix was given.

        A path is looked up relative to the table's folder, then relative to the source, then by its last
        parts; a name without a suffix by stem. None if no image or several match, and for a path with `..`.
        """
        if not isinstance(value, str | int) or isinstance(value, bool):
            return None
        text = str(value).strip().strip('"').replace("\\", "/").removeprefix("file://")
        while text.startswith("./"):
            text = text[2:]
        if not text or len(text) > 4096 or ".." in text.split("/"):
            return None
        here = f"{folder}/{text}" if folder else text
        if here in self._exact:
            return here, True
        if text in self._exact:
            return text, True
        last = text.rpartition("/")[2]
        if last in self._files:
            found = _ending(text, folder, self._files[last])
            return None if found is None else (found, True)
        found = _ending(text, folder, self._stems.get(last, []), stems=True)
        return None if found is None else (found, False)


def _ending(text: str, folder: str, names: list[str], *, stems: bool = False) -> str | None:
    """The only one of `names` whose path ends like `text`, or else whose file name matches."""
    names = names[:1000]
    above, _, _ = text.lstrip("/").rpartition("/")
    agreeing = [name for name in names if _agree(name.rpartition("/")[0], above)]
    found = agreeing if agreeing or stems else names
    if len(found) > 1 and folder:
        found = [name for name in found if name.startswith(f"{folder}/")] or found
    return found[0] if len(found) == 1 else None


def _agree(folder: str, stated: str) -> bool:
    """Whether one path ends with the other."""
    return (
        f"/{folder}".endswith(f"/{stated}") or f"/{stated}".endswith(f"/{folder}") or not stated or not folder
    )


def _stem(last: str) -> str:
    return last.rpartition(".")[0] or last
