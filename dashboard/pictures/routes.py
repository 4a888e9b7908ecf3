"""Image routes: rows of patches, thumbnails, whole images.

The content of an address never changes: run numbers are never reused, `stamp` distinguishes runs of different
homes, and a key is the hash of the image's bytes. Browsers may therefore cache every image permanently,
except a response for which a file was missing: it is not cached, because the file may come back.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

import cv2
import flask
import numpy as np
from PIL import Image

from dashboard.pictures import compose
from dashboard.pictures.geometry import CROPS, placement, read_layer_geometry, read_preprocessing, view
from dashboard.security.prefix import local
from dashboard.state.address import K_MOST, as_crop
from dashboard.state.context import Context, Record, current
from db.queries import images as image_queries
from db.queries import patches as patch_queries
from db.stores.decoding import UnreadableImage, read_rgb

FOR_EVER = "public, max-age=31536000, immutable"
LARGEST_SIDE = 1024
KEY = re.compile(r"[0-9a-f]{64}")

pictures = flask.Blueprint("pictures", __name__, url_prefix="/pictures")


def stamp(run: Record) -> str:
    """Distinguishes this run's images from those of a run with the same number in another or an earlier home."""
    told = f"{run['run']} {run['model']} {run['image_set']} {run['started']} {compose.RENDERING}"
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def row_address(run: Record, layer: str, channel: int, *, k: int, crop: str, tile: int) -> str:
    """Address of the image that shows a channel's `k` strongest patches side by side."""
    where = f"/pictures/rows/{run['run']}-{stamp(run)}/{quote(layer, safe='')}/{channel}.jpg"
    return f"{local(where)}?k={k}&crop={crop}&tile={tile}"


def patch_address(run: Record, layer: str, key: str, y: int, x: int) -> str:
    """Address of the image region around the effective field of position (y, x) in a layer's feature map."""
    where = f"/pictures/patches/{run['run']}-{stamp(run)}/{quote(layer, safe='')}/{key}.jpg"
    return f"{local(where)}?y={y}&x={x}"


def thumbnail_address(key: str) -> str:
    """Address of an image's thumbnail (shortest side at most 256)."""
    return local(f"/pictures/thumbnails/{key}.jpg")


def image_address(key: str) -> str:
    """Address of a whole image (longest side at most LARGEST_SIDE)."""
    return local(f"/pictures/images/{key}.jpg")


@pictures.get("/rows/<int:run>-<mark>/<layer>/<int:channel>.jpg")
def row(run: int, mark: str, layer: str, channel: int) -> flask.Response:
    """One channel's patches by rank, side by side, `tile` pixels each.

    Query: `k` (1 to 20), `crop` (field, effective, image), `tile` (pixels). Returns fewer if the set is
    smaller.
    """
    k = flask.request.args.get("k", 10, int)
    crop = flask.request.args.get("crop", "field")
    tile = flask.request.args.get("tile", 96, int)
    if not 1 <= k <= K_MOST or crop not in CROPS or tile not in compose.TILE_SIZES:
        return _sorry(f"k is 1 to {K_MOST}, crop is one of {', '.join(CROPS)}, "
                      f"tile is one of {', '.join(map(str, compose.TILE_SIZES))}.", 400)  # fmt: skip
    context = current()
    asked = (run, mark, layer, channel, k, crop, tile)
    data = context.pictures.get(asked)
    if data is None:
        catalogue = context.catalogue()
        found = catalogue.run_numbered(run)
        if found is None or stamp(found) != mark:
            return _sorry(f"Run {run} is no longer in the atlas: reload the page.", 404)
        described = catalogue.layer(found["model"], layer)
        if described is None or channel >= described["channels"]:
            return _sorry(f"{found['model']} has no channel {channel} in a layer “{layer}”.", 404)
        cells = channel_cells(context, found, layer, [channel]).get(channel, ())[:k]
        if not cells:
            return _sorry(f"Channel {channel} of {layer} has no patches in run {run}.", 404)
        geometry = read_layer_geometry(described, found)
        preprocessing = read_preprocessing(found)
        tiles = []
        complete = True
        for cell in cells:
            picture = thumbnail(context, cell["key"])
            if picture is None:
                tiles.append(compose.missing(tile))
                complete = False
                continue
            where = placement(preprocessing, (cell["height"], cell["width"]), picture.shape[:2])
            shown = view(geometry, cell["y"], cell["x"], as_crop(crop))
            tiles.append(compose.tile(picture, where, shown, tile))
        data = compose.row(tiles)
        if not complete:
            return _for_now(data)
        context.pictures.put(asked, data)
    return _for_ever(data)


