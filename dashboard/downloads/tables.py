"""CSV downloads of tables: the same queries as on the pages."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import flask
from msgspec import Meta

from dashboard.api.answers import file_name
from dashboard.api.routing import DOWNLOAD_ERRORS, Routes, Spreadsheet
from dashboard.pages import channel as channel_page
from dashboard.state.address import (
    Address,
    ChannelAddress,
    ChannelsError,
    ImageAddress,
    ImagesAddress,
    OverviewAddress,
    PatchesAddress,
)
from dashboard.state.context import Catalogue, Record, current
from dashboard.state.selections import (
    LayerSelection,
    NothingSelected,
    images_query,
    patches_query,
    resolve,
    select_channels,
    select_layer,
    select_run,
)
from db.atlas.store import AtlasError, NoAtlas, Query
from db.queries import images as image_queries
from db.queries import overview as overview_queries
from db.queries import patches as patch_queries
from db.queries import tuning as tuning_queries
from db.queries.inventory import left_out_modules
from db.queries.labels import label_matches
from db.sql.formats import csv_lines
from db.suggestions import hint
from workers.requests.parameters import InvalidRequest

downloads = Routes("downloads", "/download", {InvalidRequest: 400}, any_query=True)
ROWS_AT_ONCE = 2000
_ABOUT: dict[str, Any] = {
    "answers": "The file.",
    "errors": DOWNLOAD_ERRORS,
    "media": ("text/csv",),
    "text_errors": True,
}


@downloads.blueprint.errorhandler(NothingSelected)
@downloads.blueprint.errorhandler(ChannelsError)
@downloads.blueprint.errorhandler(NoAtlas)
def not_there(error: Exception) -> flask.Response:
    """The requested object does not exist; the response is one sentence."""
    return flask.Response(f"{error}\n", 404, mimetype="text/plain")


@downloads.get("/patches.csv", address=PatchesAddress, **_ABOUT)
def download_patches(query: Spreadsheet) -> flask.Response:
    """The patches that the Patches page shows."""
    context = current()
    selection = select_layer(_catalogue(), _address(PatchesAddress))
    found = select_channels(selection)
    shown = [row["channel"] for row in context.atlas.fetch(found.query)]
    return _csv(
        query, patches_query(selection, shown), f"{selection.run['model']}-{selection.layer['layer']}-patches"
    )


@downloads.get("/channel.csv", address=ChannelAddress, **_ABOUT)
def download_channel(query: Spreadsheet) -> flask.Response:
    """The patches of one channel."""
    selection, channel = _channel()
    return _csv(query, channel_page.patches_query(selection, channel), _channel_name(selection, channel))


@downloads.get("/channel-classes.csv", address=ChannelAddress, **_ABOUT)
def download_channel_classes(query: Spreadsheet) -> flask.Response:
    """The classes among a channel's patches."""
    selection, channel = _channel()
    rows = patch_queries.channel_classes(selection.run["run"], selection.layer["layer"], channel)
    return _csv(query, rows, f"{_channel_name(selection, channel)}-classes")


@downloads.get("/channel-histogram.csv", address=ChannelAddress, **_ABOUT)
def download_channel_histogram(query: Spreadsheet) -> flask.Response:
    """The histogram of a channel's maximum activation per image."""
    selection, channel = _channel()
    rows = patch_queries.channel_histogram(selection.run["run"], selection.layer["layer"], channel)
    return _csv(query, rows, f"{_channel_name(selection, channel)}-histogram")


@downloads.get("/channel-gratings.csv", address=ChannelAddress, **_ABOUT)
def download_channel_gratings(query: Spreadsheet) -> flask.Response:
    """A channel's responses to gratings."""
    return _tuning(query, tuning_queries.gratings, "gratings")


@downloads.get("/channel-hues.csv", address=ChannelAddress, **_ABOUT)
def download_channel_hues(query: Spreadsheet) -> flask.Response:
    """A channel's responses to plain hues."""
    return _tuning(query, tuning_queries.hues, "hues")


def _tuning(query: Spreadsheet, rows: Callable[[int, str, int], Query], table: str) -> flask.Response:
    selection, channel = _channel()
    runs = current().atlas.fetch(tuning_queries.probe_run(selection.run["model"]))
    if not runs:
        raise NothingSelected(f"{selection.run['model']} has no run on a set of probe images.")
    return _csv(
        query,
        rows(runs[0]["run"], selection.layer["layer"], channel),
        f"{_channel_name(selection, channel)}-{table}",
    )


def _channel_name(selection: LayerSelection, channel: int) -> str:
    return f"{selection.run['model']}-{selection.layer['layer']}-channel-{channel}"


