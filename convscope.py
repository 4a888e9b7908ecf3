"""The command `convscope`: every way in from a terminal.

Exit codes: 0 done, 1 failed, 2 wrong use. An error is one sentence on stderr; `--debug` adds the traceback.
Modules are imported inside the commands, so that `--help` answers at once.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from db.plurals import count as counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.atlas.store import Atlas
    from db.first_run import Step
    from db.ledger.engine import Ledger
    from db.settings import Settings
    from db.sql.runner import SQLRunner
    from db.stores.images import ImageStore
    from precompute.images.importing import ImportReport, Preview
    from precompute.images.layouts import Layout
    from workers.layers.receptive_field.fields import ReceptiveField
    from workers.layers.taps import Tap
    from workers.models.vision import VisionModel
    from workers.queue.supervisor import Supervisor
    from workers.requests.methods import Method
    from workers.requests.submit import ModelRef

PACKAGES = ("__main__", "convscope", "dashboard", "db", "precompute", "workers")
DEFAULT_SET = "samples"
PROBES = "stimuli"


class CommandFailed(Exception):
    """A command could not do what it was asked; the message is one sentence."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # blocks end as they do on Ctrl-C
    try:
        code = convscope.main(args=[word for word in given if word != "--debug"], standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("convscope: stopped", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(f"convscope: {_sentence(error)}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _sentence(error: Exception) -> str:
    """What to tell a person: our own exceptions carry a sentence, the system's are near enough to one."""
    from db.files import file_sentence

    if type(error).__module__.split(".")[0] in PACKAGES:
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return file_sentence(error)
    text = " ".join(str(error).split())
    return f"a fault in Convscope, {type(error).__name__}: {text} (--debug shows the traceback)"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from the environment (CONVSCOPE_HOME and others): see the README's table.",
)
@click.version_option(metadata.version("convscope"), prog_name="convscope")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def convscope() -> None:
    """A microscope for image classifiers.

    See which image patches drive every channel of every layer of a network.

    \b
    Start with:   convscope run
    Your own:     convscope images import NAME FOLDER
                  convscope index --model MODEL --images NAME
    """


# ---------------------------------------------------------------------------------------------- run


@convscope.command()
@click.option("--host", help="Address to listen on (default: CONVSCOPE_HOST).")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one (default: CONVSCOPE_PORT)."
)
@click.option(
    "--url-prefix",
    metavar="PATH",
    help="Path below which a reverse proxy serves it, as /lab/convscope (default: CONVSCOPE_URL_PREFIX).",
)
def run(host: str | None, port: int | None, url_prefix: str | None) -> None:
    """Serve the dashboard, with a broker and a worker; on the first run also make something to look at.

    The broker is started here unless CONVSCOPE_REDIS_URL names one. The web server, the broker and the worker are
    started again when they end, and a broker of our own also when it does not answer. What keeps ending at its start
    is given up with a sentence; without the web server this command ends. The first run fills an empty installation
    as `convscope first-run` does; the page is up meanwhile, tells how far it is and fills itself. Ctrl-C stops
    everything within 10 seconds; what a worker was doing, or the first run, goes on at the next start.
    """
    settings = _settings_of_server(host, port, url_prefix)
    from db.atlas.store import Atlas
    from db.home import check_writable, open_home
    from workers.queue.broker import is_there
    from workers.queue.events import write_events
    from workers.queue.supervisor import Supervisor, wait_until
    from workers.queue.sweeper import Sweeper

    write_events()
    check_writable(settings, "jobs write there: `convscope serve` shows what is there")
    ledger = open_home(settings)
    sweeper = Sweeper(settings, ledger)
    given = [("host", host), ("port", port), ("url-prefix", url_prefix)]
    where = [f"--{name}={value}" for name, value in given if value is not None]
    with Supervisor() as children:
        server = children.start("web server", _words("serve", *where), again=True, stdout=subprocess.PIPE)
        assert server.stdout is not None
        address = server.stdout.readline().strip()  # it says where it is as soon as it answers
        if not address:
            sys.exit(server.wait() or 1)  # and has said why not on stderr
        # the same address from now on, also where any free port was asked for
        actual = urlsplit(address.split()[-1]).port
        where = [word for word in where if not word.startswith("--port")] + [f"--port={actual}"]
        children.restart_as("web server", _words("serve", *where), stdout=subprocess.DEVNULL)
        filling = bool(_announce_first_run(Atlas(settings)))
        click.echo(address)
        keep_broker = _broker_keeper(children, settings)
        keep_broker()
        wait_until(lambda: is_there(settings), seconds=5)
        children.start("worker", _words("worker"), again=True, came_up=_has_registered(ledger))
        sweeper.start()
        try:
            _watch(children, settings, filling, keep_broker)
        finally:
            sweeper.stop()


def _has_registered(ledger: "Ledger") -> Callable[[int], bool]:
    """Whether a process of this host has been a worker: a job that ends one says nothing of how workers start."""
    import platform

    from db.ledger.engine import LedgerError
    from db.queries.jobs import workers

    def registered(pid: int) -> bool:
        with contextlib.suppress(LedgerError):
            return any((row["host"], row["pid"]) == (platform.node(), pid) for row in workers(ledger))
        return False

    return registered


MAX_SILENT_LOOKS = 5  # in a row, a second or more each, until a broker that does not answer is killed


def _broker_keeper(children: "Supervisor", settings: "Settings") -> Callable[[], None]:
    """What to call now and then, so that a broker answers: not started at once where an earlier run's still ends."""
    from workers.queue.broker import NoBroker, is_silent, is_there, server_command
    from workers.queue.events import log

    looked = 0.0
    started = False
    silent = 0

    def keep() -> None:
        nonlocal looked, started, silent
        if settings.redis_url or time.monotonic() - looked < 1:
            return
        if started:
            silent = silent + 1 if children.is_running("broker") and is_silent(settings) else 0
            if silent >= MAX_SILENT_LOOKS:
                silent = 0
                log("broker.silent", looks=MAX_SILENT_LOOKS)
                children.kill("broker")  # and the supervisor starts it again
        elif not is_there(settings):
            started = True
            try:
                children.start("broker", server_command(settings), again=True)
            except NoBroker as error:
                click.echo(f"convscope: jobs wait: {error}", err=True)
        looked = time.monotonic()

    return keep


def _watch(
    children: "Supervisor", settings: "Settings", filling: bool, keep_broker: Callable[[], None]
) -> None:
    """Until the web server is given up; meanwhile a first run, where there is to be one."""
    from db.first_run import stopped

    if filling:
        children.start("first run", _words("first-run"), again=False)
    else:
        click.echo("Ready (Ctrl-C stops)")
    while True:
        keep_broker()
        ended = children.look()
        if ended == "web server":
            raise CommandFailed(children.why(ended))
        if ended == "first run":
            code = children.code("first run")
            if code:
                stopped(settings.home, f"its process ended with exit code {code}")
                click.echo("convscope: the first run goes on with the next `convscope run`", err=True)
            click.echo("Ready (Ctrl-C stops)")
        elif ended:
            click.echo(f"convscope: jobs wait: {children.why(ended)}", err=True)
        if ended:
            children.forget(ended)
        time.sleep(0.2)


def _words(*words: str) -> list[str]:
    """`convscope WORDS` as a command for a process of its own."""
    return [sys.executable, str(Path(__file__).resolve()), *words]


def _announce_first_run(atlas: "Atlas") -> tuple["Step", ...]:
    """What a first run is to make, if anything; the first page that is opened tells of it."""
    from db.first_run import announce, missing_steps

    steps = missing_steps(atlas)
    announce(atlas.home, steps)
    return steps


@convscope.command("first-run")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
def first_run(device: str) -> None:
    """Fill an empty installation: what `convscope run` does the first time.

    Imports the photographs that installed packages carry as image set `samples`, paints the probe pictures
    `stimuli`, and indexes both with the models whose weights are installed: convnext-demo and efficientnet-lite0.
    Goes on where an earlier first run was stopped; once one ended, or where there was content before, it does nothing.
    """
    _restart_for_torch()
    from db.first_run import FirstRunBusy
    from precompute.first_run import fill

    atlas, store = _stores()
    steps = _announce_first_run(atlas)
    if not steps:
        click.echo("Nothing to make: the first run is done, or there was content before")
        return
    try:
        for sentence in fill(atlas, store, steps, device=device):
            click.echo(sentence)
    except FirstRunBusy as error:
        click.echo(f"Nothing to make: {error}")


@convscope.command()
@click.option("--host", help="Address to listen on (default: CONVSCOPE_HOST).")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one (default: CONVSCOPE_PORT)."
)
@click.option(
    "--url-prefix",
    metavar="PATH",
    help="Path below which a reverse proxy serves it, as /lab/convscope (default: CONVSCOPE_URL_PREFIX).",
)
def serve(host: str | None, port: int | None, url_prefix: str | None) -> None:
    """Serve the dashboard and nothing else."""
    settings = _settings_of_server(host, port, url_prefix)
    from dashboard import server  # takes seconds: after what may be refused at once

    server.serve(settings)


