/* The grid of patches: Python sends records, this renders them, loads the images of rows, describes the
   patch under the pointer or the focus, and moves the focus by arrow keys. */
import { hit, make } from "./base.js";
import { convscope } from "./namespace.js";
import { hideTip, showTip, tip } from "./tip.js";

/** @param {Patch} patch */
const sentence = ({ facts: [[label, rank], ...rest] }) =>
    `${rank}: ${label}, ` + rest.map((pair) => pair.join(" ")).join(", ");

/** @type {WeakMap<Element, Patch>} */
const patches = new WeakMap();
/** @type {WeakMap<Element, string>} */
const drawn = new WeakMap();
const cellOf = (/** @type {Event} */ event) => /** @type {HTMLAnchorElement | null} */ (hit(event, ".cell"));
const cellsOf = (/** @type {Element | null} */ row) =>
    /** @type {HTMLAnchorElement[]} */ ([...(row?.querySelectorAll(".cell") ?? [])]);

/** @param {PatchGrid} grid @param {PatchRow} row */
function rowElement(grid, row) {
    const cells = make("div", { class: "cells" });
    const count = row.cells.length;
    cells.style.setProperty("--n", String(Math.max(count, 1)));
    row.cells.forEach((patch, at) => {
        const cell = make("a", { class: "cell", href: grid.image + patch.image, tabindex: -1 });
        cell.ariaLabel = sentence(patch);
        cell.style.backgroundPosition = `${count > 1 ? (at * 100) / (count - 1) : 0}% 0`;
        patches.set(cell, patch);
        cells.append(cell);
    });
    const label = `channel ${row.channel}`;
    const title = [label, ...row.lines].join(", ");
    const lines = row.lines.map((line) => make("span", {}, line));
    const kind = row.dead ? "channel dead" : "channel";
    const head = make("a", { class: kind, href: row.href, title }, make("b", {}, row.channel), lines);
    return make("div", { class: "channel-row", role: "group", "aria-label": label }, head, cells);
}

/* A new version of the atlas mostly comes with the same records: rendering them again would take the focus
   and the scroll position from the user. */
convscope.paintGrid = (data) => {
    const grid = document.getElementById("patches-grid");
    if (!grid) return "";
    const text = JSON.stringify(data || null);
    if (drawn.get(grid) === text) return "";
    drawn.set(grid, text);
    hideTip();
    const focused = placeOf(document.activeElement);
    delete grid.dataset.painted;
    grid.toggleAttribute("data-blank", !data);
    grid.replaceChildren();
    if (!data) return "";
    const rows = make("div", { class: data.tile === "fit" ? "rows fit" : "rows fixed" });
    if (data.tile !== "fit") rows.style.setProperty("--tile", data.tile + "px");
    rows.style.setProperty("--k", String(data.k));
    let waiting = data.rows.length;
    for (const row of data.rows) {
        const element = rowElement(data, row);
        const image = new Image();
        image.onload = image.onerror = (event) => {
            element.classList.add(typeof event !== "string" && event.type === "load" ? "loaded" : "failed");
            element.style.setProperty("--row", `url("${image.src}")`);
            if (--waiting === 0) grid.dataset.painted = String(performance.now());
        };
        image.src = devicePixelRatio > 1.3 ? row.fine : row.picture;
        rows.append(element);
    }
    const first = cellsOf(rows)[0];
    if (first) first.tabIndex = 0;
    grid.append(rows);
    keepPlace(grid, focused);
    return "";
};

/** The row of a cell and its place there. @param {Element | null} element */
function placeOf(element) {
    const row = element?.matches(".cell") ? element.closest(".channel-row") : null;
    return row && { label: row.ariaLabel, at: cellsOf(row).findIndex((cell) => cell === element) };
}

/* The browser restores the height of a page before its rows are rendered, so heights are kept here, too. */
/** @type {Map<string, number>} */
const heights = new Map();
/** @type {{ address: string, top: number } | null} */
let back = null;
/** @type {string | null} */
let shownLayer = null;
const here = () => location.pathname + location.search;

/**
 * Where the user was: at a patch, at a height that Back leads to, or at the top of a new layer.
 * @param {HTMLElement} grid @param {ReturnType<typeof placeOf>} focused
 */
function keepPlace(grid, focused) {
    const layer = new URLSearchParams(location.search).get("layer") ?? "";
    const top = grid.getBoundingClientRect().top;
    if (back?.address === here()) scrollBack(back.top, 30);
    else if (shownLayer !== null && shownLayer !== layer && top < 0) scrollBy(0, top - 80);
    back = null;
    shownLayer = layer;
    const row = focused && grid.querySelector(`.channel-row[aria-label="${focused.label}"]`);
    if (row) cellsOf(row)[focused.at]?.focus({ preventScroll: true });
}

/**
 * Repeated while what is above the rows is still to be rendered and the page too short.
 * @param {number} top @param {number} frames
 */
function scrollBack(top, frames) {
    scrollTo(0, top);
    if (Math.abs(scrollY - top) > 1 && frames) requestAnimationFrame(() => scrollBack(top, frames - 1));
}