def _channel() -> tuple[LayerSelection, int]:
    address = _address(ChannelAddress)
    selection = select_layer(_catalogue(), address.at(PatchesAddress))
    if address.channel >= selection.layer["channels"]:
        last = selection.layer["channels"] - 1
        raise NothingSelected(f"{selection.layer['label']} has channels 0 to {last}, not {address.channel}.")
    return selection, address.channel


@downloads.get("/images.csv", address=ImagesAddress, **_ABOUT)
def download_images(query: Spreadsheet) -> flask.Response:
    """All images that match the filters of the Images page, not just the current page."""
    catalogue = _catalogue()
    run, address = resolve(catalogue, _address(ImagesAddress))
    if all(found["image_set"] != address.images for found in catalogue.image_sets):
        raise NothingSelected(f"There is no image set “{address.images}”.")
    return _csv(query, images_query(run, address, limit=None), f"{address.images}-images")


OVERVIEW: dict[str, Callable[[Record | None, ImagesAddress, str], Query]] = {
    "classes": lambda run, a, sort: overview_queries.classes(
        a.images, None if run is None else run["run"], order=sort, limit=None
    ),
    "sizes": lambda _run, a, _sort: overview_queries.sizes(a.images, limit=None),
    "accuracy": lambda _run, a, _sort: overview_queries.accuracy(a.images),
    "confusions": lambda run, _a, _sort: overview_queries.confusions(-1 if run is None else run["run"]),
    "mistakes": lambda run, a, _sort: images_query(
        run, replace(a, verdict="wrong", sort="surest"), limit=None
    ),
    "labels": lambda run, _a, _sort: label_matches(-1 if run is None else run["run"]),
    "left_out": lambda run, _a, _sort: left_out_modules("" if run is None else run["model"]),
    "repeats": lambda _run, a, _sort: overview_queries.near_duplicates(a.images, limit=None),
}


@downloads.get("/overview/<table>.csv", address=OverviewAddress, **_ABOUT)
def download_overview(
    table: Annotated[str, Meta(description="The table.", extra_json_schema={"enum": list(OVERVIEW)})],
    query: Spreadsheet,
) -> flask.Response:
    """All rows of a table of the Overview page."""
    if table not in OVERVIEW:
        raise NothingSelected(
            f"table: expected one of {', '.join(OVERVIEW)}, got {table!r}{hint(table, OVERVIEW)}"
        )
    catalogue = _catalogue()
    address = _address(OverviewAddress)
    run, listed = resolve(catalogue, address.at(ImagesAddress))
    if all(found["image_set"] != listed.images for found in catalogue.image_sets):
        raise NothingSelected(f"There is no image set “{listed.images}”.")
    return _csv(query, OVERVIEW[table](run, listed, address.order), f"{listed.images}-{table}")


@downloads.get("/image-channels.csv", address=ImageAddress, **_ABOUT)
def download_image_channels(query: Spreadsheet) -> flask.Response:
    """The channels whose top-k contain the image."""
    address = _address(ImageAddress)
    run = select_run(_catalogue(), address.model, address.images)
    _require_image(run["image_set"], address.id)
    rows = image_queries.image_channels(run["run"], address.id, per_layer=None, with_tied=True)
    return _csv(query, rows, f"{run['model']}-{run['image_set']}-image-{address.id}-channels")


@downloads.get("/image-predictions.csv", address=ImageAddress, **_ABOUT)
def download_image_predictions(query: Spreadsheet) -> flask.Response:
    """Each model's predictions for one image."""
    catalogue = _catalogue()
    address = _address(ImageAddress)
    run = catalogue.run(address.model, address.images)
    image_set = address.images or (run["image_set"] if run else "")
    _require_image(image_set, address.id)
    rows = image_queries.image_predictions(image_set, address.id, first=run["run"] if run else None)
    return _csv(query, rows, f"{image_set}-image-{address.id}-predictions")


def _require_image(image_set: str, image_id: int) -> None:
    if not current().atlas.fetch(image_queries.image(image_set, image_id)):
        raise NothingSelected(f"{image_set} has no image {image_id}.")


def _catalogue() -> Catalogue:
    catalogue = current().catalogue()
    if catalogue.trouble:
        raise AtlasError(catalogue.trouble)
    return catalogue


def _address(kind: type[Any]) -> Any:
    address, _ = kind.read(flask.request.query_string.decode())
    assert isinstance(address, Address)
    return address


def _csv(query: Spreadsheet, rows: Query, name: str) -> flask.Response:
    table = current().atlas.fetch_arrow(rows)
    response = flask.Response(
        csv_lines(table.schema, table.to_batches(ROWS_AT_ONCE), spreadsheet=query.for_spreadsheet),
        mimetype="text/csv",
    )
    response.headers["Content-Disposition"] = f'attachment; filename="{file_name(name)}.csv"'
    response.headers["Cache-Control"] = "no-store"
    return response