def _settings_of_server(host: str | None, port: int | None, prefix: str | None) -> "Settings":
    """The settings, with what the command line names of host, port and prefix; refuses to serve without a login."""
    import dataclasses

    from dashboard.security.access import check_binding
    from db.settings import url_prefix

    settings = _settings()
    settings = dataclasses.replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        url_prefix=settings.url_prefix if prefix is None else url_prefix(prefix, "--url-prefix"),
    )
    check_binding(settings)
    return settings


@convscope.command()
@click.option(
    "--queues",
    default="interactive,batch",
    show_default=True,
    help="Queues to take jobs from: interactive, batch, or both.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
def worker(queues: str, device: str) -> None:
    """Run a worker: compute the jobs that others queue, one at a time.

    On another host, set CONVSCOPE_REDIS_URL and CONVSCOPE_LEDGER_URL to the same broker and database, and
    CONVSCOPE_HOME to the same folder on a file system that both see. Ctrl-C gives the job under way back.
    """
    from db.ledger.tables import QUEUES
    from db.suggestions import hint

    chosen = tuple(dict.fromkeys(queue.strip() for queue in queues.split(",")))
    for queue in chosen:
        if queue not in QUEUES:
            raise click.BadParameter(
                f"expected some of {', '.join(QUEUES)}, got {queue!r}{hint(queue, QUEUES)}",
                param_hint="--queues",
            )
    _restart_for_torch()
    from precompute.jobs import set_kinds
    from workers.jobs.worker import run_worker
    from workers.queue.events import write_events

    write_events()
    code = run_worker(_settings(), queues=chosen, device=device, more=set_kinds)
    if code:
        sys.exit(code)


# ------------------------------------------------------------------------------------------- images


@convscope.group()
def images() -> None:
    """Import, list, show and remove image sets."""


@images.command("import")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--ground-truth",
    type=click.Path(path_type=Path),
    help="Labels of a flat folder: Kaggle's LOC_val_solution.csv, or the ILSVRC devkit.",
)
@click.option("--labels", type=click.Path(path_type=Path), help="A table of labels, a row an image.")
@click.option("--label-column", metavar="C", help="Column of a table or a parquet shard that says the class.")
@click.option("--image-column", metavar="C", help="Column that names the image, or holds it.")
@click.option(
    "--class-level",
    type=int,
    metavar="N",
    help="Which folder of each path is the class: 1 the outermost, -1 the innermost, 0 none.",
)
@click.option(
    "--split-from", metavar="S", help="What says the split: none, the level of a folder, or a column."
)
@click.option(
    "--class-names", metavar="FILE", help="Names of numbered classes, one a line from 0; or imagenet-1k."
)
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and import nothing.")
def import_set(
    name: str,
    path: Path,
    ground_truth: Path | None,
    labels: Path | None,
    label_column: str | None,
    image_column: str | None,
    class_level: int | None,
    split_from: str | None,
    class_names: str | None,
    dry_run: bool,
) -> None:
    """Import the images at PATH as image set NAME.

    PATH is a folder, a zip or tar archive, or a parquet file. Split, class and label are worked out from class
    folders, splits, tables beside the images and the layouts of common datasets (docs/image-layouts.md); what was
    taken is stated in one sentence, what was not used is listed. --dry-run states it beforehand. Files that cannot
    be read are named and left out. Importing again adds what is new, and follows files that were moved.
    """
    from precompute.images.importing import import_images, preview_path
    from precompute.images.layouts.asked import layout_options

    options = layout_options(
        labels=labels,
        label_column=label_column,
        image_column=image_column,
        class_level=class_level,
        split_from=split_from,
        class_names=class_names,
    )
    atlas, store = _stores()
    if dry_run:
        preview = preview_path(store, image_set=name, source=path, ground_truth=ground_truth, options=options)
        _say_preview(name, preview)
        return
    with _progress(f"Importing {name}", "images") as progress:
        report = import_images(
            atlas,
            store,
            image_set=name,
            source=path,
            ground_truth=ground_truth,
            options=options,
            progress=progress,
        )
    _say_import(name, report)


def _say_preview(name: str, preview: "Preview") -> None:
    images = "an unknown number of images" if preview.images is None else counted(preview.images, "image")
    click.echo(f"{name}: would import {images}; nothing was changed")
    for noun, counts in (("split", preview.splits), ("label", preview.labels)):
        if counts:
            shown = ", ".join(f"{value} {number:,}" for value, number in list(counts.items())[:10])
            more = f" and {len(counts) - 10:,} more" if len(counts) > 10 else ""
            click.echo(f"  {counted(len(counts), noun)}: {shown}{more}")
    _say_layout(preview.layout)


def _say_layout(layout: "Layout") -> None:
    click.echo(f"  {layout.sentence()}")
    for note in layout.notes:
        click.echo(f"  note: {note}")
    for unused in layout.unused:
        click.echo(f"  not used: {unused.sentence()}")


@images.command("make")
@click.argument("name", type=click.Choice([DEFAULT_SET, PROBES]))
@click.option(
    "--count",
    type=click.IntRange(400, 50_000),
    help="Pictures of `stimuli`; a larger number adds to a smaller one (default: 1000).",
)
@click.option(
    "--seed", type=click.IntRange(0), help="What the parameters of `stimuli` are drawn by (default: 0)."
)
def make_set(name: str, count: int | None, seed: int | None) -> None:
    """Make a set: `samples` from photographs that installed packages carry, or `stimuli`, painted here.

    `stimuli` are labelled probe pictures: gratings over orientation, frequency, phase, contrast and colour axis,
    plaids, checkerboards, rings, spokes, dots, edges, bars, corners, arcs, noise, textures, letters, shapes and plain
    colours. The view `stimuli` has their parameters as columns (`convscope sql --tables stimuli`).
    """
    if name == PROBES:
        _make_stimuli(*_stores(), count=count, seed=seed or 0)
        return
    if count is not None or seed is not None:
        raise click.UsageError(f"--count and --seed belong to {PROBES}, got {name}")
    _make_samples(*_stores())


def _make_stimuli(atlas: "Atlas", store: "ImageStore", *, count: int | None, seed: int) -> None:
    from precompute.images.stimuli import USUAL, import_stimuli

    with _progress(f"Painting {PROBES}", "images") as progress:
        report = import_stimuli(atlas, store, count=count or USUAL, seed=seed, progress=progress)
    _say_import(PROBES, report)


def _make_samples(atlas: "Atlas", store: "ImageStore") -> None:
    from precompute.images.samples import import_samples

    with _progress(f"Importing {DEFAULT_SET}", "images") as progress:
        report = import_samples(atlas, store, progress=progress)
    _say_import(DEFAULT_SET, report)


