"""The SQL page in a real browser, on a real server."""

import contextlib
import csv
import http.client
import io
import json
import select
import urllib.parse
import urllib.request

import duckdb
import pytest
from browser import served, until
from playwright.sync_api import Browser, Page, expect
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.settings import Settings, read_settings
from db.sql.examples import EXAMPLES

EDITOR = ".sql-editor .cm-content"
ROWS = "#sql-grid .ag-center-cols-container .ag-row"
# Long-running and small: the side that is kept in memory has 100,000 rows.
BOMB = "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE a.range * b.range = -1"


def opened(page: Page, site: str, sql: str = "", **more: str) -> None:
    page.goto(f"{site}/sql?" + urllib.parse.urlencode({"q": sql, **more} if sql else more))
    expect(page.locator(EDITOR)).to_be_attached(timeout=90_000)


def write(page: Page, sql: str) -> None:
    page.locator(EDITOR).focus()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(sql)
    page.keyboard.press("Escape")  # dismiss the editor's completions


def status(page: Page) -> str:
    return page.locator(".sql-status").inner_text()


def test_a_written_statement_is_run_and_its_link_shows_the_same_to_somebody_else(
    page: Page, site: str, browser: Browser
) -> None:
    opened(page, site)
    write(page, "SELECT image_id, label FROM images WHERE image_id < $below ORDER BY image_id DESC")
    page.get_by_label("$below").fill("7")
    page.keyboard.press("Enter")
    expect(page.locator(ROWS)).to_have_count(7)
    assert page.locator(ROWS).first.locator(".ag-cell").first.inner_text() == "6"
    assert status(page).startswith("7 rows · 2 columns")
    assert "p.below=7" in page.url
    other = browser.new_context().new_page()
    other.goto(page.url)
    expect(other.locator(ROWS)).to_have_count(7)
    expect(other.get_by_label("$below")).to_have_value("7")
    other.context.close()
    page.get_by_label("$below").fill("3")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(ROWS)).to_have_count(3)
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(7)
    expect(page.get_by_label("$below")).to_have_value("7")


def test_the_keyboard_alone_writes_completes_and_runs(page: Page, site: str) -> None:
    opened(page, site)
    page.locator(EDITOR).focus()
    expect(page.locator(EDITOR)).to_have_attribute("aria-label", "SQL statement")
    page.keyboard.type("SELECT count(*) AS n, max(rf_size_y) FROM layers WHERE rf_si", delay=30)
    expect(page.locator(".cm-tooltip-autocomplete")).to_contain_text("rf_size_y")
    page.wait_for_timeout(
        100
    )  # CodeMirror's list ignores keys during its first 75 ms, lest they were meant for the text
    page.keyboard.press("Enter")
    page.keyboard.type(" > 0")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    expect(page.locator(ROWS)).to_have_count(1)
    assert "rf_size" in urllib.parse.unquote_plus(page.url).split("WHERE")[1]


def test_rows_are_sorted_and_filtered_in_the_grid(page: Page, site: str) -> None:
    opened(page, site, "SELECT image_id, label FROM images WHERE image_id < 30 ORDER BY image_id")
    expect(page.locator(ROWS).first).to_be_visible()
    header = page.locator("#sql-grid .ag-header-cell-text", has_text="image_id")
    header.click()
    header.click()
    expect(page.locator(f"{ROWS}[row-index='0'] .ag-cell").first).to_have_text("29")


def cells(page: Page, column: int) -> list[str]:
    """Return what the grid shows in a column, from the first row down."""
    found = page.locator(f"{ROWS} .ag-cell[aria-colindex='{column + 1}']")
    return [found.nth(row).inner_text() for row in range(found.count())]


def test_another_question_brings_its_own_columns(page: Page, site: str) -> None:
    opened(page, site, "SELECT range AS a FROM range(3) ORDER BY a")
    expect(page.locator(ROWS)).to_have_count(3)
    header = page.locator("#sql-grid .ag-header-cell-text")
    header.click()
    header.click()
    expect(page.locator(f"{ROWS}[row-index='0'] .ag-cell")).to_have_text("2")
    write(page, "SELECT unnest(['tench', 'a cat', '-']) AS a")
    page.keyboard.press("Control+Enter")
    expect(page.locator(f"{ROWS}[row-index='0'] .ag-cell")).to_have_text("tench")
    assert cells(page, 0) == ["tench", "a cat", "-"], (
        "in the order of the answer, not sorted as the one before"
    )
    write(
        page,
        "SELECT unnest(['nan', 'inf', '0.5']::DOUBLE[]) AS a, 170141183460469231731687303715884105727 AS b",
    )
    page.keyboard.press("Control+Enter")
    expect(page.locator(f"{ROWS}[row-index='2'] .ag-cell").first).to_have_text("0.5")
    assert cells(page, 0) == ["NaN", "Infinity", "0.5"]
    assert cells(page, 1) == ["170141183460469231731687303715884105727"] * 3


