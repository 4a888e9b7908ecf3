"""Time the worked SQL examples on 2.5 million activations, with one client, with 8, and against JSON files.

50,000 images and three models with the 58 layers and 41,184 channels of ConvNeXt-tiny, k = 20; generated,
because indexing takes hours. 10,000 attacks, each shifting ten channels. Every query goes over HTTP to a
separate server. The report kept one JSON file per model and loaded and searched it for each query: the same
queries run that way too, in the same run. Prints p50 and p99.
"""

import concurrent.futures
import json
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "dashboard"), str(Path(__file__).parents[1] / "e2e")]

import pyarrow as pa  # noqa: E402
from browser import served  # noqa: E402  # next to the tests, not installed
from ledger_rows import add_attack  # noqa: E402
from sqlalchemy import insert  # noqa: E402
from synthetic_atlas import INPUT, RESIZE, add_by_image, convnext_layers  # noqa: E402

from db.atlas.store import Atlas, Query  # noqa: E402
from db.ledger import jobs  # noqa: E402
from db.ledger.engine import Ledger  # noqa: E402
from db.ledger.jobs import NewItem, NewJob  # noqa: E402
from db.ledger.tables import AttackUnit  # noqa: E402
from db.settings import Settings, read_settings  # noqa: E402
from db.sql.examples import EXAMPLES, Example  # noqa: E402

IMAGES, CLASSES, K = 50_000, 1000, 20
MODELS = ("convnext-tiny", "resnet-50", "mobilenet-v2")
ATTACKS, MOVED = 10_000, 10
ALONE, PEOPLE, EACH = 12, 8, 6
LAYER = "stage3.block5.dwconv"


def main() -> None:
    """Build the stores, serve them, run the queries and print."""
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings({"CONVSCOPE_HOME": folder})
        make_atlas(settings)
        make_ledger(settings)
        counted = Atlas(settings).fetch(Query("SELECT count(*) AS n FROM activations"))[0]["n"]
        print(f"{counted:,} activations, {IMAGES:,} images x {len(MODELS)} models; {ATTACKS:,} attacks")
        files = [report_file(settings, model) for model in MODELS]
        print(f"the report's files: {', '.join(f'{file.stat().st_size / 1e6:.0f} MB' for file in files)}")
        with served(settings, CONVSCOPE_SQL_PER_MINUTE="1000000") as url:
            examples(url)
            against_json(url, files[0])


def examples(url: str) -> None:
    """Print p50 and p99 of each example."""
    print(f"\n{'milliseconds':58s} alone: p50    p99   {PEOPLE} at once: p50    p99")
    everything: tuple[list[float], list[float]] = ([], [])
    for example in EXAMPLES:
        address = asked(url, example)
        fetch(address)
        alone = [timed(address) for _ in range(ALONE)]
        with concurrent.futures.ThreadPoolExecutor(PEOPLE) as pool:
            together = list(pool.map(timed, [address] * (PEOPLE * EACH)))
        everything[0].extend(alone)
        everything[1].extend(together)
        print(f"  {example.title:58s}{line(alone)}            {line(together)}")
    print(f"  {'all of them':58s}{line(everything[0])}            {line(everything[1])}")


def line(seconds: list[float]) -> str:
    """Format p50 and p99 in milliseconds."""
    ranked = sorted(seconds)
    return f"{1000 * statistics.median(ranked):8.0f}{1000 * ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]:8.0f}"


def asked(url: str, example: Example, **values: str) -> str:
    """Return the URL of an example for the first model, with a layer and classes that exist."""
    given = {"model": MODELS[0], "images": "imagenet-val", "layer": LAYER} | dict(example.values)
    given |= {"first": "class 1", "second": "class 2"} | values
    named = {f"p.{name}": value for name, value in given.items() if f"${name}" in example.sql}
    return f"{url}/api/sql?" + urllib.parse.urlencode({"q": example.sql, **named})


def fetch(address: str) -> Any:
    """Return the response."""
    with urllib.request.urlopen(address, timeout=300) as answer:
        return json.load(answer)