def _say_import(name: str, report: "ImportReport") -> None:
    click.echo(
        f"{name}: {counted(report.added, 'image')} added, {report.known:,} already there, "
        f"{len(report.refused):,} refused; {report.labelled:,} labelled ({report.seconds:.1f} s)"
    )
    for count, noun, what in [
        (report.relabelled, "known image", "got the label that is stated now"),
        (report.moved, "known image", "from now on read from another place"),
        (
            report.renamed,
            "known image",
            "moved or renamed: the same bytes, under the path and label of today",
        ),
        (report.gone, "image", "of the set without a file by now, kept in the set"),
        (report.changed, "file", "with another picture than before, entered as new"),
        (report.duplicates, "image", "with the same bytes as another one"),
    ]:
        if count:
            click.echo(f"  {counted(count, noun)} {what}")
    for note in report.notes:
        click.echo(f"  note: {note}")
    _say_layout(report.layout)
    for refusal in report.refused:
        click.echo(f"  refused {refusal.name}: {refusal.reason}", err=True)


@images.command("list")
def list_sets() -> None:
    """List the image sets."""
    from db.queries.inventory import image_sets

    atlas, _ = _stores()
    _print_table(atlas.fetch(image_sets()), "No image set yet: convscope images import NAME PATH")


@images.command("show")
@click.argument("name")
@click.argument("image_id", metavar="ID", type=click.IntRange(0))
def show_image(name: str, image_id: int) -> None:
    """Show what is known of image ID of set NAME."""
    from db.queries.images import image

    atlas, store = _stores()
    rows = atlas.fetch(image(name, image_id))
    if not rows:
        _check_set(atlas, name)
        raise CommandFailed(f"there is no image {image_id} in image set {name!r}; {_known_sets(atlas)}")
    row = rows[0]
    row["file"] = str(store.original_path(row["path"]))
    _print_fields(row)


@images.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_set(name: str, yes: bool) -> None:
    """Remove set NAME with its runs, jobs, maps and attacks. Your own files stay where they are."""
    from db.queries.set_changes import dependents_of, remove_image_set

    atlas, store = _stores()
    ledger = _ledger()
    found = dependents_of(atlas, ledger, name)
    results = [
        counted(count, noun) for count, noun in [(found.maps, "map"), (found.attacks, "attack")] if count
    ]
    what = f"{name} ({counted(found.images, 'image')})" + (
        f", its {' and '.join(results)}" if results else ""
    )
    what += f" and its runs by {', '.join(found.runs)}" if found.runs else ""
    if not yes:
        click.confirm(f"Remove {what}?", abort=True, err=True)
    remove_image_set(atlas, store, ledger, name)
    click.echo(f"removed {what}")


@images.command("rename")
@click.argument("name")
@click.argument("new")
def rename_images(name: str, new: str) -> None:
    """Give set NAME the name NEW, in the atlas and in all results."""
    from db.queries.set_changes import rename_set

    atlas, store = _stores()
    rename_set(atlas, store, _ledger(), name, new)
    click.echo(f"{name} is {new} now")


@images.command("describe")
@click.argument("name")
@click.argument("text")
def describe_images(name: str, text: str) -> None:
    """Keep TEXT as the description of set NAME; the Images page shows it."""
    from db.queries.set_changes import describe_set

    atlas, _ = _stores()
    describe_set(atlas, _ledger(), name, text)


def _known_sets(atlas: "Atlas", given: str = "") -> str:
    from db.queries.inventory import image_sets
    from db.suggestions import meant

    rows = atlas.fetch(image_sets())
    if not rows:
        return "there is no image set yet: convscope images import NAME PATH"
    near = meant(given, [row["image_set"] for row in rows]) if given else None
    names = [f"{row['image_set']} ({counted(row['images'], 'image')})" for row in rows]
    return ("" if near is None else f"did you mean {near!r}? ") + "image sets are " + ", ".join(names)


def _check_set(atlas: "Atlas", image_set: str) -> None:
    """Before a model is loaded, which takes seconds."""
    from db.atlas.store import NoAtlas
    from db.queries.inventory import image_sets

    try:
        known = any(row["image_set"] == image_set for row in atlas.fetch(image_sets()))
    except NoAtlas as error:
        raise CommandFailed(f"there is no image set {image_set!r}: nothing was imported yet") from error
    if not known:
        raise CommandFailed(f"there is no image set {image_set!r}; {_known_sets(atlas, image_set)}")


# ------------------------------------------------------------------------------------------- models


@convscope.group()
def models() -> None:
    """List, show and check models."""


@models.command("list")
def list_models() -> None:
    """List the named models and the forms of specification."""
    from workers.models.names import NAMED_MODELS

    rows = [
        {"model": name, "source": known.spec, "what": known.title} for name, known in NAMED_MODELS.items()
    ]
    _print_table(rows, "")
    click.echo(
        "\nAny other model by its specification: hf:ORG/NAME, torchvision:NAME, timm:NAME, or a folder."
    )


@models.command("show")
@click.argument("spec")
@click.option("--dot", is_flag=True, help="Print the architecture in Graphviz's DOT language instead.")
@click.option("--maps", is_flag=True, help="List the maps that Grad-CAM can read: any module's output.")
def show_model(spec: str, dot: bool, maps: bool) -> None:
    """Show the preprocessing and the layers of model SPEC, and which layers are left out and why."""
    _check_model(spec)
    from workers.layers.drawing import to_dot
    from workers.layers.receptive_field.fields import receptive_fields
    from workers.layers.taps import by_reason, find_left_out, find_taps, tap_edges

    model = _load(spec)
    taps = find_taps(model)
    if dot:
        click.echo(to_dot(model.name, taps, tap_edges(model, taps)), nl=False)
        return
    if maps:
        _print_table(_maps_in_words(model, taps), "No module of this model returns a map.")
        return
    pre = model.preprocessing
    _print_fields(
        {
            "model": model.name,
            "source": model.source,
            "architecture": model.architecture,
            "parameters": f"{model.parameter_count:,}",
            "input": f"{pre.input_size[0]} x {pre.input_size[1]} pixels, {'RGB' if pre.channels == 3 else 'gray'}",
            "resize": f"{_resize_in_words(pre.resize, pre.fit)}, {pre.interpolation}, then the center",
            "mean": ", ".join(f"{value:g}" for value in pre.mean),
            "std": ", ".join(f"{value:g}" for value in pre.std),
            "preprocessing from": model.preprocessing_source,
            "vocabulary": f"{model.vocabulary.name} ({len(model.vocabulary.classes):,} classes)",
            "classes from": model.vocabulary_source,
            **({"note": model.preprocessing_note} if model.preprocessing_note else {}),
            **({"output": model.head_note} if model.head_note else {}),
        }
    )
    for note in model.notes:
        click.echo(f"  {note[0].upper()}{note[1:]}.")
    fields = receptive_fields(model, taps)
    rows = []
    for tap in taps:
        field = fields[tap.layer]
        rows.append(
            {
                "layer": tap.layer,
                "what": tap.description,
                "channels": tap.channels,
                "map": f"{tap.height} x {tap.width}",
                "field": _field_in_words(field),
                "jump": "" if field.jump is None else f"{field.jump[0]:g}",
            }
        )
    click.echo()
    _print_table(rows, "No layer of this model keeps its channels and positions apart.")
    left_out = find_left_out(model)
    if left_out:
        click.echo(f"\nLeft out: {len(left_out)} {'layer' if len(left_out) == 1 else 'layers'}.")
        for reason, modules in by_reason(left_out).items():
            click.echo(f"  {len(modules)} x {reason}:\n    {', '.join(modules)}")


