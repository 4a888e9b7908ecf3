"""The index against brute force over every activation, and its guarantees when it is interrupted."""

import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from db.atlas.runs import RUN_TABLES
from db.atlas.store import Atlas, Query
from db.ledger.engine import Ledger
from db.queries import overview as overview_queries
from db.queries.set_changes import remove_image_set
from db.settings import Settings
from db.stores.images import ImageStore
from precompute.images.importing import import_images
from precompute.index.checkpoint import BuildBusy
from precompute.index.run import (
    AlreadyIndexed,
    AnotherModel,
    CannotIndex,
    ImagesChanged,
    IndexReport,
    run_index,
)
from workers.layers.taps import Tap, as_nchw, find_taps, record_taps
from workers.models.networks import LoadedNetwork
from workers.models.preprocessing import HALF, Preprocessing
from workers.models.vision import VisionModel, load_model
from workers.models.vocabularies import imagenet

ROOT = Path(__file__).parents[2]
# What a different batch size may change: values by TOLERANCE times the largest, and a share SWAPPED of the
# entries, where two values are closer to each other than that.
TOLERANCE = 1e-5
SWAPPED = 1e-3


class SmallNetwork(nn.Sequential):
    """Two convolutions and a classifier with random weights."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__(
                nn.Conv2d(3, 8, 3, stride=4),
                nn.ReLU(inplace=True),
                nn.Conv2d(8, 12, 3, stride=2),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(12, 1000),
            )


def small_model(*, seed: int = 0) -> VisionModel:
    """A model named `small` with ImageNet's classes and the layers `stage1.conv` and `stage2.downsampling`."""
    loaded = LoadedNetwork(
        network=SmallNetwork(seed),
        source=f"seed {seed}",
        architecture="SmallNetwork",
        preprocessing=Preprocessing((64, 64), 72, "bilinear", HALF, HALF),
        vocabulary=imagenet(),
    )
    return VisionModel(loaded, name="small").eval().requires_grad_(False)


@pytest.fixture
def model() -> VisionModel:
    return small_model()


@pytest.fixture
def atlas(settings: Settings) -> Iterator[Atlas]:
    atlas = Atlas(settings)
    yield atlas
    atlas.close()


@pytest.fixture
def store(settings: Settings) -> ImageStore:
    return ImageStore(settings)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve images of noise and ramps in two ImageNet classes and one class that no model has."""
    random = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "pictures" / ("n01440764", "n02123045", "n99999999")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (5 + number, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((240, 250)).save(folder / f"{number:02d}.png")
    return tmp_path / "pictures"


def table(atlas: Atlas, name: str) -> pa.Table:
    return atlas.fetch_arrow(Query(f"SELECT * EXCLUDE (run) FROM {name}"))


def brute_force(
    model: VisionModel, taps: Sequence[Tap], pixels: Sequence[npt.NDArray[np.uint8]], *, batch: int, k: int
) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return (values, image ids, positions), each channels,k, of each layer: keep everything, then sort with NumPy."""
    kept: dict[str, list[npt.NDArray[np.float32]]] = {tap.layer: [] for tap in taps}
    places: dict[str, list[npt.NDArray[np.int64]]] = {tap.layer: [] for tap in taps}

    def keep(tap: Tap, output: Tensor) -> None:
        flat = np.ascontiguousarray(as_nchw(tap, output).numpy()).reshape(len(output), tap.channels, -1)
        kept[tap.layer].append(flat.max(2))
        places[tap.layer].append(flat.argmax(2))

    with torch.inference_mode(), record_taps(model, taps, keep):
        for start in range(0, len(pixels), batch):
            stacked = torch.from_numpy(np.stack(pixels[start : start + batch]))
            model((stacked.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last))
    found = {}
    for tap in taps:
        values = np.concatenate(kept[tap.layer]).T
        positions = np.concatenate(places[tap.layer]).T
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        found[tap.layer] = (
            np.take_along_axis(values, order, 1),
            order,
            np.take_along_axis(positions, order, 1),
        )
    return found