def test_what_is_wrong_is_said_in_a_sentence_and_the_page_goes_on(browser: Browser, site: str) -> None:
    page = browser.new_context().new_page()  # the `page` fixture fails its test on a 400 response
    opened(page, site)
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert").filter(has_text="Write a statement first")).to_be_visible()
    for sql, sentence in (
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv() is refused"),
        ("SELECT nothing FROM images", "nothing"),
        ("DELETE FROM images", "only reading is allowed"),
    ):
        write(page, sql)
        page.get_by_role("button", name="Run").click()
        expect(page.locator(".sql-failed")).to_contain_text(sentence)
    write(page, "SELECT 41 + 1 AS answer")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.locator(".sql-failed")).to_have_count(0)
    page.context.close()


def test_a_long_query_is_cancelled_and_its_process_ends(page: Page, site: str) -> None:
    opened(page, site, BOMB)
    expect(page.get_by_text("Running…")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".sql-failed")).to_contain_text("Cancelled after")
    expect(page.get_by_role("button", name="Run")).to_be_enabled()
    write(page, "SELECT 1 AS one")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(ROWS)).to_have_count(1)


def test_pages_answer_while_every_place_for_queries_is_taken_by_a_bomb(
    page: Page, filled_home: Settings
) -> None:
    with served(filled_home, CONVSCOPE_SQL_SECONDS="300") as site:
        with contextlib.ExitStack() as bombs:
            others = [
                bombs.enter_context(
                    contextlib.closing(http.client.HTTPConnection(urllib.parse.urlsplit(site).netloc))
                )
                for _ in range(3)
            ]
            for other in others:
                other.request("GET", "/api/sql?" + urllib.parse.urlencode({"q": BOMB}))
            page.goto(f"{site}/images")
            expect(page.locator(".thumbnails img").first).to_be_visible()
            page.goto(site)
            expect(page.locator(".channel-row.loaded").first).to_be_visible()
            running = [select.select([other.sock], [], [], 0)[0] == [] for other in others]
            assert all(running), "the bombs still run"
        opened(page, site, "SELECT 1 AS one")  # clients that left gave up their places
        expect(page.locator(ROWS)).to_have_count(1)
        page.goto("about:blank")  # before its server stops


def test_the_pickers_fill_model_and_images(page: Page, site: str) -> None:
    opened(
        page, site, "SELECT DISTINCT model, image_set FROM runs WHERE model = $model AND image_set = $images"
    )
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.get_by_label("$model")).to_have_value("synthetic")
    expect(page.get_by_label("$images")).to_have_value("painted")
    assert "p.model" not in page.url


def test_an_example_fills_its_parameters_and_shows_pictures_and_a_chart(page: Page, site: str) -> None:
    opened(page, site)
    page.locator(".sql-starts").get_by_role("button", name="Top-activating images of a channel").click()
    cards = page.locator(".sql-cards img")
    expect(cards).to_have_count(20)
    cards.first.scroll_into_view_if_needed()
    until(page, "document.querySelector('.sql-cards img').naturalWidth > 0")
    assert "/channel?" in str(page.locator(".sql-cards a").first.get_attribute("href"))
    layer = page.get_by_label("$layer").input_value()
    assert layer
    assert f"p.layer={layer}" in page.url
    page.get_by_role("tab", name="Chart").click()
    page.get_by_label("x", exact=True).select_option("rank")
    page.get_by_label("y", exact=True).select_option("activation")
    page.get_by_label("Kind").select_option("line")
    expect(page.locator("#sql-figure .scatterlayer .point")).to_have_count(20)
    drawn = page.evaluate("document.querySelector('#sql-figure .js-plotly-plot').data[0].y")
    page.get_by_role("tab", name="Chart").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="Table", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator(ROWS)).to_have_count(20)
    sql = next(one.sql for one in EXAMPLES if one.title == "Top-activating images of a channel")
    values = {"p.model": "synthetic", "p.images": "painted", "p.layer": layer, "p.channel": "0"}
    with urllib.request.urlopen(f"{site}/api/sql?" + urllib.parse.urlencode({"q": sql, **values})) as answer:
        rows = json.load(answer)["rows"]
    assert drawn == [row[1] for row in rows]


