"""Labels of ILSVRC's flat validation folder, from Kaggle's table or the devkit's list of ids.

The devkit numbers classes 1 to 1000 in its own order ("ILSVRC id"), which is not the order of sorted WNIDs
that networks use. Only the devkit's `data/meta.mat` maps ids to WNIDs; without it the list is refused rather
than read in the wrong order.

Reference: O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, and the
development kit's readme (ILSVRC2012_devkit_t12).
"""

import codecs
import csv
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from precompute.images.sources.source import GROUND_TRUTH_FILES, ImportRefused, check_truth_size
from precompute.images.sources.tar import TAR_ERRORS, is_tar
from precompute.images.wordnet import WNID, Label, label_of_wnid

_DEVKIT_LIST = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
_VALIDATION_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})(?:_n\d{8})?\.")
_EXPECTED = (
    "expected Kaggle's LOC_val_solution.csv, the ILSVRC2012 devkit (its folder, its .tar.gz or its "
    f"{_DEVKIT_LIST}), or a text file of WordNet ids"
)


@dataclass(frozen=True)
class GroundTruth:
    """WNIDs by file name without suffix, or by the number in `ILSVRC2012_val_<number>`, from 1."""

    by_stem: Mapping[str, str] = field(default_factory=dict)
    by_number: Sequence[str] = ()

    def label(self, name: str) -> Label | None:
        """The label of the image called `name` in its source; None if there is none."""
        file_name = name.rsplit("/", 1)[-1]
        wnid = self.by_stem.get(file_name.rsplit(".", 1)[0])
        if wnid is None and self.by_number:
            number = _VALIDATION_NUMBER.match(file_name)
            if number is not None and 1 <= int(number[1]) <= len(self.by_number):
                wnid = self.by_number[int(number[1]) - 1]
        return None if wnid is None else label_of_wnid(wnid)


def load_ground_truth(path: Path) -> GroundTruth:
    """Load ground truth from a file, a folder or the devkit's archive.

    Raises:
        ImportRefused: `path` is none of these, or is the devkit's list without its `meta.mat`.
    """
    if not path.exists():
        raise ImportRefused(f"no ground truth found at {path}: {_EXPECTED}")
    if path.is_dir():
        files = _known_files(path, path / "data")
        if not files:
            raise ImportRefused(f"{path} contains no ground truth: {_EXPECTED}")
        return read_ground_truth(files, str(path))
    if path.name == META:
        files = _known_files(path.parent)
        return read_ground_truth(files, str(path))
    if not path.is_file():
        raise ImportRefused(f"{path} is not a regular file: {_EXPECTED}")
    if is_tar(path):
        return read_ground_truth(_files_of_tar(path), str(path))
    content = _read(path)
    # In the devkit, `data/meta.mat` is next to the list; some copies keep the list one folder above.
    beside = _known_files(path.parent, path.parent / "data")
    first = content[:4096].split(b"\n", 1)[0]
    if first.startswith(b"ImageId,"):
        return read_ground_truth({"LOC_val_solution.csv": content}, str(path))
    if re.fullmatch(rb"\s*\d+\s*", first):
        meta = {META: beside[META]} if META in beside else {}
        return read_ground_truth({_DEVKIT_LIST: content} | meta, str(path))
    return _wnid_lines(content, path)


def read_ground_truth(files: Mapping[str, bytes], origin: str) -> GroundTruth:
    """Ground truth from the contents of known files, by file name; `origin` appears in messages.

    Raises:
        ImportRefused: no file contains labels, or the devkit's list lacks its `meta.mat`.
    """
    if "LOC_val_solution.csv" in files:
        return _kaggle_table(files["LOC_val_solution.csv"], origin)
    if _DEVKIT_LIST not in files:
        raise ImportRefused(f"{origin} contains no ground truth: {_EXPECTED}")
    if META not in files:
        raise ImportRefused(
            f"{origin} contains ILSVRC ids (1 to 1000), whose order is defined only in the devkit's "
            f"data/{META}: put {META} next to it, or give Kaggle's LOC_val_solution.csv"
        )
    wnids = _wnid_of_id(files[META], origin)
    by_number = []
    for line, text in enumerate(files[_DEVKIT_LIST].decode("ascii", "replace").split(), start=1):
        if not text.isdecimal() or int(text) not in wnids:
            raise ImportRefused(
                f"{origin}: expected an ILSVRC id from 1 to 1000 at line {line}, got {text!r}"
            )
        by_number.append(wnids[int(text)])
    return GroundTruth(by_number=by_number)