def _maps_in_words(model: "VisionModel", taps: "Sequence[Tap]") -> list[dict[str, Any]]:
    """Each module's map, and how much of the class it holds."""
    from workers.layers.module_maps import default_map, module_maps

    maps = module_maps(model, taps)
    default = default_map(maps)
    layers = {(tap.module, tap.call): tap.layer for tap in taps}
    return [
        {
            "module": found.name,
            "layer": layers.get((found.module, found.call), ""),
            "kind": found.kind,
            "channels": found.channels,
            "map": f"{found.height} x {found.width}",
            "reaches the class": f"{found.reached} of {found.height * found.width} positions",
            "holds": ("all of it" if found.whole else "a part") + (", default" if found == default else ""),
        }
        for found in maps
    ]


def _field_in_words(field: "ReceptiveField") -> str:
    words = "global" if field.size is None else f"{field.size[0]} x {field.size[1]}"
    return words if field.exact else f"at most {words}"


def _resize_in_words(resize: int | tuple[int, int], fit: str) -> str:
    if isinstance(resize, int):
        return f"shortest side to {resize}"
    size = f"{resize[0]} x {resize[1]}"
    return {"exact": f"to {size}", "cover": f"to cover {size}", "contain": f"to fit into {size}"}[fit]


@models.command("doctor")
@click.argument("spec")
@click.option("--images", "image_set", required=True, help="A labelled image set.")
@click.option(
    "--limit", type=click.IntRange(1), default=1000, show_default=True, help="Most images to look at."
)
def doctor(spec: str, image_set: str, limit: int) -> None:
    """Check model SPEC on labelled images: does it see what it was trained to see?

    Reports top-1 and top-5, tries labels shifted by one and the common means and standard deviations, and
    says in a sentence what looks wrong. First it says how many labels are classes of the model, and in which way.
    """
    atlas, store = _stores()
    _check_set(atlas, image_set)
    _check_model(spec)
    _restart_for_torch()
    from db.atlas.image_sets import labelled_images
    from db.stores.images import UnreadableImage
    from workers.jobs.set_labels import match_set
    from workers.jobs.stored_images import StoredImage, read_image
    from workers.models.doctor import diagnose

    rows = atlas.fetch(labelled_images(image_set, limit))
    if not rows:
        raise CommandFailed(f"image set {image_set!r} has no labelled images; {_known_sets(atlas)}")
    model = _load(spec)
    matched = match_set(atlas, model.vocabulary, model=model.name, image_set=image_set)
    classes = {one.match.label.key: one.match.index for one in matched}
    indices = [classes[row["wnid"] or row["label"]] for row in rows]
    known = [(row, index) for row, index in zip(rows, indices, strict=True) if index is not None]
    _say_labels([one.row(model.vocabulary) for one in matched], model.name, image_set)
    if not known:
        raise CommandFailed(
            f"no label of {image_set!r} is a class of {model.name}: its vocabulary is {model.vocabulary.name}"
        )
    unreadable: list[str] = []
    with _progress(f"Examining {model.name}", "images") as progress:

        def pictures() -> Iterator[tuple[Any, int]]:
            for done, (row, index) in enumerate(known):
                progress(done, len(known))
                try:
                    yield read_image(store, StoredImage(**row), model.preprocessing), index
                except UnreadableImage as error:
                    unreadable.append(f"{row['name']}: {error.reason}")
            if len(unreadable) == len(known):
                raise CommandFailed(
                    f"no labelled image of {image_set!r} can be read any more; the first is {unreadable[0]}"
                )
            progress(len(known), len(known))

        diagnosis = diagnose(model, pictures())
    _print_unreadable(unreadable)
    click.echo(
        f"{model.name} on {diagnosis.images:,} labelled images of {image_set}: "
        f"top-1 {diagnosis.top1:.1%}, top-5 {diagnosis.top5:.1%}\n"
    )
    _print_table(
        [
            {
                "mean and std": trial.normalisation,
                "label offset": f"{trial.offset:+d}",
                "images": trial.images,
                "top-1": f"{trial.top1:.1%}",
                "top-5": f"{trial.top5:.1%}",
                "loss": f"{trial.loss:.3f}",
            }
            for trial in diagnosis.trials
        ],
        "",
    )
    click.echo(f"\n{diagnosis.sentence}")
    if not diagnosis.healthy:
        sys.exit(1)


LABELS_SHOWN = 20


def _say_labels(rows: list[dict[str, Any]], model: str, image_set: str) -> None:
    """How many labels of a set are classes of a model, and those that are not."""
    from db.queries.labels import in_words

    click.echo(in_words(rows, model))
    left = [row for row in rows if row["how"] in ("ambiguous", "none")]
    for row in sorted(left, key=lambda row: row["how"] != "ambiguous")[:LABELS_SHOWN]:
        may = f"may be {', '.join(row['candidates'])}" if row["candidates"] else "is no class"
        noun = "image" if row["images"] == 1 else "images"
        click.echo(f"  {_printable(row['label'] or row['wnid'])} ({row['images']:,} {noun}) {may}")
    if len(left) > LABELS_SHOWN:
        click.echo(f"  and {len(left) - LABELS_SHOWN:,} more")
    if left:
        click.echo(f"To settle them: convscope models map-labels {model} --images {image_set}")
    click.echo()


@models.command("map-labels")
@click.argument("spec")
@click.option("--images", "image_set", required=True, help="An image set with labels.")
@click.option(
    "--set",
    "given",
    nargs=2,
    multiple=True,
    metavar="LABEL CLASS",
    help='A label of the set (name or WordNet id) and its class (index, WordNet id or name; "" for none).',
)
@click.option(
    "--from",
    "table",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A CSV file with the columns label and class, such as --csv prints.",
)
@click.option("--unset", "unset", multiple=True, metavar="LABEL", help="Forget what was settled of a label.")
@click.option("--clear", is_flag=True, help="Forget all that was settled.")
@click.option("--csv", "as_csv", is_flag=True, help="Print label, class, class_name, how and images as CSV.")
def map_labels(
    spec: str,
    image_set: str,
    given: tuple[tuple[str, str], ...],
    table: Path | None,
    unset: tuple[str, ...],
    clear: bool,
    as_csv: bool,
) -> None:
    """Show which class of model SPEC each label of a set is, and settle what cannot be told.

    What is settled is kept in the atlas. Attacks and saliency maps take it from then on; predictions and accuracies
    follow when the set is indexed again (`convscope index --replace`).
    """
    from db.queries.labels import keep_choices, settled_labels
    from db.suggestions import choices as suggested
    from workers.jobs.set_labels import match_set, settled_from, stored_vocabulary
    from workers.models.names import model_name

    atlas, _ = _stores()
    _check_set(atlas, image_set)
    vocabulary = stored_vocabulary(atlas, name := spec) or stored_vocabulary(atlas, name := model_name(spec))
    if vocabulary is None:
        model = _load(spec)
        name, vocabulary = model.name, model.vocabulary
    found = match_set(atlas, vocabulary, model=name, image_set=image_set)
    wanted = (_label_rows(table) if table is not None else {}) | dict(given)
    settled = settled_labels(atlas, name, image_set)
    try:
        choices = settled_from(vocabulary, found, wanted)
        forgotten = (
            list(settled) if clear else list(settled_from(vocabulary, found, dict.fromkeys(unset, "")))
        )
    except KeyError as error:
        known = [one.match.label.label or one.match.label.key for one in found]
        raise CommandFailed(
            f"{image_set!r} has no label {error.args[0]!r}; {suggested(error.args[0], known)}"
        ) from error
    if choices or forgotten:
        with atlas.publish() as connection:
            keep_choices(connection, name, image_set, choices, forget=forgotten)
        found = match_set(atlas, vocabulary, model=name, image_set=image_set)
    rows = [one.row(vocabulary) for one in found]
    if as_csv:
        _print_label_csv(rows)
        return
    if not rows:
        raise CommandFailed(f"no image of {image_set!r} has a label")
    _print_table(
        [
            {
                "label": _printable(row["label"] or row["wnid"]),
                "images": row["images"],
                "how": row["how"],
                "class": "" if row["class_index"] is None else f"{row['class_index']} {row['class']}",
                "may be": ", ".join(row["candidates"]),
            }
            for row in rows
        ],
        "",
    )
    click.echo()
    _say_labels(rows, name, image_set)
    if choices or forgotten:
        click.echo(
            f"Kept. Predictions follow with: convscope index --model {spec} --images {image_set} --replace"
        )