@pictures.get("/patches/<int:run>-<mark>/<layer>/<key>.jpg")
def patch(run: int, mark: str, layer: str, key: str) -> flask.Response:
    """One patch of an image, cropped as in `row`; `crop` defaults to effective."""
    y, x = flask.request.args.get("y", -1, int), flask.request.args.get("x", -1, int)
    crop = flask.request.args.get("crop", "effective")
    tile = flask.request.args.get("tile", 192, int)
    if crop not in CROPS or tile not in compose.TILE_SIZES:
        return _sorry(f"crop is one of {', '.join(CROPS)}, "
                      f"tile is one of {', '.join(map(str, compose.TILE_SIZES))}.", 400)  # fmt: skip
    context = current()
    catalogue = context.catalogue()
    found = catalogue.run_numbered(run)
    if found is None or stamp(found) != mark:
        return _sorry(f"Run {run} is no longer in the atlas: reload the page.", 404)
    described = catalogue.layer(found["model"], layer)
    if described is None or not (0 <= y < described["height"] and 0 <= x < described["width"]):
        return _sorry(f"{found['model']} has no position {y}, {x} in a layer “{layer}”.", 404)
    sizes = context.atlas.fetch(image_queries.image_sizes(key)) if KEY.fullmatch(key) else []
    if not sizes:
        return _sorry(f"There is no image with the key {key}.", 404)
    picture = thumbnail(context, key)
    if picture is None:
        return _for_now(compose.row([compose.missing(tile)]))
    size = (sizes[0]["height"], sizes[0]["width"])
    where = placement(read_preprocessing(found), size, picture.shape[:2])
    shown = view(read_layer_geometry(described, found), y, x, as_crop(crop))
    return _for_ever(compose.row([compose.tile(picture, where, shown, tile)]))


@pictures.get("/thumbnails/<key>.jpg")
def thumbnail_file(key: str) -> flask.Response:
    """An image's thumbnail as it is stored."""
    if not KEY.fullmatch(key):
        return _sorry("An image's key is 64 hexadecimal digits.", 404)
    path = current().store.thumbnail_path(key)
    try:
        return _for_ever(path.read_bytes())
    except FileNotFoundError:
        return _sorry(f"There is no image with the key {key}.", 404)


@pictures.get("/images/<key>.jpg")
def image_file(key: str) -> flask.Response:
    """A whole image, decoded as for the networks, its longest side reduced to LARGEST_SIDE."""
    if not KEY.fullmatch(key):
        return _sorry("An image's key is 64 hexadecimal digits.", 404)
    context = current()
    data = context.pictures.get(("image", key))
    if data is None:
        rows = context.atlas.fetch(image_queries.image_by_key(key))
        if not rows:
            return _sorry(f"There is no image with the key {key}.", 404)
        try:
            image = read_rgb(context.store.original_path(rows[0]["path"]).read_bytes())
        except (OSError, UnreadableImage):
            # the original file was moved or deleted: only the thumbnail is left
            try:
                return _for_now(context.store.thumbnail_path(key).read_bytes())
            except FileNotFoundError:
                return _sorry(f"The file of the image {key} and its thumbnail are gone.", 404)
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        data = compose.encode(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
        context.pictures.put(("image", key), data)
    return _for_ever(data)


def channel_cells(
    context: Context, run: Record, layer: str, channels: Sequence[int]
) -> dict[int, tuple[Record, ...]]:
    """All patches of `channels` by rank, with the images they are cropped from; cached.

    A run never changes, but labels and names of its images do, so a new version of the atlas invalidates the
    cache.
    """
    number = run["run"]
    of = (context.catalogue().version, number, stamp(run), layer)
    found = {channel: context.cells.get((*of, channel)) for channel in channels}
    absent = [channel for channel, cells in found.items() if cells is None]
    if absent:
        places = context.atlas.fetch(patch_queries.places(number, layer, absent))
        ids = sorted({place["image_id"] for place in places})
        images = {
            row["image_id"]: row for row in context.atlas.fetch(patch_queries.pictured(run["image_set"], ids))
        }
        classes = {
            row["image_id"]: row["class_index"]
            for row in context.atlas.fetch(patch_queries.labelled_classes(number, ids))
        }
        grouped: dict[int, list[Record]] = {channel: [] for channel in absent}
        for place in places:
            image = place["image_id"]
            if image in images:  # missing if the set changed between two of the queries
                grouped[place["channel"]].append(place | images[image] | {"class_index": classes.get(image)})
        for channel, cells in grouped.items():
            found[channel] = tuple(cells)
            if cells:
                context.cells.put((*of, channel), tuple(cells))
    return {channel: cells for channel, cells in found.items() if cells}


def thumbnail(context: Context, key: str) -> compose.Pixels | None:
    """An image's decoded thumbnail; None if it is missing or damaged."""
    picture = context.thumbnails.get(key)
    if picture is None:
        try:
            data = np.frombuffer(context.store.thumbnail_path(key).read_bytes(), np.uint8)
        except OSError:
            return None
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if decoded is None:
            return None
        picture = decoded.astype(np.uint8, copy=False)
        context.thumbnails.put(key, picture)
    return picture


def thumbnails_gone(context: Context, keys: Iterable[str]) -> int:
    """Number of these images whose thumbnail is missing."""
    return sum(not context.store.thumbnail_path(key).exists() for key in set(keys))


def _for_ever(data: bytes) -> flask.Response:
    response = flask.Response(data, mimetype="image/jpeg")
    response.headers["Cache-Control"] = FOR_EVER
    response.add_etag()
    response.make_conditional(flask.request)  # modifies the response in place
    return response


def _for_now(data: bytes) -> flask.Response:
    response = flask.Response(data, mimetype="image/jpeg")
    response.headers["Cache-Control"] = "no-store"
    return response


def _sorry(sentence: str, status: int) -> flask.Response:
    response = flask.Response(sentence + "\n", status, mimetype="text/plain")
    response.headers["Cache-Control"] = "no-store"
    return response