def _files_of_tar(path: Path) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                part = archive.extractfile(member) if name in GROUND_TRUTH_FILES else None
                if part is not None:
                    check_truth_size(f"{name} in {path}", member.size)
                    files[name] = part.read()
    except TAR_ERRORS as error:
        raise ImportRefused(f"{path} is damaged or truncated ({error}): download it again") from error
    return files


def _read(path: Path) -> bytes:
    """A file's bytes without a UTF-8 byte order mark."""
    check_truth_size(str(path), path.stat().st_size)
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise ImportRefused(f"{path} cannot be opened ({error.strerror})") from error


def _known_files(*folders: Path) -> dict[str, bytes]:
    return {
        name: _read(folder / name)
        for folder in reversed(folders)
        for name in sorted(GROUND_TRUTH_FILES)
        if (folder / name).is_file()
    }


def _kaggle_table(content: bytes, origin: str) -> GroundTruth:
    """`ImageId,PredictionString`, where the string is one `<wnid> <x0> <y0> <x1> <y1>` per object."""
    by_stem = {}
    rows = csv.reader(io.StringIO(content.decode("utf-8-sig", "replace")))
    try:
        table = list(rows)
    except csv.Error as error:
        raise ImportRefused(f"{origin} cannot be read at line {rows.line_num}: {error}") from error
    for line, row in enumerate(table[1:], start=2):
        if not row:
            continue
        wnid = row[1].split()[0] if len(row) > 1 and row[1].split() else ""
        if not WNID.fullmatch(wnid):
            raise ImportRefused(
                f"{origin}: expected `ImageId,<WordNet id> ...` at line {line}, got {','.join(row)!r}"
            )
        by_stem[row[0].rsplit("/", 1)[-1]] = wnid
    return GroundTruth(by_stem=by_stem)


def _wnid_lines(content: bytes, path: Path) -> GroundTruth:
    """One WNID per line in the order of the validation images, or one `<file name> <wnid>` per line."""
    lines = [line.split() for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines and all(len(words) == 1 and WNID.fullmatch(words[0]) for words in lines):
        return GroundTruth(by_number=[words[0] for words in lines])
    if lines and all(len(words) == 2 and WNID.fullmatch(words[1]) for words in lines):
        return GroundTruth(by_stem={_stem(words[0]): words[1] for words in lines})
    if lines and all(len(words) == 2 and words[1].isdecimal() for words in lines):
        raise ImportRefused(
            f"{path} contains class numbers without stating their order: {_EXPECTED}, which are unambiguous"
        )
    raise ImportRefused(f"{path} is not a readable ground truth: {_EXPECTED}")


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _wnid_of_id(meta: bytes, origin: str) -> dict[int, str]:
    """WNIDs by ILSVRC id, for ids that are classes (1 to 1000; higher ids are inner nodes of the hierarchy)."""
    from scipy.io import loadmat  # takes half a second that no other import needs

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        pairs = [(int(row["ILSVRC2012_ID"]), str(row["WNID"])) for row in synsets.ravel()]
    except Exception as error:  # a damaged .mat file can raise anything
        raise ImportRefused(f"{META} of {origin} cannot be read: download the devkit again") from error
    wnids = {number: wnid for number, wnid in pairs if 1 <= number <= 1000}
    if len(wnids) != 1000 or not all(WNID.fullmatch(wnid) for wnid in wnids.values()):
        raise ImportRefused(f"{META} of {origin}: expected 1,000 classes, got {len(wnids):,}")
    return wnids