def test_the_index_of_real_photos_equals_sorting_every_activation(
    atlas: Atlas, store: ImageStore, shared_data: Path, tmp_path: Path
) -> None:
    model = load_model("efficientnet-lite0")
    with tarfile.open(shared_data / "imagenet-sample-1000.tar") as archive:
        members = [member for member in archive.getmembers() if member.isfile()][:100]
        archive.extractall(tmp_path, members, filter="data")
    import_images(atlas, store, image_set="photos", source=tmp_path / "imagenet-sample-1000")
    report = run_index(atlas, store, model=model, image_set="photos", batch_size=20)
    assert (report.images, report.layers, report.unreadable) == (100, 49, ())

    rows = atlas.fetch(Query("SELECT path FROM images ORDER BY image_id"))
    pixels = [
        model.preprocessing(Image.open(store.original_path(row["path"])).convert("RGB")) for row in rows
    ]
    taps = find_taps(model)
    expected = brute_force(model, taps, pixels, batch=20, k=20)
    found = table(atlas, "activations")
    layers = np.array(found["layer"].to_pylist())
    for tap in taps:
        mine = found.filter(pa.array(layers == tap.layer))
        values, images, positions = expected[tap.layer]
        shape = (tap.channels, 20)
        assert (mine["channel"].to_numpy().reshape(shape) == np.arange(tap.channels)[:, None]).all()
        assert (mine["rank"].to_numpy().reshape(shape) == np.arange(1, 21)).all()
        assert (mine["activation"].to_numpy().reshape(shape) == values).all()
        assert (mine["image_id"].to_numpy().reshape(shape) == images).all()
        y, x = mine["y"].to_numpy().reshape(shape), mine["x"].to_numpy().reshape(shape)
        assert (y * tap.width + x == positions).all()
    top = atlas.fetch(Query("SELECT avg((rank = 1)::INT) AS top1 FROM predictions WHERE is_label"))
    assert top[0]["top1"] > 0.8

    # another batch size may reorder the network's own sums, and may change no more than that
    run_index(atlas, store, model=model, image_set="photos", batch_size=7, replace=True)
    other = table(atlas, "activations")
    values, others = (given["activation"].to_numpy() for given in (found, other))
    assert np.abs(values - others).max() <= TOLERANCE * np.abs(values).max()
    differ = np.zeros(len(values), bool)
    for name in ("image_id", "y", "x"):
        differ |= found[name].to_numpy() != other[name].to_numpy()
    assert differ.mean() <= SWAPPED


