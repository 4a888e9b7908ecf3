"""The dialogs of image sets: what each button, choice and look at a job leads to."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from dash import Dash, no_update
from ledger_rows import claimed
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.app import create_app
from dashboard.pages import images_add, images_add_steps, images_add_view, images_manage
from dashboard.pages.images_add_steps import FIELDS, Adding
from dashboard.state.context import EXTENSION, Context
from db.ledger import claims
from db.queries import jobs as job_queries
from db.settings import read_settings
from db.stores.uploads import NoSuchUpload, UploadStore
from workers.requests.parameters import InvalidRequest

FILES = {"number": 1, "files": {"count": 1, "bytes": 3, "name": "cats.zip"}}
TABLE = {"number": 2, "labels": {"number": 0, "name": "truth.csv", "size": 4}}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Dash:
    """A dashboard over an indexed set and two others, with a folder that may be imported."""
    folder = tmp_path_factory.mktemp("dialogs")
    (folder / "roots" / "cats").mkdir(parents=True)
    (folder / "roots" / "truth.csv").write_text("a,b\n1,2\n")
    settings = read_settings(
        {"CONVSCOPE_HOME": str(folder / "home"), "CONVSCOPE_IMAGE_ROOTS": str(folder / "roots")}
    )
    for name in ("painted", "doomed", "stripes"):
        import_pictures(settings, painted_pictures(4), image_set=name)
    add_run(settings, image_set="doomed")
    return create_app(settings)


@pytest.fixture
def home(app: Dash) -> Iterator[Context]:
    """The dashboard's context, within a request."""
    with app.server.test_request_context():
        found: Context = app.server.extensions[EXTENSION]
        yield found