def timed(address: str) -> float:
    """Return the seconds until the response is read."""
    begun = time.perf_counter()
    fetch(address)
    return time.perf_counter() - begun


def make_atlas(settings: Settings) -> None:
    """Generate three runs with DuckDB."""
    layers = convnext_layers(1)
    moment = datetime(2026, 1, 2, 3, 4, 5)
    with Atlas(settings).publish() as connection:
        connection.execute(
            "INSERT INTO image_sets VALUES ('imagenet-val', '/pictures', ?, ?, ?)", [IMAGES, IMAGES, moment]
        )
        connection.execute(
            """INSERT INTO images SELECT 'imagenet-val', i, sha256(i::VARCHAR), i || '.jpg', i || '.jpg', 500, 375,
                   100000, 'val', printf('n%08d', i % $classes), i % $classes, 'class ' || (i % $classes),
                   hash(i), [(hash(i * 192 + c) % 256)::UTINYINT FOR c IN range(192)]
               FROM range($images) t(i)""",
            {"images": IMAGES, "classes": CLASSES},
        )
        connection.execute(
            """INSERT INTO classes SELECT 'imagenet', c, printf('n%08d', c), 'class ' || c, 'class ' || c
               FROM range(?) t(c)""",
            [CLASSES],
        )
        for run, model in enumerate(MODELS, 1):
            connection.execute(
                "INSERT INTO models VALUES (?, 'generated', 'ConvNext', 28589128, ?, ?, ?, ?, NULL, ?, 'bicubic', "
                "'half_even', 'exact', [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 'imagenet', ?)",
                [model, f"{run:064x}", f"{run:064x}", INPUT, INPUT, RESIZE, CLASSES],
            )
            connection.register("given", pa.Table.from_pylist([{"model": model} | layer for layer in layers]))
            connection.execute("INSERT INTO layers BY NAME SELECT * FROM given")
            connection.execute(
                "INSERT INTO runs VALUES (nextval('run_numbers'), ?, 'imagenet-val', ?, 'float32', 'cpu', ?, ?, 0, 1, "
                "?, ?, '0.1.0')",
                [model, K, len(layers), IMAGES, moment, moment],
            )
            # each channel steps through the set by a number coprime to its size, so no image repeats
            connection.execute(
                """INSERT INTO activations
                   SELECT $run, layer, c, r, (hash(layer, c, $run) % $images + r * 7919) % $images,
                          (30 * exp(-r / 8.0) + hash(layer, c, r, $run) % 1000 / 1000.0 / r)::FLOAT,
                          hash(c, r) % height, hash(r, c) % width
                   FROM layers, range(channels) a(c), range(1, $k + 1) b(r) WHERE model = $model
                   ORDER BY layer, c, r""",
                {"run": run, "model": model, "images": IMAGES, "k": K},
            )
            add_by_image(connection, run)
            connection.execute(
                "INSERT INTO channel_stats SELECT run, layer, channel, avg(activation) / 2, stddev_pop(activation), "
                "0, max(activation), hash(layer, channel) % 50 = 0, 0 FROM activations WHERE run = ? GROUP BY ALL",
                [run],
            )
            connection.execute(
                """INSERT INTO predictions
                   SELECT $run, i, r, (i + (r - 1) * 37 + CASE WHEN hash(i, $run) % 5 = 0 THEN 1 ELSE 0 END) % $classes,
                          (0.2 + 0.7 * (hash(i) % 1000) / 1000.0) / r, 10.0 / r, r = 1 AND hash(i, $run) % 5 > 0
                   FROM range($images) a(i), range(1, 6) b(r)""",
                {"run": run, "images": IMAGES, "classes": CLASSES},
            )


