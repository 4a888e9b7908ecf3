"""Untrusted archives: harmful entries are refused by name in one sentence, and the good files are imported."""

import gzip
import io
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from db.atlas.image_sets import known_images
from db.atlas.store import Atlas
from db.stores.images import ImageStore
from precompute.images.importing import ImportReport
from precompute.images.sources import unpacking
from precompute.images.sources.source import ImportRefused

Photo = Callable[..., bytes]
Bring = Callable[..., ImportReport]
ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20


def bomb_picture(side: int) -> bytes:
    """Return a small PNG whose header claims `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


class Pack:
    """Builds archives; each contains `good.jpg`."""

    def __init__(self, good: bytes) -> None:
        self.good = good

    def zip(self, *entries: tuple[str, bytes], **options: int) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in [("good.jpg", self.good), *entries]:
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                for option, value in options.items():
                    if name != "good.jpg":
                        setattr(info, option, value)
                archive.writestr(info, content)
        return buffer.getvalue()

    def tar(self, *members: tuple[str, bytes, bytes]) -> bytes:
        """Return a tar of members given by name, type and content (for links, the target)."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, kind, content in [("good.jpg", tarfile.REGTYPE, self.good), *members]:
                member = tarfile.TarInfo(name)
                member.type = kind
                if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                    member.linkname = content.decode()
                    archive.addfile(member)
                else:
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        return buffer.getvalue()

    def overlapping(self) -> bytes:
        """Return a zip with two entries over the same bytes."""
        whole = bytearray(self.zip(("x.jpg", self.good)))
        first, second = whole.index(b"PK\x01\x02"), whole.rindex(b"PK\x01\x02")
        whole[second + 42 : second + 46] = whole[first + 42 : first + 46]
        return bytes(whole)


LEADS_OUT = "its path points outside the archive"
INNER = "it is an archive within the archive: import it separately"
LINK = "it is a link within the archive"
DEVICE = "it is a device or a pipe, not a file"
S_IFLNK, S_IFCHR = 0o120777 << 16, 0o020666 << 16

