"""Image routes."""

import cv2
import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from test_pages import text

from dashboard.pages import image as image_page
from dashboard.pages import images
from dashboard.pictures.geometry import read_layer_geometry, read_preprocessing
from dashboard.pictures.routes import channel_cells, image_address, row_address, stamp, thumbnail_address
from dashboard.state.cache import Cache
from dashboard.state.context import Context
from db.queries import images as image_queries
from db.stores.decoding import read_rgb


def decoded(data: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return found


@pytest.mark.parametrize("layer", ["stage1.block2.dwconv", "stage2.block1.pwconv1", "stage3.block9.dwconv"])
@pytest.mark.parametrize("crop", ["field", "effective"])
def test_a_row_shows_the_receptive_field_of_its_unit(
    client: FlaskClient, context: Context, layer: str, crop: str
) -> None:
    """The oracle is the network's own input, computed from the original file and cropped to the box."""
    run = context.catalogue().runs[0]
    described = context.catalogue().layer(run["model"], layer)
    assert described is not None
    geometry, preprocessing = read_layer_geometry(described, run), read_preprocessing(run)
    row = decoded(client.get(row_address(run, layer, 1, k=6, crop=crop, tile=96)).data)
    assert row.shape == (96, 6 * 96, 3)
    compared = 0
    for rank, cell in enumerate(channel_cells(context, run, layer, [1])[1][:6]):
        place = (cell["y"], cell["x"])
        box = geometry.field(*place) if crop == "field" else geometry.effective_field(*place)
        if min(box) < 0 or max(box) > 224:
            continue  # shifted to lie within the input: see test_geometry
        path = next((context.store.home / "originals").rglob(f"{cell['key']}*"), None)
        assert path is not None
        seen = preprocessing(read_rgb(path.read_bytes()))
        region = Image.fromarray(seen).resize(
            (96, 96), Image.Resampling.BICUBIC, box=(box[1], box[0], box[3], box[2])
        )
        shown = row[:, 96 * rank : 96 * rank + 96, ::-1].astype(int)
        assert np.abs(shown[6:-6, 6:-6] - np.asarray(region)[6:-6, 6:-6]).mean() < 14
        compared += 1
    assert compared or described["rf_size_y"] > 150


def test_images_are_immutable_and_not_sent_twice(client: FlaskClient, context: Context) -> None:
    run = context.catalogue().runs[0]
    key = channel_cells(context, run, "embeddings", [0])[0][0]["key"]
    for address in (
        row_address(run, "embeddings", 0, k=3, crop="image", tile=48),
        thumbnail_address(key),
        image_address(key),
    ):
        first = client.get(address)
        assert first.status_code == 200
        assert first.mimetype == "image/jpeg"
        assert first.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        again = client.get(address, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")


def test_the_same_run_number_of_another_home_has_other_addresses(context: Context) -> None:
    run = context.catalogue().runs[0]
    assert stamp(run) != stamp(run | {"started": run["finished"].replace(year=2020)})
    assert stamp(run) == stamp(dict(run))


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/pictures/rows/99-abc/embeddings/0.jpg", 404, "Run 99 is no longer in the atlas"),
        ("/pictures/rows/{mark}/nothing/0.jpg", 404, "has no channel 0 in a layer “nothing”"),
        ("/pictures/rows/{mark}/embeddings/9999.jpg", 404, "has no channel 9999"),
        ("/pictures/rows/{mark}/embeddings/0.jpg?k=21", 400, "k is 1 to 20"),
        ("/pictures/rows/{mark}/embeddings/0.jpg?tile=5000", 400, "tile is one of"),
        ("/pictures/rows/{mark}/embeddings/0.jpg?crop=zoom", 400, "crop is one of"),
        ("/pictures/thumbnails/" + "a" * 64 + ".jpg", 404, "no image with the key"),
        ("/pictures/thumbnails/zz.jpg", 404, "64 hexadecimal digits"),
        ("/pictures/images/" + "a" * 64 + ".jpg", 404, "no image with the key"),
        ("/pictures/images/zz.jpg", 404, "64 hexadecimal digits"),
    ],
)
def test_unknown_images_are_refused_with_a_sentence(
    client: FlaskClient, context: Context, address: str, status: int, sentence: str
) -> None:
    run = context.catalogue().runs[0]
    answer = client.get(address.format(mark=f"{run['run']}-{stamp(run)}"))
    assert answer.status_code == status
    assert sentence in answer.text
    assert "immutable" not in answer.headers.get("Cache-Control", "")


def test_a_missing_thumbnail_leaves_a_marked_tile(context: Context, client: FlaskClient) -> None:
    run = context.catalogue().runs[0]
    cell = channel_cells(context, run, "embeddings", [2])[2][0]
    path = context.store.thumbnail_path(cell["key"])
    data = path.read_bytes()
    context.thumbnails = Cache(1, lambda pixels: int(pixels.nbytes))  # stores nothing
    path.unlink()
    try:
        address = row_address(run, "embeddings", 2, k=2, crop="image", tile=128)
        answer = client.get(address)
        row = decoded(answer.data)
        shown = images.show_images("", None, "/images")
    finally:
        path.write_bytes(data)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "The thumbnail of 1 image here is gone" in text(shown.problems)
    healed = client.get(address)
    assert "immutable" in healed.headers["Cache-Control"]
    assert healed.data != answer.data
    assert np.abs(row[4:20, 4:20].astype(int) - np.array([138, 132, 128])).max() <= 4


def test_an_image_whose_file_is_gone_is_its_thumbnail_until_the_file_is_back(
    context: Context, client: FlaskClient
) -> None:
    (image,) = context.atlas.fetch(image_queries.image("painted", 17))
    path = context.store.original_path(image["path"])
    data = path.read_bytes()
    path.unlink()
    try:
        answer = client.get(image_address(image["key"]))
        words = text(image_page.show_image("?id=17", None, "/image")[0])
    finally:
        path.write_bytes(data)
    assert "is missing. The thumbnail is shown instead." in words
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.data == context.store.thumbnail_path(image["key"]).read_bytes()
    assert "immutable" in client.get(image_address(image["key"])).headers["Cache-Control"]