def make_ledger(settings: Settings) -> None:
    """Add attacks on the first images, and the channels they shifted."""
    ledger = Ledger(settings)
    ledger.migrate()
    item = NewItem(MODELS[0], 0, "0" * 64)
    new = NewJob(
        key="1" * 64,
        kind="attack",
        queue="batch",
        models=MODELS[0],
        image_set="imagenet-val",
        parameters={},
        items=(item,),
    )
    job, _ = jobs.submit_job(ledger, new)
    names = [str(layer["layer"]) for layer in convnext_layers(1)]
    with ledger.write() as connection:
        for image in range(ATTACKS):
            number = add_attack(
                connection, job, model=MODELS[0], image_set="imagenet-val", image_id=image,
                outcome="resisted" if image % 20 == 0 else "flipped", epsilon=0.001 * (1 + image % 97),
                probability_before=0.2 + 0.7 * (image % 83) / 83,
            )  # fmt: skip
            connection.execute(
                insert(AttackUnit),
                [
                    {
                        "attack": number,
                        "layer": names[(image * 7 + rank * 13) % len(names)],
                        "channel": (image * 31 + rank * 17) % 96,
                        "rank": rank,
                        "deviations": 9.0 - rank,
                        "activation_before": 1.0,
                        "activation_after": 2.0,
                        "shift": 1.0,
                        "y_before": 1,
                        "x_before": 1,
                        "y": 1,
                        "x": 1,
                    }
                    for rank in range(1, MOVED + 1)
                ],
            )  # fmt: skip
    ledger.close()


def report_file(settings: Settings, model: str) -> Path:
    """Write a model's activations as the report stored them: layer -> channel -> list of positions, strongest first."""
    rows = Atlas(settings).fetch(
        Query(
            "SELECT layer, channel, activation, image_id, y, x FROM activations JOIN runs USING (run) "
            "WHERE model = $model ORDER BY layer, channel, rank",
            {"model": model},
        )
    )
    kept: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows:
        places = kept.setdefault(row["layer"], {}).setdefault(str(row["channel"]), [])
        places.append([round(row["activation"], 4), row["image_id"], row["y"], row["x"]])
    file = settings.home / f"{model}.json"
    file.write_text(json.dumps(kept))
    return file


def against_json(url: str, file: Path) -> None:
    """Run the same queries both ways, alternating, and compare the answers."""
    by_title = {example.title: example for example in EXAMPLES}
    questions: dict[str, Callable[[Any], Any]] = {
        "Top-activating images of a channel": lambda kept: [
            [place[1], *place[2:]] for place in kept[LAYER]["0"]
        ],
        "Channels that an image activates": lambda kept: {
            (layer, int(channel))
            for layer, channels in kept.items()
            for channel, places in channels.items()
            if any(place[1] == 0 for place in places)
        },
        "Channels shared by two classes": lambda kept: shared(kept, 1, 2),
    }
    ours_of: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
        "Top-activating images of a channel": lambda rows: [
            [row["image_id"], row["y"], row["x"]] for row in rows
        ],
        "Channels that an image activates": lambda rows: {(row["layer"], row["channel"]) for row in rows},
        "Channels shared by two classes": lambda rows: len(rows),
    }
    print(f"\n{'seconds, medians of 5':58s}    ours   load and search JSON        search alone")
    for title, search in questions.items():
        ours, whole, searched = [], [], []
        for _ in range(5):
            ours.append(timed(asked(url, by_title[title])))
            begun = time.perf_counter()
            kept = json.loads(file.read_text())
            loaded = time.perf_counter()
            theirs = search(kept)
            whole.append(time.perf_counter() - begun)
            searched.append(time.perf_counter() - loaded)
        answer = fetch(asked(url, by_title[title]))
        names = [column["name"] for column in answer["columns"]]
        found = ours_of[title]([dict(zip(names, row, strict=True)) for row in answer["rows"]])
        same = found <= theirs if isinstance(found, set) else found == theirs
        mine, load, scan = (statistics.median(values) for values in (ours, whole, searched))
        print(
            f"  {title:56s}{mine:8.3f}   {load:8.3f} = {load / mine:5.1f}x   {scan:8.3f} = {scan / mine:5.1f}x"
            f"   {'same answer' if same else 'ANSWERS DIFFER'}"
        )


def shared(kept: Any, first: int, second: int) -> int:
    """Return how many channels have images of both classes among their strongest, at most 50."""
    found = 0
    for channels in kept.values():
        for places in channels.values():
            seen = Counter(place[1] % CLASSES for place in places)
            found += bool(seen[first] and seen[second])
    return min(found, 50)


if __name__ == "__main__":
    main()
