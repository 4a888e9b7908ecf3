"""Resolve an address to its run, layer and channels; shared by pages and downloads."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dashboard.state.address import (
    ROWS_PER_PAGE,
    ImagesAddress,
    PatchesAddress,
    parse_channels,
)
from dashboard.state.context import Catalogue, Record
from db.atlas.store import Query
from db.plurals import count
from db.queries.images import ImageFilter, images
from db.queries.patches import channels, patches

IMAGES_PER_PAGE = 96


class NothingSelected(LookupError):
    """The address names something missing from the atlas. Message: one sentence; `choices`: valid names."""

    def __init__(self, sentence: str, choices: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.choices = choices


class NotIndexed(NothingSelected):
    """The model has the layer, but its run does not cover it; `command` indexes the model with it."""

    def __init__(self, run: Record, layer: Record, layers: int) -> None:
        have = f"{run['layers']:,} of {count(layers, 'layer')}"
        super().__init__(f"{layer['label']} was not indexed in run {run['run']} ({have}).")
        self.layer = layer
        self.command = index_command(run, run["image_set"]) + " --replace"


@dataclass(frozen=True)
class LayerSelection:
    """A layer of a run. `address` has its empty names filled in."""

    run: Record
    layer: Record
    address: PatchesAddress


@dataclass(frozen=True)
class ChannelSelection:
    """Channels of a layer: which (None: all), how many, and the query of the current page."""

    only: tuple[int, ...] | None
    total: int
    page: int
    pages: int
    query: Query


def index_command(run: Record, image_set: str) -> str:
    """The shell command that indexes an image set with a run's model, over all layers."""
    named = "" if run["model"] == run["source"] else f" --name {shlex.quote(run['model'])}"
    return f"convscope index --model {shlex.quote(run['source'])}{named} --images {shlex.quote(image_set)}"


def select_run(catalogue: Catalogue, model: str, image_set: str) -> Record:
    """The run of a model over an image set; empty names match any.

    Raises:
        NothingSelected: there is no such run.
    """
    run = catalogue.run(model, image_set)
    if run is not None:
        return run
    have = tuple(f"{found['model']} over {found['image_set']}" for found in catalogue.runs)
    if model and image_set:
        wanted = f"{model} was not indexed over {image_set}"
    else:
        wanted = f"{model} was not indexed" if model else f"No model was indexed over {image_set}"
    raise NothingSelected(f"{wanted}.", have)


def select_layer(catalogue: Catalogue, address: PatchesAddress) -> LayerSelection:
    """The layer that an address names; an empty name means `default_layer`.

    Raises:
        NothingSelected: there is no such run or layer.
        NotIndexed: the run does not cover this layer.
    """
    run = select_run(catalogue, address.model, address.images)
    layers = catalogue.layers[run["model"]]
    if address.layer:
        layer = catalogue.layer(run["model"], address.layer)
    else:
        layer = default_layer(run, [layer for layer in layers if catalogue.is_indexed(run, layer)])
    if layer is None:
        raise NothingSelected(f"{run['model']} has no layer “{address.layer}”.")
    if not catalogue.is_indexed(run, layer):
        raise NotIndexed(run, layer, len(layers))
    full = replace(address, model=run["model"], images=run["image_set"], layer=layer["layer"])
    return LayerSelection(run, layer, full)


def default_layer(run: Record, layers: Sequence[Record]) -> Record | None:
    """The first of `layers` whose receptive field spans at least a third of the input.

    Earlier layers see only specks, later ones nearly everything. A global field qualifies. If no layer does,
    the first.
    """
    third = min(run["input_height"], run["input_width"]) / 3
    seen = (
        layer
        for layer in layers
        if layer["rf_size_y"] is None or min(layer["rf_size_y"], layer["rf_size_x"]) >= third
    )
    return next(seen, next(iter(layers), None))


def select_channels(selection: LayerSelection) -> ChannelSelection:
    """The channels of the page in an address; a page past the end means the last one.

    Raises:
        ChannelsError: the address's channels cannot be parsed.
    """
    address = selection.address
    only = parse_channels(address.channels, selection.layer["channels"])
    total = selection.layer["channels"] if only is None else len(only)
    pages = max(1, -(-total // ROWS_PER_PAGE))
    page = min(address.page, pages)
    query = channels(
        selection.run["run"],
        selection.layer["layer"],
        only=only,
        order=address.sort,
        limit=ROWS_PER_PAGE,
        offset=(page - 1) * ROWS_PER_PAGE,
    )
    return ChannelSelection(None if only is None else tuple(only), total, page, pages, query)


def patches_query(selection: LayerSelection, shown: list[int]) -> Query:
    """The query for the patches of the channels on the page."""
    return patches(selection.run["run"], selection.layer["layer"], shown, k=selection.address.k)


def images_query(run: Record | None, address: ImagesAddress, *, limit: int | None, offset: int = 0) -> Query:
    """The query for the images in an address; `address.images` must be filled in."""
    number = None if run is None else run["run"]
    return images(
        address.images, number, image_filter(address), order=address.sort, limit=limit, offset=offset
    )


def image_filter(address: ImagesAddress) -> ImageFilter:
    """The image filter in an address."""
    return ImageFilter(
        address.label,
        "" if address.verdict == "any" else address.verdict,
        address.search,
        int(address.predicted) if address.predicted else None,
    )


def resolve(catalogue: Catalogue, address: ImagesAddress) -> tuple[Record | None, ImagesAddress]:
    """The run whose predictions are shown, and the address with its empty names filled in."""
    run = catalogue.run(address.model, address.images)
    if run is None and not address.model:
        run = catalogue.run("", address.images)
    image_set = address.images or (run["image_set"] if run else catalogue.newest_set())
    return run, replace(address, images=image_set, model=run["model"] if run else address.model)
