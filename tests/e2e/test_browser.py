"""The dashboard as a user sees it: a real page on a real server."""

import re
import time
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest
from browser import hold, served, settled, until
from playwright.sync_api import Browser, Page, Route, expect
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.pictures.geometry import placement, read_layer_geometry, read_preprocessing
from db.atlas.store import Atlas, Query
from db.queries.inventory import layers, runs
from db.settings import Settings
from db.stores.decoding import read_rgb
from db.stores.images import ImageStore

pytestmark = pytest.mark.browser
TAP = """(layer) => document.getElementById("patches-drawing")._cyreg.cy.nodes()
    .filter((node) => node.data("layer") === layer).renderedPosition()"""
RUN = {"model": "synthetic", "images": "painted"}


def ready(page: Page) -> None:
    """Wait until every row is painted."""
    page.wait_for_selector("#patches-grid[data-painted]")


def asked(page: Page) -> dict[str, str]:
    """Return the parameters in the URL."""
    return {name: values[-1] for name, values in parse_qs(urlsplit(page.url).query).items()}


def click_layer(page: Page, layer: str) -> None:
    """Click a layer where it is drawn, with the mouse."""
    until(
        page,
        "(layer) => document.getElementById('patches-drawing')?._cyreg?.cy.nodes()"
        ".filter((node) => node.data('layer') === layer).length",
        layer,
    )
    place = page.evaluate(TAP, layer)
    page.locator("#patches-drawing").click(position={"x": place["x"], "y": place["y"]})


