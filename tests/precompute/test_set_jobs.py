"""Imports and indexes as jobs: what they keep, where they resume, and what they wait for."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select, update

from db.atlas.image_sets import known_images
from db.atlas.store import Atlas
from db.ledger import claims, jobs
from db.ledger.engine import Ledger
from db.ledger.jobs import NewItem, NewJob
from db.ledger.leases import Leases
from db.ledger.tables import ImageImport, Job
from db.queries import jobs as job_queries
from db.queries.inventory import runs
from db.settings import Settings
from db.stores.images import ImageStore
from db.stores.uploads import UploadStore
from precompute.index.checkpoint import Checkpoint
from precompute.jobs import ImportJobs, IndexJobs, set_kinds
from workers.queue.runner import Runner
from workers.requests.image_sets import folder_job, index_job, upload_job
from workers.requests.parameters import InvalidRequest
from workers.requests.submit import JobSubmitter

ROOT = Path(__file__).parents[2]
Photo = Callable[..., bytes]
WriteFiles = Callable[..., Path]


class Site:
    """A home, a ledger, and a worker in this process."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.settings, self.ledger = settings, ledger
        self.atlas, self.uploads = Atlas(settings), UploadStore(settings)
        self.submitter = JobSubmitter(settings, ledger)
        self.stopping = threading.Event()
        self.kinds: dict[str, Any] = dict(set_kinds(settings, torch.device("cpu")))

    def run(self, job: int) -> dict[str, Any]:
        Runner(
            self.settings,
            self.ledger,
            self.kinds,
            worker="w",
            queues=("interactive", "batch"),
            stopping=self.stopping,
            pausing=("import", "index"),
        ).run(job)
        return job_queries.job(self.ledger, job)

    def upload(self, files: dict[str, bytes]) -> str:
        key = self.uploads.begin([(name, len(content)) for name, content in files.items()])
        for number, content in enumerate(files.values()):
            if content:
                place = self.uploads.file(key, number).path
                place.write_bytes(content)
        return key

    def import_upload(self, files: dict[str, bytes], image_set: str = "mine") -> dict[str, Any]:
        new = upload_job(self.uploads, upload=self.upload(files), image_set=image_set)
        return self.run(self.submitter.submit(new).job)

    def index(self, **options: Any) -> int:
        return self.submitter.submit(
            index_job(self.atlas, **({"model": "convnext-tiny", "image_set": "mine"} | options))
        ).job

    def report(self, job: int) -> dict[str, Any]:
        found = job_queries.image_import(self.ledger, job)
        assert found is not None
        return found


@pytest.fixture
def site(settings: Settings, ledger: Ledger, small_convnext: Path) -> Site:
    shutil.copytree(
        small_convnext, settings.home / "models" / "convnext-tiny"
    )  # where users put their weights
    return Site(settings, ledger)


@pytest.fixture
def few(photo: Photo) -> dict[str, bytes]:
    """Six photos in two folders."""
    return {
        f"{'cat' if number % 2 else 'dog'}/{number}.jpg": photo(number, size=(80, 60)) for number in range(6)
    }


def names(site: Site, image_set: str = "mine") -> list[str]:
    return sorted(row["name"] for row in site.atlas.fetch(known_images(image_set)))


def test_an_upload_becomes_a_set_and_is_gone(site: Site, few: dict[str, bytes]) -> None:
    job = site.import_upload(few | {"broken.jpg": b"no picture", "notes.txt": b"x"})
    assert (job["state"], job["image_set"], job["models"]) == ("done", "mine", "")
    assert names(site) == sorted(few)
    report = site.report(job["job"])
    assert (report["added"], report["refused"], report["labelled"]) == (6, 1, 6)
    assert {one["name"] for one in report["refusals"]} == {"broken.jpg"}
    assert report["layout"]["unused"] == [{"kind": "text files (.txt)", "count": 1, "example": "notes.txt"}]
    assert report["source"] == "upload of 0.jpg, 1.jpg, 2.jpg and 5 more"
    assert job_queries.job_items(site.ledger, job["job"])[0]["result"] == report["image_import"]
    assert list(site.uploads.folder.iterdir()) == []