def _label_rows(path: Path) -> dict[str, str]:
    """Class by label, from a CSV file."""
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"label", "class"} <= set(reader.fieldnames or ()):
                raise CommandFailed(
                    f"{path}: expected the columns label and class, got {', '.join(reader.fieldnames or ()) or 'none'}"
                )
            # a label that --csv printed without a class is one that was not settled
            return {
                row["label"]: row["class"] or ""
                for row in reader
                if row["class"] or row.get("how") in (None, "", "settled")
            }
    except (UnicodeDecodeError, csv.Error) as error:
        raise CommandFailed(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _print_label_csv(rows: list[dict[str, Any]]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["label", "class", "class_name", "how", "images"])
    for row in rows:
        writer.writerow(
            [row["wnid"] or row["label"], row["class_index"], row["class"], row["how"], row["images"]]
        )


def _check_model(spec: str, name: str | None = None) -> None:
    """Before torch is loaded, which takes seconds."""
    from workers.models.names import name_problem, spec_problem

    problem = spec_problem(spec, _settings().home / "models") or name_problem(name)
    if problem is not None:
        raise CommandFailed(problem)


def _load(spec: str, *, name: str | None = None) -> "VisionModel":
    _check_model(spec, name)
    _restart_for_torch()
    from workers.models.vision import load_model

    settings = _settings()
    return load_model(
        spec, name=name, hub_timeout=settings.hub_timeout, models_folder=settings.home / "models"
    )


# -------------------------------------------------------------------------------------------- index


@convscope.command()
@click.option("--model", required=True, help="A model's name or specification: `convscope models list`.")
@click.option("--images", "image_set", required=True, help="An image set: `convscope images list`.")
@click.option(
    "--k", type=click.IntRange(1, 100), default=20, show_default=True, help="Images kept per channel."
)
@click.option("--layers", default="*", show_default=True, help="Layers to index, as GLOB or GLOB,GLOB.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the forward pass; bfloat16 is for previews.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), help="Images in one forward pass (default: by device)."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint of an earlier try.")
@click.option("--replace", is_flag=True, help="Replace the run that is there.")
@click.option("--name", help="What tables and pages call the model (default: the specification's own name).")
def index(image_set: str, model: str, **options: Any) -> None:
    """Find the k images that drive each channel of each layer most.

    One forward pass over the set. Stopping it (Ctrl-C, kill) leaves a checkpoint for --resume. The result is
    published at the end, all at once; a running dashboard shows it without a restart.
    """
    from workers.models.names import model_name

    atlas, store = _stores()
    _check_set(atlas, image_set)
    _check_model(model, options["name"])
    _check_layers(atlas, options["name"] or model_name(model), options["layers"])
    _index(atlas, store, model=model, image_set=image_set, **options)


def _check_layers(atlas: "Atlas", model: str, patterns: str) -> None:
    """Of a model that was indexed before: whether a pattern matches one of its layers."""
    from db.queries.inventory import layers as layers_of
    from workers.requests.image_sets import layers_problem

    problem = layers_problem([row["layer"] for row in atlas.fetch(layers_of(model))], patterns, model)
    if problem is not None:
        raise CommandFailed(problem)


def _index(
    atlas: "Atlas",
    store: "ImageStore",
    *,
    model: str,
    image_set: str,
    name: str | None = None,
    **options: Any,
) -> None:
    _restart_for_torch()
    from precompute.index.run import run_index

    network = _load(model, name=name)
    with _progress(f"Indexing {image_set} with {network.name}", "images") as progress:
        report = run_index(
            atlas, store, model=network, image_set=image_set, progress=progress, say=_remark, **options
        )
    click.echo(
        f"run {report.run}: {counted(report.images, 'image')}, {counted(report.layers, 'layer')}, "
        f"{counted(report.channels, 'channel')}, "
        f"{report.images_per_second:.1f} images/s ({report.seconds:.1f} s)"
    )
    _print_unreadable([str(entry) for entry in report.unreadable])
    if network.head_note:
        _remark(network.head_note)
    if report.unpredicted:
        click.echo(
            f"  the logits of {report.unpredicted:,} of {report.images:,} images are not finite (NaN or infinite): "
            "these images have no prediction",
            err=True,
        )
    if report.nonfinite_channels:
        click.echo(
            f"  {report.nonfinite_channels:,} of {report.channels:,} channels have activations that are not finite: "
            "these are left out of the top-activating patches",
            err=True,
        )


def _print_unreadable(images: list[str]) -> None:
    for image in images[:20]:
        click.echo(f"  not readable any more: {image}", err=True)
    if len(images) > 20:
        click.echo(f"  and {len(images) - 20:,} more", err=True)


# ------------------------------------------------------------------------------------- saliency, jobs


class _ListsMethods(click.Command):
    """Its help ends with the methods of attribution."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        from workers.requests.methods import METHODS

        _write_methods(formatter, METHODS.values())


def _write_methods(formatter: click.HelpFormatter, methods: "Iterable[Method]") -> None:
    with formatter.section("Methods and their parameters, with defaults"):
        formatter.write_dl(
            [
                (method.name, ", ".join(f"{p.name}={p.default}" for p in method.parameters))
                for method in methods
            ]
        )


def _named_values(given: tuple[str, ...]) -> dict[str, Any]:
    """`NAME=VALUE` words as a dictionary."""
    values: dict[str, Any] = {}
    for words in given:
        name, equals, value = words.partition("=")
        if not equals:
            raise click.BadParameter(f"expected NAME=VALUE, got {words!r}", param_hint="--set")
        values[name.strip()] = value.strip()
    return values


@convscope.command(cls=_ListsMethods)
@click.option("--model", "models", multiple=True, required=True, help="A model; several may be given.")
@click.option("--images", "image_set", required=True, help="An image set: `convscope images list`.")
@click.option("--ids", required=True, help="Images, as 0,1,4-7.")
@click.option("--method", default="smoothgrad", show_default=True, help="One of those listed below.")
@click.option("--samples", type=int, help="Most noisy copies of the image (smoothgrad).")
@click.option("--seed", type=int, help="Seed of the noise (smoothgrad).")
@click.option(
    "--set", "settings_", multiple=True, metavar="NAME=VALUE", help="Any other parameter of the method."
)
@click.option(
    "--target",
    default="prediction",
    show_default=True,
    help="Class to explain: prediction, label or an index.",
)
@click.option(
    "--queue",
    type=click.Choice(["interactive", "batch"]),
    default="batch",
    show_default=True,
    help="interactive passes batch.",
)
@click.option("--wait", is_flag=True, help="Show progress, and end as the job ends.")
def saliency(
    models: tuple[str, ...],
    image_set: str,
    ids: str,
    method: str,
    samples: int | None,
    seed: int | None,
    settings_: tuple[str, ...],
    target: str,
    queue: str,
    wait: bool,
) -> None:
    """Queue saliency maps of images under models, and print the job's number.

    A running worker computes them (`convscope run` has one); the Saliency page shows them. Asking twice for the
    same is one job.
    """
    from workers.requests.methods import parse_method
    from workers.requests.submit import Office, image_keys, parse_ids, parse_target, saliency_job

    parameters = _named_values(settings_)
    parameters |= {name: value for name, value in [("samples", samples), ("seed", seed)] if value is not None}
    settings = _settings()
    atlas, _ = _stores()
    # all that is cheap before a model is loaded, which takes seconds
    parse_method(method, parameters)
    parse_target(target)
    chosen = parse_ids(ids)
    image_keys(atlas, image_set, chosen)
    new = saliency_job(
        atlas,
        models=_references(atlas, models),
        image_set=image_set,
        image_ids=chosen,
        method=method,
        parameters=parameters,
        target=target,
        queue=queue,
    )
    ledger = _ledger()
    submitted = Office(settings, ledger).submit(new)
    click.echo(f"{submitted.job}")
    _remark(submitted.sentence())
    if wait:
        _wait_for(ledger, submitted.job)


def _references(atlas: "Atlas", models: "Sequence[str]") -> "list[ModelRef]":
    """The models of a request; all names are looked at before the first is loaded."""
    from workers.requests.submit import indexed_models

    known = indexed_models(atlas)
    for model in models:
        if model not in known:
            _check_model(model)
    return [_reference(atlas, model) for model in dict.fromkeys(models)]


def _reference(atlas: "Atlas", model: str) -> "ModelRef":
    """An indexed model by its name, with no need to load it; any other by loading it once, for its digest."""
    from workers.requests.submit import ModelRef, indexed_models

    known = indexed_models(atlas)
    if model in known:
        return known[model]
    network = _load(model)
    return ModelRef(network.name, network.source, network.digest(network.weights_sha256()))


class _ListsAttacks(click.Command):
    """Its help ends with the methods of attack."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        from workers.requests.attacks import ATTACKS

        _write_methods(formatter, ATTACKS.values())


@convscope.command(cls=_ListsAttacks)
@click.option("--model", "models", multiple=True, required=True, help="A model; several may be given.")
@click.option("--images", "image_set", required=True, help="An image set: `convscope images list`.")
@click.option("--ids", help="Images, as 0,1,4-7 (default: all of the set).")
@click.option(
    "--where",
    metavar="SQL",
    help="Images for which a condition holds, over name, label, wnid, split, width, height, bytes and, of the first "
    "model's run, predicted, probability and verdict (right, wrong, unlabelled).",
)
@click.option("--method", default="fgsm", show_default=True, help="fgsm or pgd.")
@click.option("--epsilon", type=float, help="One epsilon alone, in pixels in [0, 1], instead of a search.")
@click.option(
    "--grid",
    type=click.Choice(["geometric", "linear"]),
    help="Epsilons of the search. geometric: from 1/4080 up, each 1.5 times the one before (--set ratio=), then the "
    "gap below the first success in 8 parts (--set parts=). linear: every multiple of --step. Default: geometric, "
    "or linear with --step or on 8-bit levels.",
)
@click.option("--step", type=float, help="Distance of two epsilons of a linear grid (default: 0.001).")
@click.option("--max", "cap", type=float, help="Largest epsilon of the search (default: 0.5).")
@click.option(
    "--relative-to",
    type=click.Choice(["prediction", "label"]),
    default="prediction",
    show_default=True,
    help="The class to leave.",
)
@click.option("--target", type=int, help="A class to reach instead, by its index.")
@click.option(
    "--set", "settings_", multiple=True, metavar="NAME=VALUE", help="Any other parameter of the method."
)
@click.option(
    "--queue",
    type=click.Choice(["interactive", "batch"]),
    default="batch",
    show_default=True,
    help="interactive passes batch.",
)
@click.option("--wait", is_flag=True, help="Show progress, end as the job ends, and say what was found.")
def attack(
    models: tuple[str, ...],
    image_set: str,
    ids: str | None,
    where: str | None,
    method: str,
    epsilon: float | None,
    grid: str | None,
    step: float | None,
    cap: float | None,
    relative_to: str,
    target: int | None,
    settings_: tuple[str, ...],
    queue: str,
    wait: bool,
) -> None:
    """Queue attacks on images: the smallest epsilon that changes what a model says. Prints the job's number.

    A running worker computes them and writes each image as it ends; the Attack and the Robustness page show them.
    Cancelling leaves what is done; asking again for the same, or for more images, computes only what is missing.
    """
    from workers.requests.attacks import parse_attack
    from workers.requests.submit import Office, image_keys, parse_ids
    from workers.requests.submit_attacks import MOST_ATTACKS, attack_job

    if ids is not None and where is not None:
        raise click.UsageError("--ids and --where both choose images: expected one of them")
    parameters = _named_values(settings_)
    given = {"epsilon": epsilon, "grid": grid, "step": step, "cap": cap}
    parameters |= {name: value for name, value in given.items() if value is not None}
    if epsilon is not None:
        parameters.setdefault("mode", "fixed")
    settings = _settings()
    atlas, _ = _stores()
    parse_attack(method, parameters)
    image_keys(atlas, image_set, parse_ids(ids, most=MOST_ATTACKS) if ids is not None else [])
    references = _references(atlas, models)
    ledger = _ledger()
    chosen = (
        parse_ids(ids, most=MOST_ATTACKS)
        if ids is not None
        else _images_where(atlas, ledger, image_set, references[0].name, where or "true")
    )
    new = attack_job(
        atlas,
        models=references,
        image_set=image_set,
        image_ids=chosen,
        method=method,
        parameters=parameters,
        relative_to=relative_to,
        target=target,
        queue=queue,
    )
    submitted = Office(settings, ledger).submit(new)
    click.echo(f"{submitted.job}")
    _remark(submitted.sentence())
    if wait:
        _wait_for(ledger, submitted.job)
        _say_attacks(ledger, submitted.job)


def _images_where(atlas: "Atlas", ledger: "Ledger", image_set: str, model: str, condition: str) -> list[int]:
    from db.atlas.runs import run_of
    from db.queries.conditions import images_that
    from db.sql.guard import RefusedSQL
    from db.sql.runner import SQLFailed, SQLRunner
    from workers.requests.submit_attacks import MOST_ATTACKS

    runs = atlas.fetch(run_of(model, image_set))
    runner = SQLRunner(_settings(), atlas, ledger)
    try:
        number = runs[0]["run"] if runs else None
        chosen, more = images_that(runner, image_set, number, condition, most=MOST_ATTACKS)
    except (RefusedSQL, SQLFailed) as error:
        raise click.BadParameter(str(error), param_hint="--where") from error
    finally:
        runner.close()
    if more:
        raise CommandFailed(
            f"--where: more than {MOST_ATTACKS:,} images are like that, as many as a job may have"
        )
    if not chosen:
        _check_set(atlas, image_set)
        raise CommandFailed(f"--where: {condition!r} holds for no image of {image_set}")
    return chosen


def _say_attacks(ledger: "Ledger", job: int) -> None:
    """What a job's attacks found, in a sentence."""
    from db.queries.attacks import job_attacks

    found = job_attacks(ledger, job)
    flipped, resisted, impossible = (
        sum(row["outcome"] == outcome for row in found) for outcome in ("flipped", "resisted", "no_gradient")
    )
    # neither a success without any change nor one at a fixed epsilon says where an image falls
    already = sum(row["epsilon"] == 0 for row in found)
    searched = [
        (float("inf") if row["epsilon"] is None else row["epsilon"], row["at_most"])
        for row in found
        if row["outcome"] != "no_gradient" and row["epsilon"] != 0 and row["grid"] != "fixed"
    ]
    told = (
        f"{flipped - already:,} changed, {resisted:,} resisted to the cap, {impossible:,} had no gradient"
        f"{f', {already:,} needed no change' if already else ''}"
    )
    if searched:
        median, at_most = sorted(searched)[(len(searched) - 1) // 2]
        if median < float("inf"):
            told += f"; median smallest epsilon {'at most ' if at_most else ''}{median:.4g} ({median * 255:.2f}/255)"
    click.echo(told)


@convscope.command()
@click.argument("attacks", metavar="ATTACKS")
@click.option("--channels", type=int, default=10, show_default=True, help="How many channels are clamped.")
@click.option("--draws", type=int, default=20, show_default=True, help="Random draws; below 19 no verdict.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random channels.")
@click.option(
    "--layer",
    default="",
    help="Take the channels of this layer, or of any module by its path: `convscope models show --maps` lists them "
    "(default: all layers of the index).",
)
@click.option(
    "--queue", type=click.Choice(["interactive", "batch"]), default="batch", show_default=True,
    help="interactive passes batch.",
)  # fmt: skip
@click.option("--wait", is_flag=True, help="Show progress, end as the job ends, and print the verdicts.")
def ablate(attacks: str, channels: int, draws: int, seed: int, layer: str, queue: str, wait: bool) -> None:
    """Queue a test of which channels carry attacks, by number as 1,4-7. Prints the job's number.

    The channels that an attack moves most are clamped at the mean of their clean map, and the attack is searched anew,
    next to random draws of as many live channels of the same layers. They carry the attack where they hold it off
    longer than the random ones do.
    """
    from db.queries.attacks import job_ablations
    from workers.requests.submit import Office, parse_ids
    from workers.requests.submit_attacks import MOST_FOLLOWED, ablation_job

    settings = _settings()
    ledger = _ledger()
    atlas, _ = _stores()
    numbers = parse_ids(attacks, most=MOST_FOLLOWED, name="attacks")
    new = ablation_job(
        ledger, atlas, numbers, channels=channels, draws=draws, seed=seed, layer=layer, queue=queue
    )
    submitted = Office(settings, ledger).submit(new)
    click.echo(f"{submitted.job}")
    _remark(submitted.sentence())
    if wait:
        _wait_for(ledger, submitted.job)
        for row in job_ablations(ledger, submitted.job):
            click.echo(f"attack {row['attack']}: {row['verdict'].replace('_', ' ')}: {row['reason']}")


@convscope.group("jobs")
def jobs_group() -> None:
    """List, show, cancel, retry and wait for jobs."""


@jobs_group.command("list")
@click.option("--state", "states", multiple=True, help="Only jobs in that state; several may be given.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=30, show_default=True, help="Most jobs to list."
)
def list_jobs(states: tuple[str, ...], limit: int) -> None:
    """List jobs, newest first."""
    from db.ledger.tables import STATES
    from db.queries import jobs as job_queries
    from db.suggestions import hint

    for state in states:
        if state not in STATES:
            raise click.BadParameter(
                f"expected some of {', '.join(STATES)}, got {state!r}{hint(state, STATES)}",
                param_hint="--state",
            )
    rows = [
        {
            "job": job["job"],
            "kind": job["kind"],
            "state": job["state"],
            "models": job["models"],
            "images": job["image_set"],
            "done": f"{job['items_done']:,} of {job['items']:,}",
            "failed": job["items_failed"] or None,
            "attempts": job["attempts"],
            "age": _in_words(job["age"]),
            "left": None if job["seconds_left"] is None else _in_words(job["seconds_left"]),
        }
        for job in job_queries.jobs(_ledger(), states=states, limit=limit)
    ]
    _print_table(rows, "No job yet." if not states else "No such job.")


@jobs_group.command("show")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def show_job(number: int) -> None:
    """Show what is known of job ID, and its items."""
    import json

    from db.queries import jobs as job_queries

    ledger = _ledger()
    job = job_queries.job(ledger, number)
    told = job.pop("traceback")
    hidden = ("key", "claim", "lease_until", "not_before", "silent", "age")
    _print_fields(
        {
            name: json.dumps(value) if name == "parameters" else value
            for name, value in job.items()
            if name not in hidden and value is not None
        }
    )
    click.echo()
    items = [
        {
            "item": item["position"],
            "model": item["model"],
            "image": item["image_id"],
            "state": item["state"],
            "seconds": None if item["seconds"] is None else f"{item['seconds']:.1f}",
            "result": item["result"],
            "error": item["error"],
        }
        for item in job_queries.job_items(ledger, number)
    ]
    _print_table(items[:1000], "")
    if len(items) > 1000:
        click.echo(f"and {len(items) - 1000:,} more items")
    if told:
        click.echo(f"\n{told}", err=True)


@jobs_group.command("cancel")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def cancel_job(number: int) -> None:
    """Cancel job ID; what is finished of it stays."""
    from db.ledger import jobs

    state = jobs.cancel(_ledger(), number)
    click.echo(f"job {number} is cancelled" if state == "cancelled" else f"job {number} will be cancelled")


@jobs_group.command("retry")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def retry_job(number: int) -> None:
    """Queue job ID again, which failed or was cancelled."""
    from workers.requests.submit import Office

    click.echo(Office(_settings(), _ledger()).retry(number).sentence())


@jobs_group.command("wait")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def wait_for_job(number: int) -> None:
    """Wait for job ID with progress; exit code 0 where it is done, 1 where it failed or was cancelled."""
    _wait_for(_ledger(), number)


def _wait_for(ledger: "Ledger", number: int) -> None:
    from db.queries import jobs as job_queries

    job = job_queries.job(ledger, number)
    with _progress(f"Job {number}", "items") as progress:
        while job["finished"] is None:
            progress(job["items_done"] + job["items_failed"], job["items"])
            time.sleep(0.3)
            job = job_queries.job(ledger, number)
    if job["state"] != "done":
        raise CommandFailed(
            f"job {number} {'failed' if job['state'] == 'failed' else 'was cancelled'}"
            + (f": {job['error']}" if job["error"] else "")
        )
    _remark(f"job {number} is done")


def _ledger() -> "Ledger":
    from db.home import open_home

    return open_home(_settings())


def _in_words(seconds: float) -> str:
    for unit, name in [(86400, "d"), (3600, "h"), (60, "min")]:
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


# ---------------------------------------------------------------------------------------------- sql

TABLE_ROWS = 100
ALL = 1 << 40


@convscope.command("sql")
@click.argument("statement", required=False)
@click.option("--csv", "forms", flag_value="csv", multiple=True, help="Print CSV.")
@click.option("--json", "forms", flag_value="json", multiple=True, help="Print a JSON array of objects.")
@click.option(
    "--parquet", "forms", flag_value="parquet", multiple=True, help="Write Parquet: to a file or a pipe."
)
@click.option(
    "--spreadsheet",
    is_flag=True,
    help="In CSV, an apostrophe before texts that a spreadsheet takes for formulas.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write instead of printing.",
)
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="Value of the parameter $NAME.")
@click.option(
    "--limit", type=click.IntRange(1), help=f"Most rows (default: {TABLE_ROWS} in a table, else all)."
)
@click.option(
    "--seconds", type=click.FloatRange(0.1, 86_400), help="Longest time (default: CONVSCOPE_SQL_SECONDS)."
)
@click.option("--tables", "lists", is_flag=True, help="List what can be read; with a NAME, its columns.")
@click.option("--functions", "lists_functions", is_flag=True, help="List the functions that SQL calls.")
@click.option(
    "--path",
    "makes_file",
    is_flag=True,
    help="Write all of it as one DuckDB file, for any client, and print where.",
)
def sql(
    statement: str | None,
    forms: tuple[str, ...],
    spreadsheet: bool,
    output: Path | None,
    given: tuple[str, ...],
    limit: int | None,
    seconds: float | None,
    lists: bool,
    lists_functions: bool,
    makes_file: bool,
) -> None:
    """Ask the atlas and the ledger by one SQL STATEMENT (DuckDB's), from standard input where it is -.

    Without a statement a shell opens. Statements only read, in a process of their own with limits of time and
    memory (CONVSCOPE_SQL_…); results can be of any length.

    \b
    convscope sql "SELECT layer, channel, majority_label FROM selectivity ORDER BY entropy_bits LIMIT 10"
    convscope sql --csv -o dogs.csv --set label=beagle "SELECT * FROM patches WHERE label = $label"
    """
    from db.sql.export import write_sql_file
    from db.sql.runner import SQLRunner, as_value

    if len(set(forms)) > 1:
        raise click.UsageError(
            f"expected one of --csv, --json and --parquet, got {' and '.join(f'--{f}' for f in forms)}"
        )
    form = forms[0] if forms else None
    if output is not None and form is None:
        raise click.UsageError("--output wants --csv, --json or --parquet")
    if spreadsheet and form != "csv":
        raise click.UsageError("--spreadsheet belongs to --csv")
    if output is not None:
        _check_output(output)
    if lists_functions:
        _print_functions()
        return
    atlas, _ = _stores()
    ledger = _ledger()
    if makes_file:
        click.echo(write_sql_file(atlas, ledger))
        return
    if lists:
        _print_readable(atlas, ledger, statement)
        return
    values = {name: as_value(value) for name, value in _named_values(given).items()}
    runner = SQLRunner(_settings(), atlas, ledger)
    try:
        if statement is None and sys.stdin.isatty():
            if form is not None:
                raise click.UsageError(f"--{form} wants a statement")
            _sql_shell(runner, atlas, ledger, values, limit or TABLE_ROWS, seconds)
            return
        asked = sys.stdin.read() if statement in (None, "-") else statement
        if form is None:
            _print_rows(runner, str(asked), values, limit or TABLE_ROWS, seconds)
        else:
            _write_rows(
                runner, str(asked), values, form, output, limit or ALL, seconds, spreadsheet=spreadsheet
            )
    finally:
        runner.close()


def _check_output(path: Path) -> None:
    """Before the statement runs: whether the file can be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CommandFailed(f"--output {path}: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise CommandFailed(f"--output {path}: no permission to write there")


def _print_rows(
    runner: "SQLRunner", statement: str, values: dict[str, Any], limit: int, seconds: float | None
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from db.sql.formats import plain
    from db.sql.formats import values as cells_of

    result = runner.run(statement, values, rows=limit, size=ALL, seconds=seconds)
    found = result.table()
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    columns = [(name, cells_of(found.column(at))) for at, name in enumerate(found.column_names)]
    if result.plan:
        for _, cells in columns[-1:]:
            click.echo("\n".join(str(cell) for cell in cells))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, cells in columns:
        numbers = any(isinstance(cell, int | float) for cell in cells)
        table.add_column(Text(_printable(name)), justify="right" if numbers else "left", overflow="fold")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*(Text("NULL" if cell is None else _printable(_cell(plain(cell)))) for cell in row))
    console.print(table)
    rows = f"{found.num_rows:,} {'row' if found.num_rows == 1 else 'rows'}"
    more = f"the first {rows}, there are more: --limit" if result.more else rows
    _remark(f"{more} ({result.seconds:.2f} s)")


def _cell(value: Any) -> str:
    import json

    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _printable(text: str) -> str:
    """Without what would steer the terminal: names come from people's files."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _write_rows(
    runner: "SQLRunner",
    statement: str,
    values: dict[str, Any],
    form: str,
    output: Path | None,
    limit: int,
    seconds: float | None,
    *,
    spreadsheet: bool,
) -> None:
    from db.files import write_pieces
    from db.sql.formats import csv_lines, json_lines, parquet_pieces

    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("--parquet is not for a terminal: name a file by --output")
    with runner.run(statement, values, rows=limit, size=ALL, seconds=seconds) as result:
        pieces: Iterator[bytes] = (
            parquet_pieces(result.schema, result)
            if form == "parquet"
            else (
                text.encode()
                for text in (
                    csv_lines(result.schema, result, spreadsheet=spreadsheet)
                    if form == "csv"
                    else json_lines(result.schema, result)
                )
            )
        )
        if output is not None:
            write_pieces(output, pieces)
        else:
            stdout = sys.stdout.buffer
            try:
                for piece in pieces:
                    stdout.write(piece)
                stdout.flush()
            except BrokenPipeError:  # as with `| head`: whoever reads has enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
                return
        if result.more:
            _remark(f"the first {limit:,} rows, there are more: --limit")