def test_published_tables_agree_with_each_other(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    phases: list[str] = []

    def note(done: int, total: int | None, phase: str) -> None:
        assert total is None or 0 <= done <= total
        if phase not in phases:
            phases.append(phase)

    report = run_index(
        atlas, store, model=model, image_set="noise", k=20, layers="stage?.d*, nothing", progress=note
    )
    assert phases == ["loading", "indexing", "receptive fields", "publishing"]
    assert isinstance(report, IndexReport)
    assert (report.layers, report.channels) == (1, 12)
    assert report.images_per_second > 0

    layers = atlas.fetch(Query("SELECT layer, channels FROM layers ORDER BY position"))
    assert len(layers) == 2, "all layers are drawn, whichever were indexed"
    counts = atlas.fetch(
        Query("SELECT layer, count(*) AS rows, max(rank) AS last FROM activations GROUP BY layer")
    )
    assert counts == [{"layer": "stage2.downsampling", "rows": 12 * 12, "last": 12}]
    # with k above the number of images every image is ranked, so the statistics must match the rows
    wrong = atlas.fetch(
        Query("""
        SELECT s.layer, s.channel FROM channel_stats s
        JOIN (SELECT layer, channel, avg(activation::DOUBLE) AS mean, stddev_pop(activation::DOUBLE) AS std,
                     min(activation) AS low, max(activation) AS high, count(DISTINCT activation) = 1 AS dead
              FROM activations GROUP BY ALL) a USING (layer, channel)
        WHERE abs(s.mean - a.mean) > 1e-6 + 1e-6 * abs(a.mean) OR abs(s.std - a.std) > 1e-5
           OR s.min <> a.low OR s.max <> a.high OR s.dead <> a.dead""")
    )
    assert wrong == []
    assert atlas.fetch(Query("SELECT count(*) AS n FROM channel_stats"))[0]["n"] == report.channels
    histograms = atlas.fetch(
        Query("SELECT DISTINCT sum(images) AS images FROM channel_histograms GROUP BY layer, channel")
    )
    assert histograms == [{"images": 12}]
    by_image = atlas.fetch(Query("SELECT * EXCLUDE (run) FROM activations_by_image"))
    keys = [(row["image_id"], row["layer"], row["channel"]) for row in by_image]
    assert keys == sorted(keys)
    assert table(atlas, "activations").num_rows == len(by_image)


def test_an_image_of_a_class_the_model_does_not_know_is_unlabelled_for_it(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    run_index(atlas, store, model=model, image_set="noise")
    rows = atlas.fetch(
        Query("""
        SELECT i.wnid, count(*) FILTER (p.is_label) AS labels, count(*) FILTER (p.rank <= 5) AS top,
               bool_and(c.wnid IS NOT DISTINCT FROM i.wnid) FILTER (p.is_label) AS agree
        FROM images i JOIN predictions p USING (image_id)
        JOIN models m ON true
        JOIN classes c ON c.vocabulary = m.vocabulary AND c.class_index = p.class_index
        GROUP BY i.wnid ORDER BY i.wnid""")
    )
    assert rows == [
        {"wnid": "n01440764", "labels": 4, "top": 20, "agree": True},
        {"wnid": "n02123045", "labels": 4, "top": 20, "agree": True},
        {"wnid": "n99999999", "labels": 0, "top": 20, "agree": None},
    ]


def test_images_that_went_away_are_named_and_stop_nothing(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    (pictures / "n01440764" / "00.png").unlink()
    Image.new("RGB", (9, 9)).save(pictures / "n02123045" / "04.png")
    report = run_index(atlas, store, model=model, image_set="noise", batch_size=4)
    assert [str(entry) for entry in report.unreadable] == [
        "n01440764/00.png: the file is missing",
        "n02123045/04.png: the file has changed since it was imported",
    ]
    assert report.images == 10
    gone = [entry.image_id for entry in report.unreadable]
    for name in ("activations", "predictions"):
        ids = table(atlas, name)["image_id"].to_numpy()
        assert set(ids) == set(range(12)) - set(gone)
    runs = atlas.fetch(Query("SELECT images, unreadable FROM runs"))
    assert runs == [{"images": 10, "unreadable": 2}]


def test_a_set_of_which_nothing_is_left_is_not_published(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    for path in pictures.glob("*/*.png"):
        path.unlink()
    with pytest.raises(CannotIndex, match="no image of 'noise' can still be read"):
        run_index(atlas, store, model=model, image_set="noise")
    assert atlas.fetch(Query("SELECT * FROM runs")) == []


def test_a_run_is_replaced_only_on_demand_and_gets_a_new_number(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    first = run_index(atlas, store, model=model, image_set="noise")
    with pytest.raises(
        AlreadyIndexed, match=r"'noise' is already indexed with 'small' \(run 1: 12 images, 2 layers"
    ):
        run_index(atlas, store, model=model, image_set="noise")
    second = run_index(atlas, store, model=model, image_set="noise", k=2, replace=True)
    assert (first.run, second.run) == (1, 2)
    for name in ("runs", *RUN_TABLES):
        assert atlas.fetch(Query(f"SELECT DISTINCT run FROM {name}")) == [{"run": 2}], name


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"image_set": "nois"}, "expected an image set among noise, got 'nois'; did you mean 'noise'?"),
        (
            {"layers": "stage9.*"},
            r"matches some of 2 layers such as stage1.conv, stage2.downsampling, got 'stage9\.\*'",
        ),
        ({"dtype": "float64"}, "expected one of float32, bfloat16, got 'float64'"),
        ({"device": "abacus"}, "got 'abacus'"),
        ({"device": "meta"}, "got 'meta'"),
    ],
)
def test_an_invalid_index_request_gives_one_sentence(
    wrong: dict[str, Any], sentence: str, atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    with pytest.raises(CannotIndex, match=sentence):
        run_index(atlas, store, **({"model": model, "image_set": "noise"} | wrong))


def test_every_module_is_listed_and_why_a_layer_is_left_out(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    run_index(atlas, store, model=model, image_set="noise")
    pooled = "acts on features without spatial positions, such as pooled ones"
    assert [
        (row["module"], row["kind"], row["left_out"])
        for row in atlas.fetch(Query("SELECT * FROM modules ORDER BY position"))
    ] == [
        ("0", "Conv2d", None), ("1", "ReLU", None), ("2", "Conv2d", None), ("3", "AdaptiveAvgPool2d", None),
        ("4", "Flatten", None), ("5", "Linear", pooled),
    ]  # fmt: skip


def test_in_place_activations_do_not_change_recorded_values(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    run_index(atlas, store, model=model, image_set="noise")
    lowest = atlas.fetch(Query("SELECT min(min) AS low FROM channel_stats"))
    assert lowest[0]["low"] < 0, "before the ReLU"


def test_a_model_of_the_same_name_and_other_weights_takes_no_ones_place(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    for name in ("one", "two"):
        import_images(atlas, store, image_set=name, source=pictures)
    run_index(atlas, store, model=model, image_set="one")
    other = small_model(seed=1)
    with pytest.raises(
        AnotherModel, match=r"named 'small' with other weights.* \(from seed 0\) .* over 'one'"
    ):
        run_index(atlas, store, model=other, image_set="two")
    run_index(atlas, store, model=other, image_set="one", replace=True)
    assert atlas.fetch(Query("SELECT source FROM models")) == [{"source": "seed 1"}]
    run_index(atlas, store, model=other, image_set="two")
    assert len(atlas.fetch(Query("SELECT * FROM runs"))) == 2


def test_other_preprocessing_is_another_model_with_new_effective_fields(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    for name in ("one", "two"):
        import_images(atlas, store, image_set=name, source=pictures)
    run_index(atlas, store, model=model, image_set="one")
    smaller = small_model(seed=0)
    smaller.preprocessing = replace(smaller.preprocessing, input_size=(24, 24), resize=24)
    with pytest.raises(
        AnotherModel,
        match=r"other weights, preprocessing or classes .* use --name to give this one another name",
    ):
        run_index(atlas, store, model=smaller, image_set="two")
    run_index(atlas, store, model=smaller, image_set="one", replace=True)
    largest = atlas.fetch(Query("SELECT max(erf_size) AS erf, max(height) AS height FROM layers"))[0]
    assert largest["erf"] <= 24
    assert largest["height"] <= 24


@pytest.mark.parametrize("change", ["removed", "removed and imported again", "relabelled"])
def test_images_that_changed_while_they_were_indexed_publish_nothing(
    change: str,
    atlas: Atlas,
    store: ImageStore,
    ledger: Ledger,
    model: VisionModel,
    pictures: Path,
    tmp_path: Path,
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)

    def meddle(done: int, _total: int | None, phase: str) -> None:
        if phase != "indexing" or done != 12:
            return
        if change == "relabelled":
            with atlas.publish() as connection:
                connection.execute("UPDATE images SET label = 'other' WHERE image_id = 3")
            return
        remove_image_set(atlas, store, ledger, "noise")
        if change == "removed and imported again":
            backwards = tmp_path / "backwards"
            backwards.mkdir()
            for number, path in enumerate(sorted(pictures.rglob("*.png"))):
                (backwards / f"{99 - number}.png").write_bytes(path.read_bytes())
            import_images(atlas, store, image_set="noise", source=backwards)

    what = "was removed" if change == "removed" else "changed its images or labels"
    with pytest.raises(ImagesChanged, match=f"'noise' {what} during indexing: nothing was published"):
        run_index(atlas, store, model=model, image_set="noise", progress=meddle)
    assert atlas.fetch(Query("SELECT * FROM runs")) == []


def test_images_added_during_indexing_are_ignored(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path, tmp_path: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    (tmp_path / "more").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "more" / "more.png")

    def add(done: int, _total: int | None, phase: str) -> None:
        if phase == "indexing" and done == 12:
            import_images(atlas, store, image_set="noise", source=tmp_path / "more")

    assert run_index(atlas, store, model=model, image_set="noise", progress=add).images == 12


def test_an_image_too_thin_to_resize_is_skipped_by_name(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "thin").mkdir()
    Image.new("RGB", (60000, 1)).save(tmp_path / "thin" / "line.png")
    for source in (pictures, tmp_path / "thin"):
        import_images(atlas, store, image_set="noise", source=source)
    report = run_index(atlas, store, model=model, image_set="noise")
    assert [entry.name for entry in report.unreadable] == ["line.png"]
    assert "60,000 x 1 pixels, resized to 4,320,000 x 72" in report.unreadable[0].reason


def test_images_that_went_and_came_back_are_read_by_the_next_try(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    away = pictures.rename(pictures.with_name("away"))
    with pytest.raises(CannotIndex, match="no image of 'noise' can still be read"):
        run_index(atlas, store, model=model, image_set="noise")
    away.rename(pictures)
    assert run_index(atlas, store, model=model, image_set="noise", resume=True).images == 12


def test_bfloat16_gives_about_the_same_values(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    best = []
    for dtype in ("float32", "bfloat16"):
        run_index(atlas, store, model=model, image_set="noise", dtype=dtype, k=1, replace=True)  # type: ignore[arg-type]
        best.append(table(atlas, "activations")["activation"].to_numpy())
    assert not np.array_equal(*best)
    assert np.corrcoef(*best)[0, 1] > 0.99


# ------------------------------------------------------------------------------- stopped and resumed

SCRIPT = """
import importlib.util, sys
from db.atlas.store import Atlas
from db.stores.images import ImageStore
from db.settings import read_settings
from precompute.index.run import run_index

spec = importlib.util.spec_from_file_location("tested", sys.argv[1])
tested = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tested)

def tell(done, total, phase):
    print(phase, done, flush=True)
    if (phase, done) == ("indexing", 6):
        sys.stdin.read()

settings = read_settings()
run_index(
    Atlas(settings), ImageStore(settings), model=tested.small_model(), image_set="noise", k=4, batch_size=2,
    seconds_between_checkpoints=0, progress=tell,
)
"""


def indexing(settings: Settings) -> "subprocess.Popen[str]":
    """Start a process that indexes two images at a time and blocks after six until its stdin is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, __file__],
        env={**os.environ, "CONVSCOPE_HOME": str(settings.home), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("killer", "kept"),
    [(signal.SIGKILL, 4), (signal.SIGTERM, 6), (signal.SIGINT, 6)],
    ids=["SIGKILL", "SIGTERM", "SIGINT"],
)
def test_a_process_that_was_stopped_is_resumed_to_the_same_bits(
    killer: signal.Signals,
    kept: int,
    atlas: Atlas,
    store: ImageStore,
    model: VisionModel,
    pictures: Path,
    settings: Settings,
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    run_index(atlas, store, model=model, image_set="noise", k=4, batch_size=2)
    whole = {name: table(atlas, name) for name in RUN_TABLES}
    with atlas.publish() as connection:
        for name in ("runs", *RUN_TABLES):
            connection.execute(f"DELETE FROM {name}")

    with indexing(settings) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "indexing 6\n":
            assert process.poll() is None, process.communicate()
        process.send_signal(killer)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert atlas.fetch(Query("SELECT * FROM runs")) == []

    report = run_index(atlas, store, model=model, image_set="noise", k=4, batch_size=2, resume=True)
    # a signal may take effect one batch later; SIGKILL comes before the reported batch is stored
    assert kept <= report.resumed_at < 12
    for name in RUN_TABLES:
        assert table(atlas, name).equals(whole[name]), name
    assert not (settings.home / "builds").exists()


def stop_after_six(atlas: Atlas, store: ImageStore, model: VisionModel) -> None:
    """Index `noise` in batches of two, with Ctrl-C after six images."""

    def stop(done: int, _total: int | None, phase: str) -> None:
        if phase == "indexing" and done >= 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_index(atlas, store, model=model, image_set="noise", batch_size=2, progress=stop)


def test_ctrl_c_finishes_the_batch_and_leaves_a_checkpoint(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    stop_after_six(atlas, store, model)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    said: list[str] = []
    report = run_index(
        atlas, store, model=model, image_set="noise", batch_size=2, resume=True, say=said.append
    )
    assert report.resumed_at == 6
    assert without_layers(said) == ["resuming after 6 of 12 images"]


def without_layers(said: list[str]) -> list[str]:
    """Return the messages except those about layers that are left out."""
    return [sentence for sentence in said if not sentence.startswith("leaving out ")]


def test_a_checkpoint_with_other_options_is_not_used_and_reported(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    stop_after_six(atlas, store, model)
    said: list[str] = []
    report = run_index(
        atlas, store, model=model, image_set="noise", batch_size=3, k=5, resume=True, say=said.append
    )
    assert report.resumed_at == 0
    assert without_layers(said) == [
        "starting with the first image: the run that left the checkpoint had another "
        "batch size (2, now 3), k (20, now 5)"
    ]
    assert not (atlas.home / "builds").exists(), "outdated by the run"


def test_without_resume_a_checkpoint_is_not_used(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)
    stop_after_six(atlas, store, model)
    assert run_index(atlas, store, model=model, image_set="noise", batch_size=2).resumed_at == 0


def test_two_processes_do_not_make_the_same_index(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="noise", source=pictures)

    def again(_done: int, _total: int | None, phase: str) -> None:
        if phase == "indexing":
            run_index(atlas, store, model=model, image_set="noise")

    with pytest.raises(BuildBusy, match="another process is indexing 'noise' with 'small' right now"):
        run_index(atlas, store, model=model, image_set="noise", progress=again)


def test_logits_that_are_not_finite_are_counted(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="pictures", source=pictures)
    model.network[-1].bias.data[3] = float("nan")  # type: ignore[index,union-attr]
    report = run_index(atlas, store, model=model, image_set="pictures", k=2)
    assert (report.unpredicted, report.nonfinite_channels) == (report.images, 0)
    assert table(atlas, "predictions").num_rows == 0
    (row,) = atlas.fetch(overview_queries.unpredicted("pictures"))
    assert (row["model"], row["unpredicted"], row["images"]) == ("small", 12, 12)
    model.network[-1].bias.data[3] = 0.0  # type: ignore[index,union-attr]
    model.network[2].bias.data[5] = float("inf")  # type: ignore[index,union-attr]
    report = run_index(atlas, store, model=model, image_set="pictures", k=2, replace=True)
    assert report.nonfinite_channels == 1


def test_a_sound_model_has_a_prediction_of_every_image(
    atlas: Atlas, store: ImageStore, model: VisionModel, pictures: Path
) -> None:
    import_images(atlas, store, image_set="pictures", source=pictures)
    report = run_index(atlas, store, model=model, image_set="pictures", k=2)
    assert (report.unpredicted, report.nonfinite_channels) == (0, 0)
    assert atlas.fetch(overview_queries.unpredicted("pictures")) == []