def test_a_click_on_a_layer_shows_the_right_patches(page: Page, site: str, filled_home: Settings) -> None:
    """Pixels of the cells on screen against the same regions of the original files."""
    layer, channel = "stage1.block2.dwconv", 3
    page.goto(site)
    ready(page)
    click_layer(page, layer)
    expect(page.locator("h1")).to_have_text("stage 1 › block 2 › dwconv")
    assert asked(page)["layer"] == layer
    ready(page)
    atlas, store = Atlas(filled_home), ImageStore(filled_home)
    run = atlas.fetch(runs())[0]
    described = next(row for row in atlas.fetch(layers(run["model"])) if row["layer"] == layer)
    geometry, preprocessing = read_layer_geometry(described, run), read_preprocessing(run)
    rows = atlas.fetch(
        Query(
            "SELECT a.rank, a.y, a.x, i.path FROM activations a JOIN images i USING (image_id) "
            "WHERE layer = $layer AND channel = $channel ORDER BY rank",
            {"layer": layer, "channel": channel},
        )
    )
    compared = 0
    for row in rows[:10]:
        box = geometry.field(row["y"], row["x"])
        if min(box) < 0 or max(box) > 224:
            continue
        cell = page.locator(f"[aria-label='channel {channel}'] .cell").nth(row["rank"] - 1)
        shot = cv2.imdecode(np.frombuffer(cell.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert shot is not None
        original = np.asarray(read_rgb(store.original_path(row["path"]).read_bytes()))[:, :, ::-1]
        where = placement(preprocessing, original.shape[:2], original.shape[:2])
        y0, x0, y1, x1 = (round(edge) for edge in where.box(box))
        region = cv2.resize(original[y0:y1, x0:x1], shot.shape[1::-1], interpolation=cv2.INTER_AREA)
        inner = (slice(8, -8), slice(8, -8))
        assert np.abs(shot[inner].astype(int) - region[inner]).mean() < 16
        compared += 1
    assert compared >= 5


def test_back_and_a_copied_link_show_the_same_view(page: Page, site: str) -> None:
    page.goto(f"{site}/?layer=stage2.block1.dwconv")
    ready(page)
    page.locator("#patches-k").select_option("4")
    expect(page.locator(".channel-row").first.locator(".cell")).to_have_count(4)
    page.locator("#patches-sort").select_option("strongest")
    page.wait_for_url(re.compile("sort=strongest"))
    page.locator("#patches-channels").fill("2,5")
    page.locator("#patches-channels").press("Enter")
    expect(page.locator(".channel-row")).to_have_count(2)
    page.locator("#patches-crop").select_option("image")
    page.wait_for_url(re.compile("crop=image"))
    assert asked(page) == RUN | {
        "layer": "stage2.block1.dwconv", "k": "4", "sort": "strongest", "channels": "2,5", "crop": "image",
    }  # fmt: skip
    ready(page)
    link, shown = page.url, page.locator("#patches-grid").text_content()
    other = page.context.new_page()
    other.goto(link)
    ready(other)
    assert other.locator("#patches-grid").text_content() == shown
    assert other.locator("#patches-crop").input_value() == "image"
    assert other.url == link
    page.go_back()
    page.go_back()
    expect(page.locator("#patches-channels")).to_have_value("")
    expect(page.locator(".channel-row")).to_have_count(12)
    page.go_back()
    expect(page.locator("#patches-sort")).to_have_value("index")
    page.go_back()
    expect(page.locator("#patches-k")).to_have_value("10")
    expect(page.locator(".channel-row").first.locator(".cell")).to_have_count(10)


def test_an_answer_for_a_page_that_was_left_does_not_change_the_address(page: Page, site: str) -> None:
    page.goto(f"{site}/images")
    expect(page.locator("a[href*='/image?']").first).to_be_visible()
    held, is_choice = hold(page, "images-sort.value")
    with page.expect_request(is_choice):
        page.locator("#images-sort").select_option("name")
    page.locator("a[href*='/image?']").first.click()
    expect(page.locator("h1")).to_contain_text("image")
    with page.expect_response(lambda answer: is_choice(answer.request)) as answer:
        held[0].continue_()
    assert "sort=name" in answer.value.text()
    page.wait_for_timeout(500)
    assert "/image?" in page.url
    assert "sort=" not in page.url


def test_a_patch_leads_to_its_image_and_on_to_a_channel(page: Page, site: str) -> None:
    page.goto(f"{site}/?layer=stage2.block1.dwconv")
    ready(page)
    cell = page.locator(".channel-row").nth(1).locator(".cell").nth(2)
    words = cell.get_attribute("aria-label") or ""
    number = re.search(r"image (\d+)", words)
    assert number is not None
    cell.click()
    expect(page.locator("h1")).to_contain_text(f"image {number[1]}")
    expect(page.locator(".prediction").first).to_contain_text("synthetic")
    page.locator(".driven", has_text="stage 2 › block 1 › dwconv").locator(".chip").first.click()
    expect(page.locator("h1")).to_contain_text("Channel")
    expect(page.locator(".crumb")).to_have_text("stage 2 › block 1 › dwconv")
    page.get_by_role("link", name="Effective field").click()
    expect(page.locator(".segment.on")).to_have_text("Effective field")
    page.locator(".crumb").click()
    ready(page)
    assert asked(page)["layer"] == "stage2.block1.dwconv"
    expect(page.locator("#patches-crop")).to_have_value("effective")


def test_hovering_tells_all_and_labels_are_text(page: Page, site: str) -> None:
    page.goto(f"{site}/?layer=embeddings&k=20")
    ready(page)
    cell = page.locator(".cell[aria-label*='<b>tench</b> & co']").first
    cell.hover()
    tip = page.get_by_role("tooltip")
    for words in ("<b>tench</b> & co", "rank", "activation", "class", "WNID", "n10000000", "image", "position",
                  "field", "effective"):  # fmt: skip
        expect(tip).to_contain_text(words)
    assert tip.locator("dl b").count() == 0
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_the_keyboard_reaches_layers_controls_and_patches(page: Page, site: str) -> None:
    page.goto(site)
    ready(page)
    page.locator("#patches-layer").focus()
    page.keyboard.type("stage4.block3.pwconv2")
    options = page.get_by_role("listbox", name="Layers").get_by_role("option")
    expect(options).to_have_count(1)
    expect(options.first).to_contain_text("stage 4 > block 3 > pwconv2")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"layer=stage4\.block3\.pwconv2"))
    ready(page)
    page.get_by_role("button", name="Previous layer").press("Enter")
    page.wait_for_url(re.compile(r"layer=stage4\.block3\.pwconv1"))
    ready(page)
    first = page.locator(".cell[tabindex='0']")
    expect(first).to_have_count(1)
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".channel-row").nth(1).locator(".cell").nth(1)).to_be_focused()
    expect(page.get_by_role("tooltip")).to_contain_text("rank 2")
    page.evaluate("window.scrollBy(0, 20)")  # moving the focus scrolls, too: the tooltip stays with the cell
    top = settled(page, page.get_by_role("tooltip"))
    cell = page.evaluate(
        "(({ top, bottom }) => [top, bottom])(document.activeElement.getBoundingClientRect())"
    )
    height = page.get_by_role("tooltip").evaluate("tip => tip.getBoundingClientRect().height")
    assert min(abs(top - cell[1] - 8), abs(top + height + 8 - cell[0])) <= 1
    page.keyboard.press("End")
    expect(page.locator(".channel-row").nth(1).locator(".cell").last).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/image\?"))
    expect(page.locator("h1")).to_contain_text("image")


