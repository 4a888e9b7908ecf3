"""A user's images in the browser: uploaded, imported, indexed, described, renamed, deleted; by mouse and keyboard."""

import io
import json
import os
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from running import Running, get, kill_all, wait

from db.settings import Settings, read_settings

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
PHOTOGRAPHS = 12
Site = tuple[str, Settings]


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> dict[str, bytes]:
    """Return ImageNet photos by path, one per class, downscaled."""
    found = {}
    with tarfile.open(shared_data / "imagenet-sample-1000.tar") as archive:
        members = sorted(member.name for member in archive if member.name.endswith(".JPEG"))
        for name in members[:: len(members) // PHOTOGRAPHS][:PHOTOGRAPHS]:
            file = archive.extractfile(name)
            assert file is not None
            buffer = io.BytesIO()
            picture = Image.open(io.BytesIO(file.read())).convert("RGB")
            picture.thumbnail((300, 300))
            picture.save(buffer, "JPEG")
            found["/".join(name.split("/")[1:])] = buffer.getvalue()
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, small_convnext: Path) -> Iterator[Site]:
    """A dashboard with broker and worker over a home that has images, so that the first run imports nothing."""
    import shutil

    from synthetic_atlas import import_pictures, painted_pictures

    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("uploads") / "home")})
    import_pictures(settings, painted_pictures(4), image_set="painted")
    shutil.copytree(small_convnext, settings.home / "models" / "convnext-tiny")
    command = Running(settings.home, "run", "--port", "0", OMP_NUM_THREADS="2")
    try:
        yield command.wait_for(r"Convscope is at (http://\S+)", seconds=180), settings
    finally:
        command.stop()
        kill_all(settings.home)


@pytest.fixture
def archive(photographs: dict[str, bytes], tmp_path: Path) -> Path:
    """Return a zip of the photos and one file that is not an image."""
    path = tmp_path / "My Photos.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in photographs.items():
            packed.writestr(name, content)
        packed.writestr("broken.jpg", b"no picture")
    return path


def ask(url: str, path: str) -> Any:
    return json.loads(get(url + path))


def opened(page: Page, url: str) -> Locator:
    page.goto(f"{url}/images")
    page.get_by_role("button", name="Add images").click()
    dialog = page.get_by_role("dialog", name="Add images")
    expect(dialog).to_be_visible()
    return dialog


def choose(dialog: Locator, button: str, path: Path) -> None:
    """Choose a file in the browser's own dialog."""
    with dialog.page.expect_file_chooser() as chooser:
        dialog.get_by_role("button", name=button).click()
    chooser.value.set_files(path)