def test_a_preview_reports_the_import_and_keeps_the_upload(site: Site, few: dict[str, bytes]) -> None:
    key = site.upload({f"site/{number % 2}/{name}": data for number, (name, data) in enumerate(few.items())})
    asked = {"upload": key, "image_set": "mine", "preview": True}
    plain = site.run(site.submitter.submit(upload_job(site.uploads, **asked)).job)
    layout = site.report(plain["job"])["layout"]
    assert (layout["preview"], layout["images"], layout["labels"]) == (True, 6, {"0": 3, "1": 3})
    assert layout["sentence"].startswith(
        "class folders: split from nothing; class from the first folder (2: 0, 1)"
    )
    words = {"class_level": 1, "split_from": "2"}
    site.run(job := site.submitter.submit(upload_job(site.uploads, **asked, words=words)).job)
    layout = site.report(job)["layout"]
    assert (layout["labels"], layout["splits"]) == ({"site": 6}, {"0": 3, "1": 3})
    assert site.atlas.version() is None
    site.run(
        job := site.submitter.submit(upload_job(site.uploads, upload=key, image_set="mine", words=words)).job
    )
    assert (site.report(job)["added"], site.report(job)["labelled"]) == (6, 6)
    assert list(site.uploads.folder.iterdir()) == []


def test_an_upload_without_an_image_fails_in_a_sentence_and_is_kept(site: Site) -> None:
    job = site.import_upload({"a.jpg": b"no picture"})
    assert job["state"] == "failed"
    assert job["error"].startswith("the only image in upload of a.jpg, a.jpg, cannot be read:")
    assert len(list(site.uploads.folder.iterdir())) == 1
    assert site.atlas.version() is None


def test_an_import_that_is_cancelled_leaves_no_file_and_no_set(
    site: Site, few: dict[str, bytes], settings: Settings
) -> None:
    new = upload_job(site.uploads, upload=site.upload(few), image_set="mine")
    number = site.submitter.submit(new).job

    class Cancels(ImportJobs):
        def compute(self, item: Any, parameters: Any, job: int, on_progress: Any) -> Any:
            def report(done: int, total: int, note: str | None = None) -> None:
                if done == total:
                    assert jobs.cancel(site.ledger, job) == "running"
                    time.sleep(1.5)  # until the heartbeat thread notices
                on_progress(done, total, note)

            return super().compute(item, parameters, job, report)

    site.kinds["import"] = Cancels(settings, site.atlas, ImageStore(settings))
    assert site.run(number)["state"] == "cancelled"
    left = [path for folder in ImageStore(settings).folders() for path in folder.rglob("*") if path.is_file()]
    assert left == []
    assert site.atlas.version() is None
    site.kinds.update(set_kinds(settings, torch.device("cpu")))
    site.submitter.retry(number)
    assert site.run(number)["state"] == "done"
    assert names(site) == sorted(few)


def test_an_import_waits_while_images_are_removed(
    site: Site, few: dict[str, bytes], settings: Settings
) -> None:
    with ImageStore(settings).removing():
        job = site.import_upload(few)
    assert (job["state"], job["attempts"], job["error"]) == ("queued", 0, None)
    assert job["note"].startswith("waits: images are being removed in")
    assert job["not_before"] is not None
    with site.ledger.write() as connection:
        connection.execute(update(Job).values(not_before=None))
    assert site.run(job["job"])["state"] == "done"


def test_a_folder_below_a_root_is_read_in_place_and_links_out_of_it_are_refused(
    settings: Settings, ledger: Ledger, photo: Photo, write_files: WriteFiles
) -> None:
    root = write_files({"set/a.jpg": photo(1), "set/b.jpg": photo(2)}, "allowed")
    outside = write_files({"secret.jpg": photo(3), "more/secret.jpg": photo(4)}, "outside")
    (root / "set" / "file.jpg").symlink_to(outside / "secret.jpg")
    (root / "set" / "folder").symlink_to(outside)
    (root / "set" / "inside.jpg").symlink_to(root / "set" / "a.jpg")
    (root / "way_out").symlink_to(outside)
    site = Site(settings, ledger)
    with pytest.raises(InvalidRequest, match="set CONVSCOPE_IMAGE_ROOTS"):
        folder_job(ledger, (), folder=str(root), image_set="mine")
    for wrong in (outside, root / "way_out", root / ".." / "outside", "/", "allowed", "/etc\0", "\ud800"):
        with pytest.raises(InvalidRequest, match="expected a folder below"):
            folder_job(ledger, (root,), folder=str(wrong), image_set="mine")
    object.__setattr__(settings, "image_roots", (root,))
    site.kinds.update(set_kinds(settings, torch.device("cpu")))
    job = site.run(
        site.submitter.submit(folder_job(ledger, (root,), folder=str(root / "set"), image_set="mine")).job
    )
    assert job["state"] == "done", job["error"]
    assert names(site) == ["a.jpg", "b.jpg", "inside.jpg"]
    refusals = site.report(job["job"])["refusals"]
    assert sorted(one["name"] for one in refusals) == ["file.jpg", "folder"]
    assert {one["reason"] for one in refusals} == {f"it is a link that points outside {root}"}
    again = folder_job(ledger, (root,), folder=str(root / "set"), image_set="mine")
    assert site.submitter.submit(again).job != job["job"], "its files may be others by now"