def test_back_leads_to_the_place_that_was_left_and_pages_name_themselves(page: Page, site: str) -> None:
    page.goto(f"{site}/?layer=stage2.block1.dwconv")
    ready(page)
    expect(page).to_have_title(re.compile("dwconv.* · Convscope"))
    page.evaluate("scrollTo(0, 400)")
    page.wait_for_timeout(200)
    place = page.evaluate("scrollY")
    assert place > 200
    page.locator(".channel-row").nth(7).locator("a.channel").click()
    expect(page.locator("h1")).to_contain_text("Channel")
    expect(page.locator("h1")).to_be_focused()
    expect(page).to_have_title(re.compile("[Cc]hannel.* · Convscope"))
    page.go_back()
    ready(page)
    until(page, "(place) => Math.abs(scrollY - place) < 3", place)


def test_the_same_records_leave_the_focus_where_it_is(page: Page, site: str) -> None:
    page.goto(f"{site}/?layer=embeddings")
    ready(page)
    cell = page.locator(".channel-row").nth(1).locator(".cell").nth(2)
    cell.focus()
    with page.expect_response("**/_dash-update-component**"):
        page.evaluate("dash_clientside.set_props('shell-status', {data: {version: 'another'}})")
    page.wait_for_timeout(500)
    expect(cell).to_be_focused()