def _print_readable(atlas: "Atlas", ledger: "Ledger", name: str | None) -> None:
    from db.sql.catalog import catalogue, row_counts
    from db.suggestions import hint

    readable = {one.name: one for one in catalogue()}
    if name is None:
        counts = row_counts(atlas, ledger)
        rows = [
            {"name": one.name, "kind": one.place, "rows": counts.get(one.name), "what it tells": one.comment}
            for one in readable.values()
        ]
        _print_table(rows, "")
        return
    if name not in readable:
        names = sorted(readable)
        raise CommandFailed(f"there is no table {name!r}; there are {', '.join(names)}{hint(name, names)}")
    click.echo(f"{readable[name].comment}\n")
    columns = [{"column": c.name, "type": c.kind, "what it tells": c.comment} for c in readable[name].columns]
    _print_table(columns, "")


def _print_functions() -> None:
    from textwrap import fill

    from db.sql.functions import by_kind

    for kind, names in by_kind().items():
        words = fill(" ".join(names), 100, break_long_words=False, break_on_hyphens=False)
        click.echo(f"{kind.replace('_', ' ')}\n\n{words}\n")


def _sql_shell(
    runner: "SQLRunner",
    atlas: "Atlas",
    ledger: "Ledger",
    values: dict[str, Any],
    limit: int,
    seconds: float | None,
) -> None:
    from db.sql.catalog import catalogue
    from db.sql.shell import shell

    def said(act: Callable[[], None]) -> None:
        try:
            act()
        except KeyboardInterrupt:
            _remark("stopped")
        except Exception as error:
            _remark(_sentence(error))

    shell(
        catalogue(),
        _settings().home / "sql_history",
        run=lambda typed: said(lambda: _print_rows(runner, typed, values, limit, seconds)),
        tables=lambda name: said(lambda: _print_readable(atlas, ledger, name)),
        say=click.echo,
    )