def test_an_index_is_repeated_only_to_replace_it(site: Site, few: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequest, match=r"model: expected one of convnext-tiny, .*, got 'resnet'"):
        index_job(site.atlas, model="resnet", image_set="mine")
    with pytest.raises(InvalidRequest, match="there is no image set yet"):
        index_job(site.atlas, model="convnext-tiny", image_set="mine")
    site.import_upload(few)
    number = site.index(k=3, layers="stage1*")
    assert site.index(k=3, layers="stage1*") == number, "two clicks are one job"
    job = site.run(number)
    assert job["state"] == "done", job["error"]
    (run,) = site.atlas.fetch(runs())
    assert (run["model"], run["image_set"], run["k"], run["images"]) == ("convnext-tiny", "mine", 3, 6)
    assert job_queries.job_items(site.ledger, number)[0]["result"] == run["run"]
    with pytest.raises(InvalidRequest, match="is already indexed with 'convnext-tiny'"):
        site.index()
    again = site.run(site.index(k=4, layers="stage1*", replace=True))
    assert again["state"] == "done"
    assert [row["k"] for row in site.atlas.fetch(runs())] == [4]


def test_a_published_run_is_not_repeated_after_its_worker_died(site: Site, few: dict[str, bytes]) -> None:
    site.import_upload(few)
    number = site.index(layers="stage1*")
    site.run(number)
    before = site.atlas.version()
    items = [item["item"] for item in job_queries.job_items(site.ledger, number)]
    assert jobs.requeue_items(site.ledger, number, items)
    assert site.run(number)["state"] == "done"
    assert site.atlas.version() == before
    asked = job_queries.job(site.ledger, number)["parameters"]
    published = site.kinds["index"]._published  # type: ignore[attr-defined]
    assert published(asked) is not None
    for other in ({"layers": "stage2*"}, {"layers": "*"}, {"k": 3}):
        assert published(asked | other) is None, f"{other} asks for another run"
    with pytest.raises(InvalidRequest, match="layers: expected a pattern that matches some of"):
        site.index(layers="nothing*", replace=True)