def test_a_finger_sees_what_a_patch_is_before_it_opens_the_image(browser: Browser, site: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{site}/?layer=embeddings")
    ready(page)
    cell = page.locator(".channel-row").first.locator(".cell").nth(1)
    cell.tap()
    sheet = page.locator("#tip.sheet")
    expect(sheet).to_contain_text("rank 2")
    expect(sheet).to_contain_text("activation")
    sheet.get_by_role("button", name="Close").tap()
    expect(sheet).to_be_hidden()
    cell.tap()
    sheet.get_by_role("link", name="Open image").tap()
    page.wait_for_url(re.compile(r"/image\?"))
    expect(sheet).to_be_hidden()
    context.close()


def test_a_server_that_is_gone_is_said(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}/?layer=embeddings")
    ready(page)
    notice = page.get_by_text("Convscope does not answer")
    expect(notice).to_have_count(0)
    page.route("**/status.json", lambda route: route.fulfill(status=500))
    expect(notice).to_be_visible()
    page.unroute("**/status.json")
    expect(notice).to_have_count(0)
    page.close()


def test_next_counts_from_the_address_on_a_slow_line(page: Page, site: str) -> None:
    page.goto(f"{site}/?layer=embeddings")
    ready(page)

    def later(route: Route) -> None:
        time.sleep(0.4)
        route.continue_()

    page.route("**/_dash-update-component**", later)
    following = page.get_by_role("button", name="Next layer")
    for _ in range(3):
        following.click()
    page.wait_for_url(re.compile(r"layer=stage1\.block1\.pwconv2"))


def test_next_counts_on_where_the_address_has_not_followed(page: Page, site: str) -> None:
    """Two clicks before the first has reached the address, as on a busy machine."""
    page.goto(f"{site}/?layer=embeddings")
    ready(page)
    layers = page.evaluate("""() => {
        const here = dash_clientside.convscope;
        const options = ["a", "b", "c", "d"].map((value) => ({ value }));
        const next = (search) => {
            dash_clientside.callback_context = { triggered: [{ prop_id: "patches-next.n_clicks" }] };
            return here.layerAddress(null, 0, 1, options, { layer: "a" }, search);
        };
        here.subject("/", "?layer=a", null);
        const found = [next("?layer=a"), next("?layer=a")];
        here.subject("/", "?layer=a", null); // Back: the address is another
        return [...found, next("?layer=a")];
    }""")
    assert layers == ["?layer=b", "?layer=c", "?layer=b"]


def test_a_slash_finds_a_layer(page: Page, site: str) -> None:
    page.goto(site)
    ready(page)
    page.keyboard.press("/")
    expect(page.get_by_role("combobox", name="Layer")).to_be_focused()
    expect(page.get_by_role("listbox", name="Layers").get_by_role("option")).to_have_count(58)


def test_enter_opens_the_layer_whose_name_was_typed(page: Page, site: str) -> None:
    """Typed at full speed, with words of which other layers match parts: "block 1 > pwconv2" contains a 2 as well."""
    page.goto(f"{site}/?layer=embeddings")
    ready(page)
    page.evaluate("""() => {
        const draw = dash_clientside.convscope.drawLayers;
        dash_clientside.convscope.drawLayers = (...given) => { window.drawnLayers = given; return draw(...given); };
    }""")
    field = page.get_by_role("combobox", name="Layer")
    options = page.get_by_role("listbox", name="Layers").get_by_role("option")
    for typed, layer in (
        ("stage 3 > block 2", "stage3.block2.dwconv"),
        ("block 2 > dw", "stage1.block2.dwconv"),
        ("Stage 4 block 1 pwconv1", "stage4.block1.pwconv1"),
        ("embedding", "embeddings"),
    ):
        field.focus()
        page.keyboard.type(typed)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(rf"layer={layer}$"))
        ready(page)
        expect(options).to_have_count(0)
    field.focus()
    page.keyboard.type("stage 2 > block 1")
    page.keyboard.press("ArrowDown")
    # the options are redrawn in between
    page.evaluate("dash_clientside.convscope.drawLayers(...window.drawnLayers)")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"layer=stage2\.block1\.pwconv2$"))
    field.focus()
    page.keyboard.type("stage 9")
    expect(page.get_by_text("No matching layer in this model.")).to_be_visible()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(field).to_have_value("stage 2 > block 1 > pwconv2")
    page.keyboard.press("ArrowDown")  # opens the list at the current layer
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"layer=stage2\.block2\.dwconv$"))
    field.click()
    page.get_by_role("option", name="patch embedding").click()
    page.wait_for_url(re.compile(r"layer=embeddings$"))


@pytest.mark.parametrize(
    "path",
    ["/?layer=stage2.block1.dwconv&k=20", "/?tile=192", "/channel?layer=stage2.block1.dwconv&channel=2", "/images",
     "/images?view=table", "/image?id=4", "/?layer=nope", "/nowhere"],
)  # fmt: skip
def test_nothing_is_wider_than_a_phone(phone: Page, site: str, path: str) -> None:
    phone.goto(site + path)
    phone.wait_for_selector("h1, .message")
    phone.wait_for_load_state("networkidle")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_theme_follows_the_system_and_then_the_person(browser: Browser, site: str) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(site)
    ready(page)
    root = page.locator("html")
    expect(root).to_have_attribute("data-bs-theme", "dark")
    page.get_by_role("button", name="Switch between light and dark theme").click()
    expect(root).to_have_attribute("data-bs-theme", "light")
    page.reload()
    expect(root).to_have_attribute("data-bs-theme", "light")
    context.close()


def test_channels_that_cannot_be_read_get_a_sentence_and_no_crash(page: Page, site: str) -> None:
    page.goto(site)
    ready(page)
    field = page.locator("#patches-channels")
    field.fill("3-")
    field.press("Enter")
    problem = page.locator("#patches-problem")
    expect(problem).to_have_text("Expected a range such as 0-29 or a list such as 5, 17, got “3-”.")
    field.fill("3")
    field.press("Enter")
    expect(problem).to_be_hidden()
    expect(page.locator(".channel-row")).to_have_count(1)


def test_a_link_to_a_layer_that_is_not_there_leads_out(page: Page, site: str) -> None:
    page.goto(f"{site}/?layer=nope&k=99")
    expect(page.get_by_role("alert").first).to_contain_text("synthetic has no layer “nope”.")
    page.get_by_role("link", name="Show what there is").click()
    ready(page)
    expect(page.locator("h1")).to_contain_text("dwconv")