def photographed(page: Page, name: str) -> None:
    """Save a screenshot of the page if the environment asks for it."""
    folder = os.environ.get("CONVSCOPE_TEST_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


def test_a_zip_becomes_a_set_that_is_indexed_and_shows_patches(
    page: Page, running: Site, archive: Path
) -> None:
    url, settings = running
    dialog = opened(page, url)
    photographed(page, "add-empty")
    choose(dialog, "Choose files", archive)
    expect(dialog.get_by_text("My Photos.zip,")).to_be_visible()
    expect(dialog.get_by_label("Image set")).to_have_value("my-photos")
    photographed(page, "add-chosen")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(
        dialog.get_by_text(f"{PHOTOGRAPHS} images added, {PHOTOGRAPHS} with a label, 1 refused")
    ).to_be_visible(timeout=180_000)
    dialog.get_by_text("Refused files (1)").click()
    expect(dialog.get_by_role("cell", name="broken.jpg")).to_be_visible()
    photographed(page, "add-imported")
    assert not list((settings.home / "uploads").iterdir())
    dialog.get_by_label("Index with").select_option("efficientnet-lite0")
    dialog.get_by_role("button", name="Index").click()
    expect(dialog.get_by_text("Indexing my-photos. It continues")).to_be_visible()
    photographed(page, "add-indexing")
    expect(dialog.get_by_text("my-photos is indexed with efficientnet-lite0.")).to_be_visible(timeout=400_000)
    dialog.get_by_role("link", name="Show the patches").click()
    expect(page.locator(".channel-row.loaded").first).to_be_visible(timeout=90_000)
    assert "images=my-photos" in page.url
    page.goto(f"{url}/images?images=my-photos")
    expect(page.locator(".thumbnails li")).to_have_count(PHOTOGRAPHS)
    expect(page.get_by_role("heading", level=1)).to_have_text("my-photos")
    photographed(page, "images-page")
    page.goto(f"{url}/jobs")
    expect(page.locator(".job-name", has_text="Import of images")).to_be_visible()
    card = page.locator(".job-card", has_text="Import of images")
    card.locator(".job-name").click()
    expect(page.get_by_text(f"{PHOTOGRAPHS} images added", exact=False)).to_be_visible()
    expect(page.locator(".job-card", has_text="Index").get_by_role("link", name="Patches")).to_be_visible()
    photographed(page, "jobs")


def test_a_preview_says_what_is_taken_and_takes_what_is_said(
    page: Page, running: Site, photographs: dict[str, bytes], tmp_path: Path
) -> None:
    url, settings = running
    path = tmp_path / "sites.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for number, content in enumerate(photographs.values()):
            packed.writestr(f"site{number % 2}/{'cat' if number % 3 else 'dog'}/{number}.jpg", content)
        packed.writestr("site0/scan.dcm", b"no picture")
    dialog = opened(page, url)
    choose(dialog, "Choose files", path)
    dialog.get_by_role("button", name="Preview", exact=True).click()
    expect(dialog.get_by_text("class from the first folder (2: site0, site1)", exact=False)).to_be_visible(
        timeout=120_000
    )
    expect(dialog.get_by_text("DICOM files (.dcm)", exact=False)).to_be_visible()
    photographed(page, "add-preview")
    dialog.get_by_text("Choose split, class and label").click()
    dialog.get_by_label("Class level").fill("2")
    dialog.get_by_label("Split from").fill("9")
    dialog.get_by_role("button", name="Preview again").click()
    expect(dialog.get_by_role("alert")).to_have_text(
        "level 9: no image is nested that deeply", timeout=120_000
    )
    dialog.get_by_label("Split from").fill("1")
    dialog.get_by_role("button", name="Preview again").click()
    expect(dialog.get_by_text("2 classes: cat", exact=False)).to_be_visible(timeout=120_000)
    expect(dialog.get_by_text("2 splits: site0", exact=False)).to_be_visible()
    # a labels file, previewed against what was already uploaded
    table = tmp_path / "truth.csv"
    table.write_text("file,animal,place\n" + "".join(f"{n}.jpg,owl,here\n" for n in range(PHOTOGRAPHS)))
    choose(dialog, "Choose a labels file", tmp_path / "sites.zip")
    expect(dialog.get_by_role("alert")).to_contain_text("Labels file: expected .csv, .tsv")
    choose(dialog, "Choose a labels file", table)
    for option in ("Class level", "Split from"):
        dialog.get_by_label(option).fill("")
    dialog.get_by_label("Label column").fill("animl")
    dialog.get_by_role("button", name="Preview again").click()
    expect(dialog.get_by_role("alert")).to_have_text(
        "--label-column: truth.csv has no column 'animl': its columns are file, animal, place; "
        "did you mean 'animal'?",
        timeout=120_000,
    )
    dialog.get_by_label("Label column").fill("animal")
    dialog.get_by_role("button", name="Preview again").click()
    expect(dialog.get_by_text(f"column animal of truth.csv ({PHOTOGRAPHS} of", exact=False)).to_be_visible(
        timeout=120_000
    )
    expect(dialog.get_by_text(f"1 class: owl ({PHOTOGRAPHS})")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    photographed(page, "add-preview-phone")
    page.emulate_media(color_scheme="dark")
    photographed(page, "add-preview-phone-dark")
    page.set_viewport_size({"width": 1440, "height": 900})
    photographed(page, "add-preview-dark")
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(dialog.get_by_text("with a label", exact=False)).to_be_visible(timeout=180_000)
    labels = ask(url, "/api/sql?q=SELECT+DISTINCT+label+FROM+images+WHERE+image_set='sites'+ORDER+BY+1")
    assert labels["rows"] == [["owl"]]
    assert not list((settings.home / "uploads").iterdir())


def test_an_upload_that_is_cancelled_leaves_nothing(page: Page, running: Site, tmp_path: Path) -> None:
    url, settings = running
    big = tmp_path / "big.zip"
    big.write_bytes(os.urandom(24 * 2**20))
    before = len(ask(url, "/api/jobs")["jobs"])
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    dialog = opened(page, url)
    session.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 5, "downloadThroughput": -1, "uploadThroughput": 2 * 2**20},
    )
    choose(dialog, "Choose files", big)
    dialog.get_by_label("Image set").fill("cancelled")
    dialog.get_by_role("button", name="Add", exact=True).click()
    wait(
        lambda: any((settings.home / "uploads").glob("*/000000")), seconds=90, what=lambda: "no byte arrived"
    )
    photographed(page, "add-sending")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog.get_by_role("button", name="Add", exact=True)).to_be_visible()
    wait(
        lambda: not list((settings.home / "uploads").iterdir()),
        seconds=60,
        what=lambda: "the upload is there",
    )
    assert len(ask(url, "/api/jobs")["jobs"]) == before
    assert "cancelled" not in [one["image_set"] for one in ask(url, "/api/image_sets")["image_sets"]]


