"""Addresses: parse the URL of a page into typed choices, and build URLs from choices.

Each page's choices are one frozen record. Fields with their default value are omitted from the URL. An
unusable value is replaced by the default and explained in a sentence, so that a wrong link shows a page and
says why.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar, cast
from urllib.parse import parse_qs, urlencode

from dashboard.pictures.compose import TILE_SIZES
from dashboard.pictures.geometry import CROPS
from dashboard.security.prefix import local
from db.ledger.tables import STATES
from db.queries.images import IMAGE_ORDERS, VERDICTS
from db.queries.overview import CLASS_ORDERS as OVERVIEW_ORDERS
from db.queries.patches import CHANNEL_ORDERS
from db.queries.robustness import CLASS_ORDERS
from workers.attribution.registry import DEFAULT_METHOD
from workers.jobs.registry import JOB_KINDS
from workers.requests.parameters import MAX_NUMBER
from workers.requests.saliency import DEFAULT_STEPS, MAX_STEPS

K_MOST = 20
MAX_ADDRESS = 8000  # characters; the server accepts request lines of 8190, slightly more
ROWS_PER_PAGE = 30
CHANNEL_PATTERN = re.compile(r"\s*([0-9]{1,7})\s*(?:-\s*([0-9]{1,7})\s*)?")


There = TypeVar("There", bound="Address")


class ChannelsError(ValueError):
    """A list of channels cannot be parsed; the message is one sentence for the user."""


def _choice(default: str, choices: tuple[str, ...]) -> Any:
    return field(default=default, metadata={"choices": choices})


def _number(default: int, low: int, high: int) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


def _number_or_none(low: int, high: int) -> Any:
    """An integer as text, empty for none."""
    return field(default="", metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Address:
    """Choices shared by all pages. Field names are the parameter names in the query string."""

    path: ClassVar[str]
    model: str = ""
    images: str = ""

    def href(self, **changes: Any) -> str:
        """Path, including the URL prefix, and query string; `changes` replace fields."""
        return local(self.path) + self.search_part(**changes)

    def search_part(self, **changes: Any) -> str:
        """The query string with its question mark; empty if all fields have their defaults."""
        changed = dataclasses.replace(self, **changes)
        given = {
            item.name: getattr(changed, item.name)
            for item in dataclasses.fields(changed)
            if getattr(changed, item.name) != item.default
        }
        return "?" + urlencode(given) if given else ""

    def at(self, kind: type[There], **changes: Any) -> There:
        """Another page's address with the choices that both share; `changes` replace fields."""
        both = {item.name for item in dataclasses.fields(self)} & {
            item.name for item in dataclasses.fields(kind)
        }
        return kind(**{name: getattr(self, name) for name in both} | changes)

    @classmethod
    def read(cls, search: str | None) -> tuple[Self, dict[str, str]]:
        """The choices in a query string, and a sentence for each unusable one, by field."""
        given = {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items()}
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for item in dataclasses.fields(cls):
            if item.name not in given:
                continue
            text = given[item.name]
            if "low" in item.metadata:
                low, high = item.metadata["low"], item.metadata["high"]
                if re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high:
                    values[item.name] = int(text) if isinstance(item.default, int) else text
                else:
                    problems[item.name] = (
                        f"{item.name}: expected a whole number from {low} to {high:,}, got “{text}”."
                    )
            elif "choices" in item.metadata and text not in item.metadata["choices"]:
                choices = ", ".join(filter(None, item.metadata["choices"]))
                problems[item.name] = f"{item.name}: expected one of {choices}, got “{text}”."
            else:
                values[item.name] = text
        return cls(**values), problems


def changed(values: Mapping[str, str | None], shown: Mapping[str, str] | None) -> dict[str, str]:
    """Values of controls that differ from what the server put there: showing an address never changes it."""
    given = {name: (value or "").strip() for name, value in values.items()}
    return {name: value for name, value in given.items() if shown and value != shown[name]}


@dataclass(frozen=True)
class PatchesAddress(Address):
    """One layer's channels and their patches. `page` counts pages of ROWS_PER_PAGE channels from 1."""

    path: ClassVar[str] = "/"
    layer: str = ""
    channels: str = ""
    page: int = _number(1, 1, 1_000_000)
    k: int = _number(10, 1, K_MOST)
    sort: str = _choice("index", tuple(CHANNEL_ORDERS))
    crop: str = _choice("field", tuple(CROPS))
    tile: str = _choice("fit", ("fit", *(str(size) for size in TILE_SIZES if size <= 192)))

    def start(self) -> "PatchesAddress":
        """The same model and images with nothing else chosen: where a user starts."""
        return PatchesAddress(model=self.model, images=self.images)