def test_images_are_found_filtered_and_turned(page: Page, site: str) -> None:
    page.goto(f"{site}/images")
    expect(page.locator(".thumbnails li")).to_have_count(60)
    page.locator("#images-verdict").select_option("wrong")
    page.wait_for_url(re.compile("verdict=wrong"))
    page.locator("#images-view").select_option("table")
    expect(page.locator("tbody tr").first).to_be_visible()
    page.locator("#images-search").fill("kind 3")
    page.locator("#images-search").press("Enter")
    page.wait_for_url(re.compile("search=kind"))
    expect(page.locator("tbody tr")).to_have_count(2)
    assert asked(page) == RUN | {"verdict": "wrong", "view": "table", "search": "kind 3"}
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "painted-images.csv"
    page.locator("tbody a").first.click()
    expect(page.locator("h1")).to_contain_text("kind 3")
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(2)


def test_enter_filters_by_the_class_whose_name_was_typed_and_by_no_other(page: Page, site: str) -> None:
    """Typed at full speed: an option is chosen only if it matches the typed text, else nothing is."""
    page.goto(f"{site}/images?view=table&page=2")
    expect(page.locator("tbody tr").first).to_be_visible()
    field = page.get_by_role("combobox", name="Class")
    options = page.get_by_role("listbox", name="Classes").get_by_role("option")
    for typed, label, wnid in (
        ("kind 4", "kind 4", "n10000004"),
        ("KIND3", "kind 3", "n10000003"),
        ("n10000002", "kind 2", "n10000002"),
        ("tench", "<b>tench</b> & co", "n10000000"),
    ):
        field.focus()
        page.keyboard.type(typed)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(f"label={wnid}$"))
        expect(field).to_have_value(label)
        expect(options).to_have_count(0)
        expect(page.locator("tbody td:nth-child(4)").first).to_have_text(label)
        assert "page" not in asked(page)
    field.focus()
    page.keyboard.type("kind 4 or so")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No matching class in this set.")).to_be_visible()
    page.keyboard.press("Tab")
    expect(field).to_have_value("<b>tench</b> & co")
    assert asked(page)["label"] == "n10000000"
    field.focus()
    page.keyboard.press("Delete")  # the whole name is selected
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "label=" not in url)
    expect(field).to_have_value("")
    field.click()
    expect(options.first).to_contain_text("All classes")
    page.get_by_role("option", name="kind 3").first.click()
    page.wait_for_url(re.compile("label=n10000003"))
    page.go_back()
    expect(field).to_have_value("")


def test_sql_is_copied(page: Page, site: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{site}/?layer=embeddings&channels=2")
    ready(page)
    page.get_by_role("button", name="Copy SQL").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    text = page.evaluate("navigator.clipboard.readText()")
    assert "p.layer = 'embeddings' AND p.channel = ANY([2])" in text


def test_an_empty_home_fills_while_one_watches(page: Page, empty_home: Settings) -> None:
    with served(empty_home) as url:
        page.goto(url)
        expect(page.get_by_role("status").first).to_contain_text("nothing published yet")
        expect(page.locator(".message")).to_contain_text("convscope images import")
        import_pictures(empty_home, painted_pictures(12), image_set="twelve")
        expect(page.locator(".message")).to_contain_text("No model was indexed yet")
        add_run(empty_home, image_set="twelve", model="first")
        ready(page)
        expect(page.locator("#shell-corner")).to_contain_text("run 1")
        expect(page).to_have_url(f"{url}/?model=first&images=twelve")
        # the next one would be the default, but does not replace the one that is being viewed
        add_run(empty_home, image_set="twelve", model="second", seed=1)
        expect(page.locator("#shell-model option[value=second]")).to_have_count(1)
        expect(page.locator("#shell-model")).to_have_value("first")
        expect(page.locator("#shell-corner")).to_contain_text("run 1")
        page.go_back()
        expect(page).to_have_url("about:blank")  # the redirect replaced its history entry
        page.go_forward()
        ready(page)
        add_run(empty_home, image_set="twelve", model="first", seed=2)
        expect(page.locator("#shell-corner")).to_contain_text("run 3")
        ready(page)
        page.goto("about:blank")  # or the page would miss its server during shutdown