def test_an_index_yields_to_interactive_jobs_with_the_same_result(
    site: Site, few: dict[str, bytes], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.import_upload(few)
    number = site.index(layers="stage1*", batch_size=1)
    key = site.upload({"late.jpg": next(iter(few.values()))})
    passed: list[str] = []

    class Asks(IndexJobs):
        def compute(self, item: Any, parameters: Any, job: int, on_progress: Any) -> Any:
            def report(done: int, total: int, note: str | None = None) -> None:
                if done == 3 and not passed:
                    asked = site.submitter.submit(upload_job(site.uploads, upload=key, image_set="late")).job
                    on_progress(done, total, note)
                    passed.append(job_queries.job(site.ledger, asked)["state"])
                on_progress(done, total, note)

            return super().compute(item, parameters, job, report)

    monkeypatch.setattr("workers.queue.runner._SECONDS_BETWEEN_LOOKS", 0.0)
    site.kinds["index"] = Asks(settings, site.atlas, ImageStore(settings), torch.device("cpu"))
    assert site.run(number)["state"] == "done"
    assert passed == ["done"]
    assert names(site, "late") == ["late.jpg"]


def test_an_index_that_another_process_makes_is_waited_for(
    site: Site, few: dict[str, bytes], settings: Settings
) -> None:
    site.import_upload(few)
    number = site.index(layers="stage1*")
    held: list[Any] = []

    class Busy(IndexJobs):
        def compute(self, item: Any, parameters: Any, job: int, on_progress: Any) -> Any:
            def report(done: int, total: int, note: str | None = None) -> None:
                on_progress(done, total, note)

            original = Checkpoint.held

            def busy(checkpoint: Checkpoint) -> Any:
                holder = original(
                    Checkpoint(checkpoint.folder.parent.parent, _facts_without_format(checkpoint))
                )
                holder.__enter__()
                held.append(holder)
                return original(checkpoint)

            Checkpoint.held = busy  # type: ignore[method-assign]
            try:
                return super().compute(item, parameters, job, report)
            finally:
                Checkpoint.held = original  # type: ignore[method-assign]

    site.kinds["index"] = Busy(settings, site.atlas, ImageStore(settings), torch.device("cpu"))
    job = site.run(number)
    assert (job["state"], job["attempts"]) == ("queued", 0)
    assert job["note"] == "waits: another process is indexing 'mine' with 'convnext-tiny' right now"
    held[0].__exit__(None, None, None)


def _facts_without_format(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: value for name, value in checkpoint.facts.items() if name != "format"}


def test_a_stopped_worker_leaves_a_checkpoint_and_the_next_resumes(
    site: Site, few: dict[str, bytes], settings: Settings
) -> None:
    site.import_upload(few)
    number = site.index(layers="stage1*", batch_size=1)
    heard: list[str] = []

    class Stops(IndexJobs):
        def compute(self, item: Any, parameters: Any, job: int, on_progress: Any) -> Any:
            def report(done: int, total: int, note: str | None = None) -> None:
                heard.append(note or "")
                if note and note.startswith("3 of 6"):
                    site.stopping.set()
                on_progress(done, total, note)

            return super().compute(item, parameters, job, report)

    site.kinds["index"] = Stops(settings, site.atlas, ImageStore(settings), torch.device("cpu"))
    job = site.run(number)
    assert (job["state"], job["attempts"]) == ("queued", 0)
    site.stopping.clear()
    heard.clear()
    site.kinds["index"] = Listens(heard, settings, site.atlas, ImageStore(settings), torch.device("cpu"))
    assert site.run(number)["state"] == "done"
    assert counted(heard) == ["3 of 6 images", "4 of 6 images", "5 of 6 images", "6 of 6 images"]


class Listens(IndexJobs):
    """Index jobs that record the progress they report."""

    def __init__(self, heard: list[str], *parts: Any) -> None:
        super().__init__(*parts)
        self._heard = heard

    def compute(self, item: Any, parameters: Any, job: int, on_progress: Any) -> Any:
        def report(done: int, total: int, note: str | None = None) -> None:
            self._heard.append(note or "")
            on_progress(done, total, note)

        return super().compute(item, parameters, job, report)


def counted(heard: list[str]) -> list[str]:
    return [note for note in heard if note.endswith("of 6 images")]


DIES = """
import os, signal, sys, threading
import torch
from db.atlas.store import Atlas
from db.stores.images import ImageStore
from db.ledger.engine import Ledger
from db.settings import read_settings
from precompute.jobs import IndexJobs
from workers.queue.runner import Runner

settings = read_settings({"CONVSCOPE_HOME": sys.argv[1]})

class Dies(IndexJobs):
    def compute(self, item, parameters, job, on_progress):
        def report(done, total, note=None):
            if note and note.startswith("4 of 6"):
                os.kill(os.getpid(), signal.SIGKILL)
            on_progress(done, total, note)
        return super().compute(item, parameters, job, report)

kind = Dies(settings, Atlas(settings), ImageStore(settings), torch.device("cpu"), seconds_between_checkpoints=0)
never = threading.Event()
Runner(settings, Ledger(settings), {"index": kind}, worker="dies", queues=("batch",), stopping=never).run(
    int(sys.argv[2])
)
"""


def test_a_killed_worker_loses_only_work_after_the_last_checkpoint(
    site: Site, few: dict[str, bytes], settings: Settings
) -> None:
    site.import_upload(few)
    number = site.index(layers="stage1*", batch_size=1)
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(settings.home), str(number)], cwd=ROOT, timeout=120, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert site.atlas.fetch(runs()) == []
    leases = Leases(0)
    claims.sweep(site.ledger, leases, attempts=5, resend_after=5, empty_queues=())
    heard: list[str] = []
    site.kinds["index"] = Listens(heard, settings, site.atlas, ImageStore(settings), torch.device("cpu"))
    assert site.run(number)["state"] == "done"
    assert counted(heard) == ["3 of 6 images", "4 of 6 images", "5 of 6 images", "6 of 6 images"]


def test_a_failed_set_job_does_not_blame_an_image(ledger: Ledger) -> None:
    new = NewJob("a" * 64, "import", "batch", "", "mine", {}, (NewItem("", 0, ""),))
    number, _ = jobs.submit_job(ledger, new)
    claim = claims.claim_job(ledger, number, worker="w", lease=9)
    assert claim is not None
    item = claims.open_items(ledger, claim)[0]["item"]
    claims.fail_item(ledger, claim, item, seconds=1, error="no image found")
    assert claims.finish(ledger, claim) == "failed"
    assert job_queries.job(ledger, number)["error"] == "no image found"
    with ledger.read() as connection:
        assert connection.execute(select(ImageImport.job)).all() == []