def test_a_query_is_saved_found_replaced_and_forgotten(
    page: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("saved"))})
    import_pictures(settings, painted_pictures(8), image_set="painted")
    add_run(settings, image_set="painted")
    with served(settings) as url:
        _save(page, url, "SELECT 1 AS one", "My <b>numbers</b>", "What they are")
        expect(page.locator(".sql-saved")).to_have_count(1)
        expect(page.locator(".sql-saved")).to_contain_text("My <b>numbers</b>What they are")
        write(page, "SELECT 2 AS two")
        page.get_by_role("button", name="Save…").click()
        page.get_by_label("Name").fill("My <b>numbers</b>")
        page.get_by_role("dialog").get_by_role("button", name="Replace").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        opened(page, url)
        page.get_by_role("tab", name="Saved").click()
        page.locator(".sql-saved .sql-item").click()
        expect(page.locator(f"{ROWS} .ag-cell")).to_have_text("2")
        page.get_by_role("tab", name="Saved").click()
        page.get_by_role("button", name="Delete My").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.locator(".sql-side")).to_contain_text("Nothing is saved yet")
        page.goto("about:blank")  # it would query a server that has stopped


def _save(page: Page, url: str, sql: str, name: str, description: str) -> None:
    opened(page, url)
    write(page, sql)
    page.get_by_role("button", name="Save…").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Description").fill(description)
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_tables_and_columns_are_explained_and_inserted(page: Page, site: str) -> None:
    opened(page, site)
    page.get_by_role("tab", name="Tables").click()
    counted = page.locator(".sql-table summary", has=page.get_by_text("images", exact=True))
    expect(counted.locator("small")).to_have_text("60")
    counted.click()
    expect(page.locator(".sql-table[open]")).to_contain_text("Number within the set")
    page.locator(".sql-table[open]").get_by_role("button", name="image_id", exact=True).click()
    expect(page.locator(EDITOR)).to_have_text("image_id")


def test_the_whole_result_is_taken_away_and_a_label_of_html_or_a_formula_is_text(
    page: Page, site: str
) -> None:
    sql = "SELECT label, '=1+1' AS formula FROM images WHERE label LIKE '<b>%' LIMIT 1"
    opened(page, site, sql)
    expect(page.locator(f"{ROWS} .ag-cell").first).to_have_text("<b>tench</b> & co")
    assert page.locator("#sql-grid b").count() == 0
    with page.expect_download() as found:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.reader(io.StringIO(found.value.path().read_text())))
    assert rows[1][0] == "<b>tench</b> & co"
    assert rows[1][1] == "=1+1"
    with page.expect_download() as found:
        page.get_by_role("link", name="Parquet").click()
    read = duckdb.connect().execute("SELECT * FROM read_parquet(?)", [str(found.value.path())]).fetchall()
    assert read == [("<b>tench</b> & co", "=1+1")]


def test_explain_shows_the_plan(page: Page, site: str) -> None:
    opened(page, site, "SELECT count(*) FROM images")
    expect(page.locator(ROWS)).to_have_count(1)
    page.get_by_role("button", name="Explain").click()
    expect(page.locator(".sql-plan")).to_contain_text("─")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(ROWS)).to_have_count(1)


def test_the_sql_of_a_page_opens_and_runs(page: Page, filled_home: Settings, site: str) -> None:
    assert filled_home.home.exists()
    for path in ("/", "/images", "/channel?channel=3", "/image?id=2"):
        page.goto(f"{site}{path}")
        link = page.get_by_role("link", name="Open in SQL").first
        expect(link).to_be_visible()
        link.click()
        expect(page.locator(ROWS).first).to_be_visible()
        assert page.url.split("?")[0].endswith("/sql")


def test_on_a_phone_the_result_is_scrolled_to(phone: Page, site: str) -> None:
    opened(phone, site)
    phone.locator(".sql-starts").get_by_role("button", name="Classes of an image set").click()
    expect(phone.locator("#sql-figure .bars path").first).to_be_in_viewport()
    until(phone, "document.documentElement.scrollWidth <= innerWidth")  # once the chart has its size
