"""Limits on what zip and tar archives may unpack to, and which of their members are images.

Archives may come from strangers: the size that one unpacks to is counted while reading, and limited relative
to its own.
"""

from pathlib import Path

from precompute.images.sources.source import ImportRefused, is_parquet, is_picture
from precompute.images.survey import idx_of, is_hidden

ARCHIVE_SUFFIXES = (
    ".zip",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".7z",
    ".rar",
    ".gz",
)
# Images are already compressed: an archive of photos unpacks to its own size, one of drawings to about 50
# times that.
MAX_RATIO = 200
# Below these sizes the ratio is meaningless.
MIN_MEMBER_BYTES = 8 * 2**20
MIN_TOTAL_BYTES = 256 * 2**20
MAX_ENTRIES = 4_000_000
# A file takes at least its header, which compresses to about 30 bytes; fewer bytes per entry mean headers
# without files.
MIN_ENTRIES = 20_000
_BYTES_AN_ENTRY = 16

CLOSED = "members of the archive that are links, devices, encrypted or hostile"
INNER_ARCHIVE = "it is an archive within the archive: import it separately"


class Unpacked:
    """Bytes an archive has unpacked to so far, and the number of its entries."""

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        size = path.stat().st_size
        self._most_bytes = max(MIN_TOTAL_BYTES, MAX_RATIO * size)
        self._most_entries = min(MAX_ENTRIES, max(MIN_ENTRIES, size // _BYTES_AN_ENTRY))
        self._bytes = self._entries = 0

    def take(self, size: int) -> None:
        """Count a member before it is read.

        Raises:
            ImportRefused: the total exceeds the limit.
        """
        self.reach(self._bytes + size)

    def reach(self, size: int) -> None:
        """Record that the archive has unpacked to `size` bytes; raises like `take`."""
        self._bytes = max(self._bytes, size)
        if self._bytes > self._most_bytes:
            raise ImportRefused(
                f"{self._shown} unpacks to more than {self._most_bytes:,} bytes, {MAX_RATIO} times its "
                "size: it is not an archive of images"
            )

    def enter(self) -> None:
        """Count an entry; raises like `take`."""
        self._entries += 1
        if self._entries > self._most_entries:
            raise ImportRefused(
                f"{self._shown} has more than {self._most_entries:,} entries, the limit for a file of its "
                "size: it is not an archive of images"
            )


def too_packed(size: int, packed: int) -> str | None:
    """Why a member that unpacks from `packed` to `size` bytes is refused; None if it is accepted."""
    if size <= MIN_MEMBER_BYTES or size <= MAX_RATIO * packed:
        return None
    return f"it unpacks to {size:,} bytes from {packed:,}, the limit is {MAX_RATIO} times as many"


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive; arrays like MNIST's are packed files of images instead."""
    return name.lower().endswith(ARCHIVE_SUFFIXES) and idx_of(name) is None


def is_wanted(name: str) -> bool:
    """Whether a member is reported if it cannot be read; other members of archives are silently ignored."""
    return is_picture(name) or is_parquet(name) or (is_archive(name) and not is_hidden(name))