class Dialog:
    """The dialog with a user: keeps what the browser keeps between events."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] | None = None
        self.typed: dict[str, str | None] = dict.fromkeys(FIELDS)
        self.model: str | None = None
        self.chosen: dict[str, Any] | None = None
        self.outputs: dict[str, Any] = {}

    def __call__(self, event: str, value: Any = 1, /, *, answered: bool = True, **typed: str) -> Adding:
        """Let an event happen; without `answered` its answer never arrives."""
        self.typed |= typed
        if event == "chosen":
            self.chosen = value
        events = {"chosen": self.chosen, event: value}
        outputs = images_add.happened(event, events, self.typed, self.kept, self.model)
        return self._take(outputs) if answered else self.state

    def tick(self) -> Adding:
        """Let a second pass."""
        return self._take(images_add.on_tick(1, self.kept, self.model, None))

    def _take(self, outputs: dict[str, Any]) -> Adding:
        self.outputs = outputs
        if outputs["state"] is not no_update:
            self.kept = outputs["state"]
        if outputs["model"] is not no_update:
            self.model = outputs["model"]
        self.typed |= {name: text for name, text in outputs["fields"].items() if text is not no_update}
        return self.state

    @property
    def state(self) -> Adding:
        """What the dialog is at."""
        return Adding(**(self.kept or {}))


def uploaded(context: Context, name: str = "cats.zip") -> str:
    """A complete upload; returns its key."""
    store = UploadStore(context.settings)
    key = store.begin([(name, 3)])
    store.write(key, 0, 0, 3, io.BytesIO(b"abc"))
    return key


def importing(context: Context, *, preview: bool = False) -> Dialog:
    """A dialog that has sent a file and follows its job."""
    dialog = Dialog()
    dialog("chosen", FILES)
    dialog("preview" if preview else "form", name="cats")
    state = dialog("sent", {"upload": uploaded(context), "labels": None})
    assert state.step == ("previewing" if preview else "importing")
    return dialog


def finish(context: Context, job: int) -> None:
    claims.finish(context.ledger, claimed(context.ledger, job))


@pytest.mark.parametrize(
    ("name", "count", "proposed"),
    [
        ("My Photos.zip", 1, "my-photos"),
        ("Birds of 2024.tar.gz", 1, "birds-of-2024"),
        ("Sites/A/1.jpg", 30, "sites"),
        ("1.jpg", 30, ""),
        ("_äöü.zip", 1, ""),
        ("x" * 300 + ".zip", 1, "x" * 100),
    ],
)
def test_a_name_is_proposed_from_the_folder_or_the_only_file(name: str, count: int, proposed: str) -> None:
    assert images_add_steps.proposed_name({"name": name, "count": count, "bytes": 1}) == proposed


@pytest.mark.parametrize(
    ("chosen", "typed", "error", "focus"),
    [
        (FILES, {}, "Image set: expected a name of at most 100", "add-name"),
        (FILES, {"name": "Not a name"}, "Image set: expected a name of at most 100", "add-name"),
        (None, {"name": "cats"}, "Choose files first, or a folder.", "add-files_choose"),
        (FILES, {"name": "cats", "labels_path": "/x.csv"}, "Labels file on the server: expected", "add-labels_path"),
        (TABLE, {"name": "cats", "folder": "/x"}, "Labels file: expected your own files", "add-labels_choose"),
    ],
)  # fmt: skip
def test_an_incomplete_request_is_refused_at_the_control_that_it_is_about(
    home: Context, chosen: Any, typed: dict[str, str], error: str, focus: str
) -> None:
    before = job_queries.count_jobs(home.ledger)
    dialog = Dialog()
    if chosen:
        dialog("chosen", chosen)
    state = dialog("form", **typed)
    assert state.step == "choosing"
    assert state.error.startswith(error)
    assert dialog.outputs["focus"]["id"] == focus
    assert dialog.outputs["shown"]["choosing_problem"].children == state.error
    assert dialog.outputs["shown"]["looking_problem"] is None
    assert job_queries.count_jobs(home.ledger) == before


@pytest.mark.usefixtures("home")
def test_a_file_that_is_no_table_is_refused_and_the_table_before_it_stays() -> None:
    dialog = Dialog()
    dialog("chosen", TABLE)
    wrong = {"number": 3, "labels": {"number": 1, "name": "cats.zip", "size": 9}}
    state = dialog("chosen", wrong)
    assert state.error == (
        "Labels file: expected .csv, .tsv, .txt, .json, .jsonl, .ndjson, .parquet, got “cats.zip”."
    )
    assert state.labels == TABLE["labels"]
    assert dialog("labels_remove").labels is None


@pytest.mark.usefixtures("home")
def test_the_browser_is_told_what_the_server_lacks() -> None:
    dialog = Dialog()
    dialog("chosen", FILES)
    assert dialog.outputs["proposed"] == "cats"
    dialog("chosen", TABLE)
    assert dialog.outputs["proposed"] is no_update
    assert dialog("form", name="cats").step == "sending"
    assert dialog.outputs["send"] == {
        "upload": None, "labels": 0, "unit": "bytes", "unit_bytes": 1, "number": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("home")
def test_a_choice_counts_even_if_the_answer_to_it_was_lost() -> None:
    dialog = Dialog()
    dialog("chosen", FILES, answered=False)
    assert dialog("form", name="cats").step == "sending"


def test_an_upload_is_previewed_imported_and_its_set_indexed(home: Context) -> None:
    dialog = importing(home, preview=True)
    assert dialog.outputs["shown"]["poll"] is False
    assert dialog.tick().step == "previewing"
    assert dialog.outputs["words"] == "waiting for a worker"
    assert dialog.outputs["shown"]["doing"] is no_update
    job = job_queries.job(home.ledger, dialog.state.job)
    assert (job["kind"], job["image_set"], job["parameters"]["preview"]) == ("import", "cats", True)
    finish(home, dialog.state.job)
    state = dialog.tick()
    assert (state.step, state.previewed) == ("previewed", state.job)
    assert dialog.outputs["shown"]["poll"] is True
    assert dialog("import", class_level="x").error.startswith("class_level: expected a whole number")
    state = dialog("import", class_level="-1", label_column="animal")
    assert state.step == "importing"
    job = job_queries.job(home.ledger, state.job)
    assert job["parameters"]["words"] == {"class_level": -1, "label_column": "animal"}
    finish(home, state.job)
    state = dialog.tick()
    assert (state.step, state.imported, state.upload) == ("imported", state.job, None)
    assert dialog.outputs["focus"]["id"] == "add-model"
    # no worker has made the set: the error leads back to the choice of the model
    state = dialog("index_form")
    assert state.step == "imported"
    assert "cats" in state.error


def test_an_index_that_was_asked_for_in_the_other_dialog_is_followed_to_its_end(home: Context) -> None:
    dialog = Dialog()
    state = dialog("index_set", {"set": "painted"})
    assert (state.step, state.name) == ("imported", "painted")
    assert dialog.outputs["is_open"] is True
    assert dialog.outputs["model"] == "efficientnet-lite0"
    assert dialog.typed["name"] == "painted"
    assert dialog.outputs["focus"]["id"] == "add-model"
    state = dialog("index_form")
    assert state.step == "indexing", state.error
    finish(home, state.job)
    assert dialog.tick().step == "indexed"
    assert dialog.outputs["links"]["show_patches"] == "/?model=efficientnet-lite0&images=painted"
    assert dialog("show_patches").step == "indexed"
    assert dialog.outputs["is_open"] is False
    assert dialog("opened").step == "choosing"
    assert dialog.typed["name"] == ""


def test_a_failed_or_cancelled_job_leads_back_with_its_reason(home: Context) -> None:
    dialog = importing(home)
    dialog("cancel")
    assert dialog.outputs["cancel"] is True
    assert job_queries.job(home.ledger, dialog.state.job)["state"] == "cancelled"
    state = dialog.tick()
    assert (state.step, state.error) == ("choosing", f"Job {state.job} was cancelled.")
    # what was sent is kept: a second try sends nothing
    state = dialog("form")
    assert state.step == "importing"
    claim = claimed(home.ledger, state.job)
    item = claims.open_items(home.ledger, claim)[0]["item"]
    claims.fail_item(home.ledger, claim, item, seconds=1, error="no image in it")
    claims.finish(home.ledger, claim)
    state = dialog.tick()
    assert (state.step, state.error) == ("choosing", "no image in it")


def test_an_upload_that_expired_is_sent_again(home: Context) -> None:
    dialog = importing(home, preview=True)
    finish(home, dialog.state.job)
    dialog.tick()
    UploadStore(home.settings).remove(str(dialog.state.upload))
    state = dialog("import")
    assert (state.step, state.upload) == ("previewed", None)
    assert state.error.startswith("there is no upload")
    assert dialog("import").step == "sending"


@pytest.mark.usefixtures("home")
def test_a_stopped_or_failed_sending_leads_back() -> None:
    dialog = Dialog()
    dialog("chosen", FILES)
    dialog("form", name="cats")
    state = dialog("sent", {"error": "aborted", "status": 0, "stopped": True})
    assert (state.step, state.error) == ("choosing", "")
    assert dialog.outputs["shown"]["said"] == "The upload was cancelled; nothing was kept."
    dialog("form")
    state = dialog("sent", {"error": "the disk has no room", "status": 507, "stopped": False})
    assert (state.step, state.error) == ("choosing", "the disk has no room")


def test_another_choice_of_files_deletes_what_was_sent(home: Context) -> None:
    dialog = importing(home, preview=True)
    finish(home, dialog.state.job)
    key = dialog.tick().upload
    assert UploadStore(home.settings).files(str(key))
    assert dialog("restart") == Adding(picks=1, sendings=1)
    with pytest.raises(NoSuchUpload):
        UploadStore(home.settings).files(str(key))
    assert dialog.typed["name"] == ""


def test_a_folder_below_an_allowed_root_is_imported_in_place(home: Context) -> None:
    root = home.settings.image_roots[0]
    dialog = Dialog()
    state = dialog("form", name="cats", folder="/etc")
    assert state.error.startswith("folder: expected a folder below")
    state = dialog("preview", folder=str(root / "cats"))
    assert state.step == "previewing"
    assert dialog.outputs["shown"]["relabels_of_files"] is True
    finish(home, state.job)
    dialog.tick()
    state = dialog("import", relabels_path=str(root / "truth.csv"))
    job = job_queries.job(home.ledger, state.job)
    assert job["parameters"] == {
        "image_set": "cats", "source": str(root / "cats"), "folder": str(root / "cats"),
        "labels": str(root / "truth.csv"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (None, None),
        ({"trouble": "", "workers": 1, "broker": True, "queued": 1}, None),
        ({"trouble": "", "workers": 0, "broker": True, "queued": 1}, "No worker is running."),
        ({"trouble": "", "workers": 1, "broker": False, "queued": 1}, "The broker is not reachable."),
        ({"trouble": "locked"}, "The job list cannot be read: locked"),
    ],
)
def test_the_reason_why_a_job_does_not_start_is_named(work: Any, words: str | None) -> None:
    shown = images_add_view.trouble(work)
    assert shown is None if words is None else shown.children.startswith(words)


def test_the_dialog_names_what_depends_on_a_set_before_it_is_deleted(home: Context) -> None:
    outputs = images_manage.open_dialog(1.0, "?images=doomed")
    assert outputs["image_set"] == "doomed"
    assert "4 images, 1 run (synthetic)" in outputs["deleted"]
    assert outputs["deleted"].startswith("This also deletes ")
    assert outputs["confirmed"] == "Type doomed to confirm"
    assert images_manage.delete("doomed", "doom", "?images=doomed")[0] == "Expected doomed, got “doom”."
    assert home.catalogue().newest_set("doomed") == "doomed"
    done = images_manage.delete("doomed", "doomed", "?images=doomed&model=synthetic&view=table")
    assert done[:3] == ("", False, "?view=table")
    outputs = images_manage.open_dialog(2.0, "?images=doomed")
    assert (outputs["hidden"], outputs["is_open"]) == (True, True)
    assert outputs["what"] == "There is no image set “doomed”."


@pytest.mark.usefixtures("home")
def test_a_set_is_described_and_renamed() -> None:
    assert images_manage.save_description("stripes", " Stripes. ") == ("Saved.", "Stripes.")
    assert images_manage.open_dialog(1.0, "?images=stripes")["description"] == "Stripes."
    with pytest.raises(InvalidRequest, match="at most 10,000 characters"):
        images_manage.save_description("stripes", "x" * 10_001)
    with pytest.raises(InvalidRequest, match="The name is already stripes"):
        images_manage.rename("stripes", "stripes", "?images=stripes")
    answer, is_open, search = images_manage.rename("stripes", "bars", "?images=stripes&view=table")
    assert (answer, is_open) == ("", False)
    assert search == "?images=bars&view=table"
    assert images_manage.open_dialog(2.0, search)["image_set"] == "bars"


def test_saved_queries_that_name_the_set_are_listed() -> None:
    assert images_manage.saved_queries({"queries": []}) == ""
    assert (
        images_manage.saved_queries({"queries": ["a"]})
        == "1 saved query names the set (a) and is not changed."
    )
    assert images_manage.saved_queries({"queries": ["a", "b"]}) == (
        "2 saved queries name the set (a, b) and are not changed."
    )  # fmt: skip