# a case: the file, its content, and what is refused, with the beginning of the sentence
CASES: dict[str, tuple[str, Callable[[Pack], bytes], dict[str, str]]] = {
    "climbs out": ("a.zip", lambda p: p.zip(("../../x.jpg", p.good)), {"../../x.jpg": LEADS_OUT}),
    "climbs out by backslashes": ("a.zip", lambda p: p.zip(("..\\x.jpg", p.good)), {"../x.jpg": LEADS_OUT}),
    "absolute": ("a.zip", lambda p: p.zip(("/etc/x.jpg", p.good)), {"/etc/x.jpg": LEADS_OUT}),
    "a drive": ("a.zip", lambda p: p.zip(("C:/x.jpg", p.good)), {"C:/x.jpg": LEADS_OUT}),
    "climbs out of a tar": ("a.tar", lambda p: p.tar(("../x.jpg", tarfile.REGTYPE, p.good)), {"../x.jpg": LEADS_OUT}),
    "over-long": (
        "a.zip",
        lambda p: p.zip(("x" * 300 + ".jpg", p.good)),
        {"x" * 300 + ".jpg": "its path has 304 bytes"},
    ),
    "control characters": (
        "a.zip",
        lambda p: p.zip(("a\nb.jpg", p.good)),
        {"a\\nb.jpg": "its path contains control characters"},
    ),
    "symlink in a zip": (
        "a.zip",
        lambda p: p.zip(("x.jpg", b"/etc/passwd"), external_attr=S_IFLNK, create_system=3),
        {"x.jpg": LINK},
    ),
    "device in a zip": (
        "a.zip",
        lambda p: p.zip(("x.jpg", b""), external_attr=S_IFCHR, create_system=3),
        {"x.jpg": DEVICE},
    ),
    "symlink in a tar": ("a.tar", lambda p: p.tar(("x.jpg", tarfile.SYMTYPE, b"/etc/passwd")), {"x.jpg": LINK}),
    "hard link in a tar": ("a.tar", lambda p: p.tar(("x.jpg", tarfile.LNKTYPE, b"good.jpg")), {"x.jpg": LINK}),
    "device in a tar": ("a.tar", lambda p: p.tar(("x.jpg", tarfile.CHRTYPE, b"")), {"x.jpg": DEVICE}),
    "pipe in a tar": ("a.tar", lambda p: p.tar(("x.jpg", tarfile.FIFOTYPE, b"")), {"x.jpg": DEVICE}),
    "zip in a zip": ("a.zip", lambda p: p.zip(("b.zip", p.zip())), {"b.zip": INNER}),
    "zip in a tar": ("a.tar", lambda p: p.tar(("b.zip", tarfile.REGTYPE, p.zip())), {"b.zip": INNER}),
    "tar in a tar in a tar": (
        "a.tar",
        lambda p: p.tar(("b.tar", tarfile.REGTYPE, p.tar(("c.tar", tarfile.REGTYPE, p.tar())))),
        {"b/c.tar": INNER},
    ),
    "no tar in a tar": (
        "a.tar",
        lambda p: p.tar(("b.tar", tarfile.REGTYPE, b"x" * 600)),
        {"b.tar": "it is not a tar archive"},
    ),
    "ratio": (
        "a.zip",
        lambda p: p.zip(("x.png", bytes(40 * MEGABYTE))),
        {"x.png": "it unpacks to 41,943,040 bytes from"},
    ),
    "overlapping": ("a.zip", lambda p: p.overlapping(), {"x.jpg": "its zip entry is damaged"}),
    "pixels": ("a.zip", lambda p: p.zip(("x.png", bomb_picture(50_000))), {"x.png": "it has more than"}),
    "pixels just past the limit": (
        "a.zip",
        lambda p: p.zip(("x.png", bomb_picture(9_000))),
        {"x.png": "it has 9,000 x 9,000 pixels"},
    ),
    "empty image": ("a.zip", lambda p: p.zip(("x.jpg", b"")), {"x.jpg": "the file is empty"}),
    "web page": ("a.zip", lambda p: p.zip(("x.jpg", b"<!doctype html>")), {"x.jpg": "it is a web page"}),
    "wrong suffix": ("a.jpg", lambda p: p.zip(("x.gif", b"GIF8")), {"x.gif": "its header is damaged"}),
    "name in no encoding": (
        "a.tar",
        lambda p: p.tar(("x\udcff.jpg", tarfile.REGTYPE, p.good)),
        {"x\\udcff.jpg": "its path is not valid UTF-8"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_hostile_members_are_refused_by_name_and_valid_ones_imported(
    case: str, bring: Bring, photo: Photo, atlas: Atlas, store: ImageStore, tmp_path: Path
) -> None:
    file, make, expected = CASES[case]
    (tmp_path / file).write_bytes(make(Pack(photo(1))))
    before = set(tmp_path.parent.rglob("*"))
    report = bring(tmp_path / file)
    found = {one.name: one.reason for one in report.refused}
    assert found.keys() == expected.keys()
    for name, sentence in expected.items():
        assert found[name].startswith(sentence)
    names = {row["name"] for row in atlas.fetch(known_images("pictures"))}
    assert {name.rsplit("/", 1)[-1] for name in names} == {"good.jpg"}
    made = [path for path in set(tmp_path.parent.rglob("*")) - before if not path.is_relative_to(store.home)]
    assert made == [], "nothing is written but below the home"


@pytest.mark.parametrize(
    "name",
    [
        "ünï.jpg",
        "写真.jpg",
        "фото.jpg",
        "\u202egpj.exe.jpg",
        "a b.jpg",
        "CON.jpg",
        "aux.jpg",
        "'\"; DROP.jpg",
    ],
)
def test_names_of_all_alphabets_are_names(
    name: str, bring: Bring, photo: Photo, atlas: Atlas, tmp_path: Path
) -> None:
    pack = Pack(photo(1))
    (tmp_path / "a.zip").write_bytes(pack.zip((name, photo(2))))
    (tmp_path / "a.tar").write_bytes(pack.tar((name, tarfile.REGTYPE, photo(2))))
    for file in ("a.zip", "a.tar"):
        assert bring(tmp_path / file).refused == ()
    assert {row["name"] for row in atlas.fetch(known_images("pictures"))} == {"good.jpg", name}


def test_names_that_lie_about_their_encoding_refuse_the_archive(
    bring: Bring, photo: Photo, tmp_path: Path
) -> None:
    whole = Pack(photo(1)).zip(("ü.jpg", photo(2)))
    (tmp_path / "a.zip").write_bytes(whole.replace("ü".encode(), b"\xff\xfe"))
    with pytest.raises(ImportRefused, match="has names marked as UTF-8 that are not UTF-8"):
        bring(tmp_path / "a.zip")


def test_an_archive_that_unpacks_to_too_much_is_refused_while_it_is_read(
    bring: Bring, photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atlas: Atlas
) -> None:
    monkeypatch.setattr(unpacking, "MIN_TOTAL_BYTES", 4 * MEGABYTE)
    pack = Pack(photo(1))
    (tmp_path / "a.zip").write_bytes(pack.zip(*((f"{n}.png", bytes(MEGABYTE)) for n in range(9))))
    (tmp_path / "a.tar.gz").write_bytes(
        gzip.compress(pack.tar(("big.bin", tarfile.REGTYPE, bytes(30 * MEGABYTE))))
    )
    for file in ("a.zip", "a.tar.gz"):
        with pytest.raises(
            ImportRefused, match=rf"{file} unpacks to more than [\d,]+ bytes, 200 times its size"
        ):
            bring(tmp_path / file)
    assert atlas.version() is None
    assert not list((atlas.home / "thumbnails").rglob("*.jpg"))


def test_a_name_that_would_fill_the_memory_is_refused(bring: Bring, photo: Photo, tmp_path: Path) -> None:
    record = tarfile.TarInfo("././@LongLink")
    record.type, record.size = tarfile.GNUTYPE_LONGNAME, 3 * MEGABYTE
    (tmp_path / "a.tar").write_bytes(
        record.tobuf(tarfile.GNU_FORMAT) + b"x" * (3 * MEGABYTE) + Pack(photo(1)).tar()
    )
    with pytest.raises(ImportRefused, match="a name of 3,145,728 bytes, the limit is 1,048,576"):
        bring(tmp_path / "a.tar")


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_truncated_zip_is_refused_as_a_whole(cut: int, bring: Bring, photo: Photo, tmp_path: Path) -> None:
    whole = Pack(photo(1)).zip(*((f"{n}.jpg", photo(n)) for n in range(20)))
    (tmp_path / "a.zip").write_bytes(whole[:-cut])
    with pytest.raises(ImportRefused, match="damaged"):
        bring(tmp_path / "a.zip")


def test_the_same_image_many_times_is_stored_once(
    bring: Bring, photo: Photo, tmp_path: Path, store: ImageStore
) -> None:
    (tmp_path / "a.zip").write_bytes(Pack(photo(1)).zip(*((f"{n}.jpg", photo(1)) for n in range(50))))
    report = bring(tmp_path / "a.zip")
    assert (report.added, report.duplicates) == (51, 50)
    assert len(list((store.home / "originals").rglob("*.jpg"))) == 1


MANY = """
import sys, tarfile, zipfile, time
from pathlib import Path
from db.atlas.store import Atlas
from db.stores.images import ImageStore
from db.settings import read_settings
from precompute.images.importing import import_images
settings = read_settings({"CONVSCOPE_HOME": sys.argv[2]})
report = import_images(Atlas(settings), ImageStore(settings), image_set="many", source=Path(sys.argv[1]))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
# of this program alone: what getrusage tells begins with the memory of the process that started it
print(report.added, len(report.refused), int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_hundreds_of_thousands_of_entries_are_passed_over_in_little_memory(
    kind: str, photo: Photo, tmp_path: Path
) -> None:
    entries, path = 200_000, tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("good.jpg", photo(1))
            for number in range(entries):
                archive.writestr(zipfile.ZipInfo(f"{number}.bin"), b"")
    else:
        block = tarfile.TarInfo("x.bin").tobuf()
        path.write_bytes(
            Pack(photo(1)).tar().rstrip(b"\0").ljust(10240, b"\0")[:1536] + block * entries + bytes(1024)
        )
    ran = subprocess.run(
        [sys.executable, "-c", MANY, str(path), str(tmp_path / "home")],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    added, refused, megabytes = map(int, ran.stdout.split())
    assert (added, refused) == (1, 0)
    assert megabytes < 700