# ------------------------------------------------------------------------------------------ plumbing


def _settings() -> "Settings":
    from db.settings import read_settings

    return read_settings()


def _stores() -> tuple["Atlas", "ImageStore"]:
    from db.home import open_atlas
    from db.stores.images import ImageStore

    settings = _settings()
    return open_atlas(settings), ImageStore(settings)


def _restart_for_torch() -> None:
    """Before torch starts: see `workers.models.speedups.runtime` for what it is worth."""
    from workers.models.speedups.runtime import restart_with_settings

    restart_with_settings()


def _remark(sentence: str) -> None:
    """A sentence to a person beside the result."""
    click.echo(sentence, err=True)


@contextlib.contextmanager
def _progress(title: str, unit: str) -> Iterator[Callable[..., None]]:
    """Progress on stderr with rate and time left, from the first report on.

    A bar on a terminal; a line a minute elsewhere, for the log of a job that runs overnight.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    on_terminal = sys.stderr.isatty()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not on_terminal,
    )
    task = bar.add_task(title, total=None, rate="")
    current: str | None = None
    written = time.monotonic()

    def report(done: int, total: int | None, phase: str | None = None) -> None:
        nonlocal current, written
        entry = bar.tasks[0]
        if phase != current:
            if current is None and on_terminal:
                bar.console.print(title, highlight=False)
            current = phase
            bar.reset(task)  # a phase has its own rate and time left
        entry.total = total
        counted = "units" if phase == "receptive fields" else unit
        bar.update(
            task,
            completed=done,
            description=phase or title,
            rate=f"{entry.speed:,.1f} {counted}/s" if entry.speed else "",
        )
        bar.start()  # does nothing where it runs already
        if not on_terminal and time.monotonic() - written >= 60:
            written = time.monotonic()
            amount = f"{done:,} {counted}" if total is None else f"{done:,} of {total:,} {counted}"
            left = "" if entry.time_remaining is None else f", {entry.time_remaining / 60:,.0f} min left"
            rate = f", {entry.fields['rate']}" if entry.fields["rate"] else ""
            what = f"{title}: {phase}" if phase else title
            click.echo(f"{what}: {amount}{rate}{left}", err=True)

    try:
        yield report
    finally:
        bar.stop()


def _print_table(rows: list[dict[str, Any]], empty: str) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        click.echo(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="right" if isinstance(value, int) else "left")
    for row in rows:
        table.add_row(
            *(
                "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
                for value in row.values()
            )
        )
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _print_fields(fields: dict[str, Any]) -> None:
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {'' if value is None else value}")


if __name__ == "__main__":
    main()