convscope.paintChannels = (data) => {
    const list = document.getElementById("image-driven");
    if (!list) return "";
    const groups = (data?.groups ?? []).map(({ label, count, href, more, chips }) => {
        const links = chips.map(([channel, rank, activation]) => {
            const words = `channel ${channel}: rank ${rank}, activation ${activation}`;
            const kind = rank === 1 ? "chip num best" : "chip num";
            const given = { class: kind, href: href + channel, title: words, "aria-label": words };
            return make("a", given, channel, make("small", {}, `#${rank}`));
        });
        const rest = more && make("span", { class: "quiet more" }, `and ${more.toLocaleString("en")} more`);
        const head = make("h3", {}, label, make("span", {}, count));
        return make("div", { class: "driven" }, head, make("div", { class: "chips" }, links, rest || null));
    });
    list.replaceChildren(...groups);
    if (data && !groups.length) list.append(make("p", { class: "quiet" }, data.empty));
    return "";
};

/** @type {HTMLAnchorElement | null} */
let tipped = null;

/** @param {HTMLAnchorElement} cell */
function describe(cell) {
    const patch = patches.get(cell);
    if (!patch) return;
    tipped = cell;
    const [[label, rank], ...rest] = patch.facts;
    const head = make(
        "div",
        { class: "tip-head" },
        make("b", {}, label),
        make("span", { class: "num" }, rank),
    );
    const values = rest.map(([name, value]) => [make("dt", {}, name), make("dd", { class: "num" }, value)]);
    showTip("", [head, make("dl", {}, values.flat())], cell.getBoundingClientRect());
}

/** A finger cannot hover: its first tap describes the patch, with a link. @param {HTMLAnchorElement} cell */
function showSheet(cell) {
    describe(cell);
    const box = tip();
    if (!box) return;
    box.className = "sheet";
    box.style.transform = "";
    const open = make("a", { class: "btn btn-primary", href: cell.href }, "Open image");
    box.append(make("div", { class: "ways" }, open, make("button", { class: "btn btn-quiet" }, "Close")));
}

/** The cell that a key moves the focus to. @param {HTMLAnchorElement} cell @param {string} key */
function cellBeside(cell, key) {
    const row = cell.closest(".channel-row");
    const cells = cellsOf(row);
    const at = cells.indexOf(cell);
    const inRow = (/** @type {Element | null | undefined} */ other) => {
        const found = cellsOf(other ?? null);
        return found[Math.min(at, found.length - 1)];
    };
    if (key === "ArrowRight") return cells[at + 1];
    if (key === "ArrowLeft") return cells[at - 1];
    if (key === "ArrowDown") return inRow(row?.nextElementSibling);
    if (key === "ArrowUp") return inRow(row?.previousElementSibling);
    return key === "Home" ? cells[0] : cells.at(-1);
}

function listen() {
    const passive = { passive: true };
    addEventListener("popstate", (event) => {
        if (!event.isTrusted) return; // sent by `go`
        const top = heights.get(here());
        back = top === undefined ? null : { address: here(), top };
    });
    const remember = () => back === null && heights.set(here(), scrollY);
    addEventListener("scroll", remember, passive);
    for (const name of ["wheel", "touchmove", "keydown"])
        addEventListener(name, () => (back = null), passive);

    let touched = false;
    const pointed = (/** @type {PointerEvent} */ event) => (touched = event.pointerType === "touch");
    document.addEventListener("pointerdown", pointed, true);
    document.addEventListener(
        "click",
        (event) => {
            const cell = touched ? cellOf(event) : null;
            if (cell && patches.has(cell)) {
                event.preventDefault();
                showSheet(cell);
            } else if (tip()?.className === "sheet") {
                if (!hit(event, "#tip") || hit(event, "#tip a, #tip button")) hideTip();
            }
        },
        true,
    );
    document.addEventListener("pointerover", (event) => {
        if (event.pointerType === "touch") return;
        const cell = cellOf(event);
        if (cell) describe(cell);
        else hideTip();
    });
    document.addEventListener("focusin", (event) => {
        if (hit(event, "#tip")) return;
        const cell = cellOf(event);
        if (!cell) {
            hideTip();
            return;
        }
        document
            .querySelectorAll(".cell[tabindex='0']")
            .forEach((other) => other.setAttribute("tabindex", "-1"));
        cell.tabIndex = 0;
        if (cell.matches(":focus-visible")) describe(cell);
    });
    const follow = () => {
        const box = tip();
        if (!box || box.hidden || box.className === "sheet") return;
        // a key that moves the focus also scrolls, and that event comes after the focus: the tip moves along
        const focused = box.className === "" && tipped === document.activeElement ? tipped : null;
        const at = focused?.getBoundingClientRect();
        if (focused && at && at.bottom > 0 && at.top < innerHeight) describe(focused);
        else hideTip();
    };
    document.addEventListener("scroll", follow, { passive: true, capture: true });
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape") hideTip();
        const cell = cellOf(event);
        if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
        if (!/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key)) return;
        event.preventDefault();
        cellBeside(cell, event.key)?.focus();
    });
}
if (globalThis.document) listen();