def test_a_folder_is_sent_and_imported_while_the_dialog_is_closed(
    page: Page, running: Site, photographs: dict[str, bytes], tmp_path: Path
) -> None:
    url, _ = running
    folder = tmp_path / "Two Pets"
    for number, content in enumerate(list(photographs.values())[:4]):
        place = folder / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(content)
    dialog = opened(page, url)
    choose(dialog, "Choose a folder", folder)
    expect(dialog.get_by_text("4 files,", exact=False)).to_be_visible()
    expect(dialog.get_by_label("Image set")).to_have_value("two-pets")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Add images")).to_be_focused()
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Images", exact=True).click()
    page.get_by_role("button", name="Add images").click()
    expect(dialog.get_by_text("two-pets: 4 images added, 4 with a label.")).to_be_visible(timeout=180_000)
    dialog.get_by_role("link", name="Show the images").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_have_text("two-pets")
    page.get_by_role("button", name="Manage").click()
    page.get_by_role("button", name="Index with a model").click()
    expect(dialog.get_by_text("two-pets: 4 images.")).to_be_visible()
    expect(dialog.get_by_label("Index with")).to_be_focused()


def test_what_cannot_be_added_is_said_where_it_is_typed_and_by_keyboard_alone(
    page: Page, running: Site, tmp_path: Path
) -> None:
    url, _ = running
    page.goto(f"{url}/images")
    page.get_by_role("button", name="Add images").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Add images")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Add", exact=True).focus()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("Image set: expected a name of at most 100")
    expect(dialog.get_by_label("Image set")).to_be_focused()
    page.keyboard.type("empty-one")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("Choose files first")
    (tmp_path / "note.jpg").write_bytes(b"no picture")
    choose(dialog, "Choose files", tmp_path / "note.jpg")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text(
        "the only image in upload of note.jpg", timeout=90_000
    )
    photographed(page, "add-error")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_set_is_described_renamed_and_deleted_after_its_name_was_typed(page: Page, running: Site) -> None:
    url, _ = running
    page.goto(f"{url}/images?images=painted")
    expect(page.get_by_role("heading", level=1)).to_have_text("painted")

    def manage() -> Locator:
        page.get_by_role("button", name="Manage").click()
        return page.get_by_role("dialog", name="Manage image set")

    dialog = manage()
    expect(dialog.get_by_text("painted: 4 images.")).to_be_visible()
    dialog.get_by_label("What these images are").fill("Painted for a test.")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("Saved.")).to_be_visible()
    photographed(page, "manage")
    dialog.get_by_label("New name").fill("Not a name")
    dialog.get_by_role("button", name="Rename").click()
    expect(dialog.get_by_role("alert").filter(has_text="expected a name of at most 100")).to_be_visible()
    dialog.get_by_label("New name").fill("repainted")
    dialog.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("repainted")
    expect(page.get_by_text("Painted for a test.")).to_be_visible()
    dialog = manage()
    dialog.get_by_role("button", name="Delete permanently").click()
    expect(dialog.get_by_role("alert").filter(has_text="Expected repainted, got")).to_be_visible()
    dialog.get_by_label("Type repainted to confirm").fill("repainted")
    dialog.get_by_role("button", name="Delete permanently").click()
    expect(dialog).to_be_hidden()
    wait(
        lambda: "repainted" not in [one["image_set"] for one in ask(url, "/api/image_sets")["image_sets"]],
        seconds=10,
        what=lambda: "the set is there",
    )
    expect(page.get_by_role("heading", name="repainted")).to_be_hidden()


def test_the_dialogs_fit_a_phone(phone: Page, running: Site) -> None:
    url, _ = running
    dialog = opened(phone, url)
    box = dialog.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    photographed(phone, "phone-add")
    phone.keyboard.press("Escape")
    photographed(phone, "phone-images")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    with urllib.request.urlopen(f"{url}/api/image_sets", timeout=20) as answer:
        assert answer.status == 200
