"""A real atlas without a network: images in the store, and random numbers that are consistent with each other.

The layers are ConvNeXt-tiny's (58, with their true receptive fields), with as many channels as requested.
"""

import hashlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from db.atlas.runs import RUN_TABLES
from db.atlas.store import Atlas
from db.settings import Settings
from db.stores.images import ImageStore

INPUT = 224
RESIZE = 236
LEFT_OUT = "acts on features without spatial positions, such as pooled ones"
CREATED = datetime(2026, 1, 2, 3, 4, 5)
STAGES = ((3, 96), (3, 192), (9, 384), (3, 768))


@dataclass(frozen=True)
class Picture:
    """One image of a set: its file's bytes, label and name."""

    name: str
    data: bytes
    wnid: str | None
    label: str | None


def painted_picture(number: int, width: int, height: int) -> bytes:
    """Return a PNG that differs at every position: a ramp in each direction, and stripes that identify the image."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack(
        [255 * x / width, 255 * y / height, 127 + 120 * np.sin((x + y * (number % 5)) / (6 + number % 7))],
        axis=-1,
    ).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    draw.ellipse((width * 0.3, height * 0.3, width * 0.6, height * 0.6), fill=((number * 53) % 256, 40, 90))
    draw.text((8, 8), str(number), fill="white")
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def painted_pictures(count: int) -> list[Picture]:
    """Return images of several shapes; every seventh has no label, and one label contains HTML."""
    sizes = ((320, 256), (256, 400), (500, 375), (300, 300), (180, 140))
    found = []
    for number in range(count):
        labelled = number % 7 != 6
        kind = number % 11
        label = "<b>tench</b> & co" if kind == 0 else f"kind {kind}"
        found.append(
            Picture(
                f"folder/{number:04d}.png",
                painted_picture(number, *sizes[number % len(sizes)]),
                f"n{10000000 + kind:08d}" if labelled else None,
                label if labelled else None,
            )
        )
    return found


def convnext_layers(divide: int) -> list[dict[str, object]]:
    """Return the 58 layers of ConvNeXt-tiny with their receptive fields; channel counts are divided by `divide`."""
    layers: list[dict[str, object]] = []
    size, jump, start = 4, 4, 0.0

    def add(layer: str, label: str, kind: str, description: str, stage: str | None, block: str | None,
            channels: int) -> None:  # fmt: skip
        side = INPUT // jump
        layers.append(
            {
                "layer": layer, "position": len(layers), "label": label, "module": layer, "kind": kind,
                "description": description, "stage": stage, "block": block, "channels": max(2, channels // divide),
                "height": side, "width": side, "rf_size_y": size, "rf_size_x": size, "jump_y": float(jump),
                "jump_x": float(jump), "start_y": start, "start_x": start, "rf_global": False, "rf_exact": True,
                "erf_size": min(INPUT, max(4, int(size**0.7))),
            }
        )  # fmt: skip

    add("embeddings", "patch embedding", "patch embedding", "4x4 conv, 96, stride 4", None, None, 96)
    for number, (blocks, width) in enumerate(STAGES, 1):
        stage = f"stage {number}"
        if number > 1:
            size, jump = size + jump, jump * 2
            add(f"stage{number}.downsampling", f"{stage} > downsampling", "downsampling",
                f"2x2 conv, {width}, stride 2", stage, None, width)  # fmt: skip
        for place in range(1, blocks + 1):
            block = f"block {place}"
            size, start = size + 6 * jump, start - 3 * jump
            for kind, words, channels in (
                ("dwconv", f"d7x7 conv, {width}, stride 1", width),
                ("pwconv1", f"linear, {4 * width}", 4 * width),
                ("pwconv2", f"linear, {width}", width),
            ):
                add(f"stage{number}.block{place}.{kind}", f"{stage} > {block} > {kind}", kind, words, stage, block,
                    channels)  # fmt: skip
    return layers


def import_pictures(
    settings: Settings, pictures: Sequence[Picture], *, image_set: str, created: datetime = CREATED
) -> None:
    """Put `pictures` into the store and publish them as an image set."""
    store = ImageStore(settings)
    rows: dict[str, list[object]] = {
        name: []
        for name in ("image_set", "image_id", "key", "name", "path", "width", "height", "bytes", "split", "wnid",
                     "label_index", "label", "dhash", "colors")
    }  # fmt: skip
    for number, picture in enumerate(pictures):
        key = hashlib.sha256(picture.data).hexdigest()
        image = Image.open(io.BytesIO(picture.data)).convert("RGB")
        facts = store.add_thumbnail(key, image)
        path = store.add_original(key, picture.data, ".png")
        values = (image_set, number, key, picture.name, path, image.width, image.height, len(picture.data), "val",
                  picture.wnid, None, picture.label, facts.dhash, list(facts.colors))  # fmt: skip
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
    types = pa.schema(
        [("image_set", pa.string()), ("image_id", pa.int32()), ("key", pa.string()), ("name", pa.string()),
         ("path", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("bytes", pa.int64()),
         ("split", pa.string()), ("wnid", pa.string()), ("label_index", pa.int32()), ("label", pa.string()),
         ("dhash", pa.uint64()), ("colors", pa.list_(pa.uint8()))]
    )  # fmt: skip
    table = pa.table(rows, schema=types)
    labelled = sum(picture.label is not None for picture in pictures)
    with Atlas(settings).publish() as connection:
        connection.execute(
            "INSERT INTO image_sets VALUES (?, ?, ?, ?, ?)",
            [image_set, f"/pictures/{image_set}", len(pictures), labelled, created],
        )
        connection.register("given", table)
        connection.execute("INSERT INTO images SELECT * FROM given")


def add_run(
    settings: Settings,
    *,
    image_set: str,
    model: str = "synthetic",
    divide: int = 16,
    k: int = 20,
    seed: int = 0,
    over: Sequence[str] | None = None,
) -> int:
    """Publish a run of a simulated model over `image_set` and return its number; it replaces a run of the same pair.

    `over` names the indexed layers; None means all.
    """
    random = np.random.default_rng(seed)
    layers = convnext_layers(divide)
    indexed = [layer for layer in layers if over is None or layer["layer"] in over]
    with Atlas(settings).publish() as connection:
        images = connection.execute(
            "SELECT image_id, wnid, label FROM images WHERE image_set = ? ORDER BY image_id", [image_set]
        ).fetchall()
        count = len(images)
        depth = min(k, count)
        sequence = connection.execute("SELECT nextval('run_numbers')").fetchone()
        assert sequence is not None
        run = int(sequence[0])
        old = connection.execute(
            "SELECT run FROM runs WHERE model = ? AND image_set = ?", [model, image_set]
        ).fetchall()
        for table in (*RUN_TABLES, "runs"):
            connection.execute(f"DELETE FROM {table} WHERE run = ANY(?)", [[number for (number,) in old]])
        for table in ("models", "layers", "layer_edges", "modules"):
            connection.execute(f"DELETE FROM {table} WHERE model = ?", [model])
        kinds = sorted({(wnid, label) for _, wnid, label in images if wnid is not None})
        connection.execute("DELETE FROM classes WHERE vocabulary = 'synthetic'")
        classes = kinds + [(f"n{20000000 + extra:08d}", f"other {extra}") for extra in range(6)]
        connection.executemany(
            "INSERT INTO classes VALUES ('synthetic', ?, ?, ?, ?)",
            [(index, wnid, label, label) for index, (wnid, label) in enumerate(classes)],
        )
        connection.execute(
            "INSERT INTO models VALUES (?, 'synthetic:convnext', 'ConvNext', 28589128, ?, ?, ?, ?, NULL, ?, 'bicubic', "
            "'half_even', 'exact', [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 'synthetic', ?)",
            [model, f"{seed:064x}", f"{seed:064x}", INPUT, INPUT, RESIZE, len(classes)],
        )
        connection.register(
            "given_layers", pa.Table.from_pylist([{"model": model} | layer for layer in layers])
        )
        connection.execute("INSERT INTO layers BY NAME SELECT * FROM given_layers")
        names = [str(layer["layer"]) for layer in layers]
        connection.executemany(
            "INSERT INTO layer_edges VALUES (?, ?, ?)",
            [(model, source, target) for source, target in itertools.pairwise(names)],
        )
        paths = [str(layer["module"]) for layer in layers]
        around = {path.rsplit(".", depth)[0] for path in paths for depth in range(path.count(".") + 1)}
        connection.executemany(
            "INSERT INTO modules VALUES (?, ?, ?, ?, ?)",
            [
                *((model, at, path, "Module", None) for at, path in enumerate(sorted(around))),
                (model, len(around), "classifier", "Linear", LEFT_OUT),
            ],
        )
        moment = datetime(2026, 1, 2, 4, 0, seed % 60)
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, 'float32', 'cpu', ?, ?, 0, 12.5, ?, ?, '0.1.0')",
            [run, model, image_set, k, len(indexed), count, moment, moment],
        )
        connection.register("given_activations", _activations(run, indexed, count, depth, random))
        connection.execute("INSERT INTO activations SELECT * FROM given_activations")
        add_by_image(connection, run)
        connection.execute(
            "INSERT INTO channel_stats SELECT run, layer, channel, avg(activation) / 2, stddev_pop(activation), "
            "min(activation) / 4, max(activation), max(activation) = min(activation), 0 "
            "FROM activations WHERE run = ? GROUP BY run, layer, channel",
            [run],
        )
        connection.execute(
            """INSERT INTO channel_histograms
            SELECT run, layer, channel, edge, edge + width, (1 + (channel * 7 + edge * 5) % 40)::INTEGER
            FROM channel_stats,
                 (VALUES (0.0, 0.5), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (6.0, 2.0)) AS bins(edge, width)
            WHERE run = ?""",
            [run],
        )
        indices = {wnid: index for index, (wnid, _) in enumerate(classes)}
        connection.register(
            "given_predictions",
            _predictions(run, [indices.get(row[1]) for row in images], len(classes), random),
        )
        connection.execute("INSERT INTO predictions SELECT * FROM given_predictions")
    return run


def add_by_image(connection: duckdb.DuckDBPyConnection, run: int) -> None:
    """Insert the activations of a run a second time, ordered by image."""
    connection.execute(
        "INSERT INTO activations_by_image SELECT run, image_id, layer, channel, rank, activation, y, x "
        "FROM activations WHERE run = ? ORDER BY image_id, layer, channel",
        [run],
    )


def _activations(
    run: int, layers: Sequence[dict[str, object]], images: int, depth: int, random: np.random.Generator
) -> pa.Table:
    """Return descending values and different images per channel; the last channel of each layer is dead."""
    tables = []
    for layer in layers:
        channels, side = int(str(layer["channels"])), int(str(layer["height"]))
        values = -np.sort(-random.gamma(2.0, 2.0, (channels, depth)).astype(np.float32), axis=1)
        chosen = random.random((channels, images)).argsort(axis=1)[:, :depth]
        values[-1] = 0.25
        chosen[-1] = np.arange(depth)
        places = random.integers(0, side, (2, channels, depth))
        tables.append(
            pa.table(
                {
                    "run": np.full(channels * depth, run, np.int32),
                    "layer": [str(layer["layer"])] * (channels * depth),
                    "channel": np.repeat(np.arange(channels, dtype=np.int32), depth),
                    "rank": np.tile(np.arange(1, depth + 1, dtype=np.int32), channels),
                    "image_id": chosen.astype(np.int32).ravel(),
                    "activation": values.ravel(),
                    "y": places[0].astype(np.int32).ravel(),
                    "x": places[1].astype(np.int32).ravel(),
                }
            )
        )
    return pa.concat_tables(tables)


def _predictions(
    run: int, labels: Sequence[int | None], classes: int, random: np.random.Generator
) -> pa.Table:
    """Return the top five and the label: correct for two images of three, else ranked last."""
    rows = []
    for image, label in enumerate(labels):
        order = [int(index) for index in random.permutation(classes)]
        if label is not None:
            order.remove(label)
            order.insert(0 if image % 3 else classes - 1, label)
        logits = np.sort(random.normal(0, 2, classes))[::-1]
        shares = np.exp(logits) / np.exp(logits).sum()
        for place, index in enumerate(order):
            if place < 5 or index == label:
                rows.append((run, image, place + 1, index, shares[place], logits[place], index == label))
    columns = list(zip(*rows, strict=True))
    types = (pa.int32(), pa.int32(), pa.int32(), pa.int32(), pa.float32(), pa.float32(), pa.bool_())
    names = ("run", "image_id", "rank", "class_index", "probability", "logit", "is_label")
    return pa.table(
        {name: pa.array(column, kind) for name, column, kind in zip(names, columns, types, strict=True)}
    )