@dataclass(frozen=True)
class ChannelAddress(PatchesAddress):
    """One channel. The other choices are those of the Patches page that led here, for the link back."""

    path: ClassVar[str] = "/channel"
    channel: int = _number(0, 0, 9_999_999)


@dataclass(frozen=True)
class ImagesAddress(Address):
    """The images of a set. `predicted` is a class index, empty for any class."""

    path: ClassVar[str] = "/images"
    view: str = _choice("grid", ("grid", "table"))
    label: str = ""
    verdict: str = _choice("any", ("any", *VERDICTS))
    predicted: str = _number_or_none(0, 999_999)
    search: str = ""
    sort: str = _choice("id", tuple(IMAGE_ORDERS))
    page: int = _number(1, 1, 10_000_000)


@dataclass(frozen=True)
class ImageAddress(ImagesAddress):
    """One image, and some or all of its channels. The other choices are those of the list that led here."""

    path: ClassVar[str] = "/image"
    id: int = _number(0, 0, 999_999_999)
    driven: str = _choice("some", ("some", "all"))


@dataclass(frozen=True)
class OverviewAddress(Address):
    """An image set as a whole."""

    path: ClassVar[str] = "/overview"
    order: str = _choice("images", tuple(OVERVIEW_ORDERS))


@dataclass(frozen=True)
class SaliencyAddress(Address):
    """A request for maps.

    `models` lists names, empty for `model` alone; method parameters are additional `p_NAME` parameters.
    `steps` is the number of steps of the deletion and insertion curves shown with the maps. Display options
    of the maps (colors, scale, …) are also in the address; only the browser reads them.
    """

    path: ClassVar[str] = "/saliency"
    models: str = ""
    ids: str = ""
    method: str = DEFAULT_METHOD
    target: str = "prediction"
    steps: int = _number(DEFAULT_STEPS, 2, MAX_STEPS)


@dataclass(frozen=True)
class AttackAddress(Address):
    """A request for attacks, analogous to `SaliencyAddress`, and the selected attack (0: the first).

    `target` is the class to leave (`prediction` or `label`), or the index of a class to reach.
    """

    path: ClassVar[str] = "/attack"
    models: str = ""
    ids: str = ""
    method: str = "fgsm"
    target: str = "prediction"
    attack: int = _number(0, 0, MAX_NUMBER)


@dataclass(frozen=True)
class RobustnessAddress(Address):
    """Attacks on a whole set. `protocol` selects how they were made, empty for the one with the most images.

    `label` is a class (WNID, or name if it has none). The page lists the images of `epsilon` under the model
    `listed`, or under `model` if that is empty.
    """

    path: ClassVar[str] = "/robustness"
    protocol: str = ""
    label: str = ""
    axis: str = _choice("log", ("log", "linear"))
    sort: str = _choice("weakest", tuple(CLASS_ORDERS))
    listed: str = ""
    epsilon: str = ""


@dataclass(frozen=True)
class SQLAddress(Address):
    """A statement. Its parameters (`p.NAME`) and display options are also in the address, for the browser only."""

    path: ClassVar[str] = "/sql"
    q: str = ""


@dataclass(frozen=True)
class JobsAddress(Address):
    """The list of jobs, and the open one (0: none)."""

    path: ClassVar[str] = "/jobs"
    state: str = _choice("", ("", *STATES))
    kind: str = _choice("", ("", *JOB_KINDS))
    job: int = _number(0, 0, MAX_NUMBER)
    page: int = _number(1, 1, 1_000_000)


def parse_channels(text: str, count: int) -> list[int] | None:
    """Channels in a text such as `0-29` or `5, 17, 200`, ascending and unique; None means all.

    Raises:
        ChannelsError: the text is malformed, or names a channel that the layer does not have.
    """
    if not text.strip():
        return None
    chosen: set[int] = set()
    for part in text.split(","):
        match = CHANNEL_PATTERN.fullmatch(part)
        if match is None:
            raise ChannelsError(f"Expected a range such as 0-29 or a list such as 5, 17, got “{text}”.")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise ChannelsError(f"Expected a range from low to high, got “{part.strip()}”.")
        if last >= count:
            raise ChannelsError(f"Expected numbers from 0 to {count - 1}, which this layer has, got {last}.")
        chosen.update(range(first, last + 1))
    return sorted(chosen)


def as_crop(text: str) -> Any:
    """A crop's name for `geometry.view`; addresses contain only valid ones."""
    return cast(Any, text)
