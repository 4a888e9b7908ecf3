/* The grid of patches: the server sends records, this draws them, loads the pictures, shows what is
   under the pointer or the focus, and moves the focus by arrow keys. */
// @ts-nocheck
import { convscope } from "./namespace.js";

function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
}

const boxWords = (box) =>
    box[0] >= box[2] || box[1] >= box[3]
        ? "in the padding"
        : `y ${box[0]}–${box[2]}, x ${box[1]}–${box[3]} px`;

/* A patch as pairs of name and value; the order of the record is that of `cell` in grid.py. */
function told([rank, activation, image, label, index, wnid, name, y, x, field, effective]) {
    const pairs = [
        [label || "no label", `rank ${rank}`],
        ["activation", activation],
    ];
    if (index !== null) pairs.push(["class", index]);
    if (wnid) pairs.push(["WNID", wnid]);
    pairs.push(["image", `${image} · ${name.split("/").pop()}`], ["position", `row ${y}, column ${x}`]);
    if (field) pairs.push(["field", boxWords(field)]);
    if (effective) pairs.push(["effective", boxWords(effective)]);
    return pairs;
}

function sentence(cell) {
    const [heading, ...rest] = told(cell);
    return `${heading[1]}: ${heading[0]}, ` + rest.map((pair) => pair.join(" ")).join(", ");
}

const patches = new WeakMap();

function rowElement(grid, row) {
    const element = make("div", "channel-row");
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", `channel ${row.channel}`);
    const head = make("a", row.dead ? "channel dead" : "channel");
    head.href = row.href;
    head.append(make("b", "", row.channel), ...row.lines.map((line) => make("span", "", line)));
    head.title = ["channel " + row.channel, ...row.lines].join(", ");
    const cells = make("div", "cells");
    const count = row.cells.length;
    cells.style.setProperty("--n", Math.max(count, 1));
    row.cells.forEach((patch, index) => {
        const cell = make("a", "cell");
        cell.href = grid.image + patch[2];
        cell.tabIndex = -1;
        cell.setAttribute("aria-label", sentence(patch));
        cell.style.backgroundPosition = `${count > 1 ? (index * 100) / (count - 1) : 0}% 0`;
        patches.set(cell, patch);
        cells.append(cell);
    });
    element.append(head, cells);
    return element;
}

const drawn = new WeakMap();

/* A new version of the atlas comes with the same records most of the time: drawing them anew would take
   the focus and the place from whoever looks at them. */
convscope.paintGrid = function (data) {
    const grid = document.getElementById("patches-grid");
    if (!grid) return "";
    const text = JSON.stringify(data || null);
    if (drawn.get(grid) === text) return "";
    drawn.set(grid, text);
    hideTip();
    const focused = placeOf(document.activeElement);
    delete grid.dataset.painted;
    const rows = make("div", data && data.tile !== "fit" ? "rows fixed" : "rows fit");
    grid.toggleAttribute("data-blank", !data);
    if (!data) {
        grid.replaceChildren();
        return "";
    }
    if (data.tile !== "fit") rows.style.setProperty("--tile", data.tile + "px");
    rows.style.setProperty("--k", data.k);
    const fine = window.devicePixelRatio > 1.3;
    let waiting = data.rows.length;
    const done = () => {
        if (--waiting === 0) grid.dataset.painted = String(performance.now());
    };
    for (const row of data.rows) {
        const element = rowElement(data, row);
        const address = fine ? row.fine : row.picture;
        const picture = new Image();
        picture.onload = () => {
            element.style.setProperty("--row", `url("${address}")`);
            element.classList.add("loaded");
            done();
        };
        picture.onerror = () => {
            element.classList.add("failed");
            done();
        };
        picture.src = address;
        rows.append(element);
    }
    const first = rows.querySelector(".cell");
    if (first) first.tabIndex = 0;
    grid.replaceChildren(rows);
    keepPlace(grid, focused);
    return "";
};

function placeOf(element) {
    const row = element && element.matches(".cell") && element.closest(".channel-row");
    return row ? [row.getAttribute("aria-label"), [...row.querySelectorAll(".cell")].indexOf(element)] : null;
}

/* Where a person was: at a patch, at a height that Back leads to, or at the top of a layer that is new. */
function keepPlace(grid, focused) {
    const address = location.pathname + location.search;
    if (back !== null && back.address === address) {
        scrollBack(back.top, 30);
    } else if (shownLayer !== null && shownLayer !== layerOf(address)) {
        const top = grid.getBoundingClientRect().top;
        if (top < 0) scrollBy(0, top - 80);
    }
    back = null;
    shownLayer = layerOf(address);
    const row = focused && grid.querySelector(`.channel-row[aria-label="${focused[0]}"]`);
    const cell = row && row.querySelectorAll(".cell")[focused[1]];
    if (cell) cell.focus({ preventScroll: true });
}

/* Again while what stands above the rows is still to be drawn and the page too short. */
function scrollBack(top, frames) {
    scrollTo(0, top);
    if (Math.abs(scrollY - top) > 1 && frames) requestAnimationFrame(() => scrollBack(top, frames - 1));
}

const layerOf = (address) => new URLSearchParams(address.split("?")[1] || "").get("layer") || "";
let shownLayer = null;

/* The browser restores the height of a page before its rows are drawn; so it is kept here as well. */
const heights = new Map();
let back = null;
addEventListener("popstate", (event) => {
    if (!event.isTrusted) return;
    const address = location.pathname + location.search;
    back = heights.has(address) ? { address, top: heights.get(address) } : null;
});
addEventListener(
    "scroll",
    () => {
        if (back === null) heights.set(location.pathname + location.search, scrollY);
    },
    { passive: true },
);
for (const name of ["wheel", "touchmove", "keydown"]) {
    addEventListener(
        name,
        () => {
            back = null;
        },
        { passive: true },
    );
}

convscope.paintChannels = function (data) {
    const list = document.getElementById("image-driven");
    if (!list) return "";
    list.replaceChildren();
    if (!data) return "";
    if (!data.groups.length) list.append(make("p", "quiet", data.empty));
    for (const group of data.groups) {
        const part = make("div", "driven");
        const head = make("h3", "", group.label);
        head.append(make("span", "", group.count));
        const chips = make("div", "chips");
        for (const [channel, rank, activation] of group.chips) {
            const chip = make("a", rank === 1 ? "chip num best" : "chip num", channel);
            chip.href = group.href + channel;
            chip.title = `channel ${channel}: rank ${rank}, activation ${activation}`;
            chip.setAttribute("aria-label", chip.title);
            chip.append(make("small", "", "#" + rank));
            chips.append(chip);
        }
        if (group.more)
            chips.append(make("span", "quiet more", `and ${group.more.toLocaleString("en")} more`));
        part.append(head, chips);
        list.append(part);
    }
    return "";
};

const tip = () => document.getElementById("tip");
let tipped = null;

function showTip(cell) {
    const box = tip();
    if (!box) return;
    tipped = cell;
    box.className = "";
    const [heading, ...rest] = told(patches.get(cell));
    const line = (tag, text, name) => make(tag, name, text);
    const head = line("div", "", "tip-head");
    head.append(line("b", heading[0]), line("span", heading[1], "num"));
    const list = document.createElement("dl");
    rest.forEach(([name, value]) => list.append(line("dt", name), line("dd", value, "num")));
    box.replaceChildren(head, list);
    box.hidden = false;
    const at = cell.getBoundingClientRect();
    const size = box.getBoundingClientRect();
    const margin = 8;
    let left = at.left + at.width / 2 - size.width / 2;
    left = Math.max(margin, Math.min(left, innerWidth - size.width - margin));
    let top = at.bottom + margin;
    if (top + size.height > innerHeight - margin && at.top - size.height - margin > 0) {
        top = at.top - size.height - margin;
    }
    box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
}

function hideTip() {
    const box = tip();
    if (box) box.hidden = true;
}

/* A finger cannot hover: its first tap tells about the patch, and from there a link leads to the image. */
let touched = false;
document.addEventListener(
    "pointerdown",
    (event) => {
        touched = event.pointerType === "touch";
    },
    true,
);
document.addEventListener(
    "click",
    (event) => {
        const box = tip();
        const cell = touched && event.target.closest && event.target.closest(".cell");
        if (cell && patches.has(cell)) {
            event.preventDefault();
            showSheet(cell);
        } else if (box && box.className === "sheet") {
            if (!box.contains(event.target) || event.target.closest("a, button")) hideTip();
        }
    },
    true,
);

function showSheet(cell) {
    showTip(cell);
    const box = tip();
    box.className = "sheet";
    box.style.transform = "";
    const ways = make("div", "ways");
    const link = make("a", "btn btn-primary", "Open image");
    link.href = cell.href;
    ways.append(link, make("button", "btn btn-quiet", "Close"));
    box.append(ways);
}

const cellOf = (event) => event.target.closest && event.target.closest(".cell");
document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const cell = cellOf(event);
    if (cell) showTip(cell);
    else hideTip();
});
document.addEventListener("focusin", (event) => {
    if (event.target.closest("#tip")) return;
    const cell = cellOf(event);
    if (!cell) {
        hideTip();
        return;
    }
    document.querySelectorAll(".cell[tabindex='0']").forEach((other) => {
        other.tabIndex = -1;
    });
    cell.tabIndex = 0;
    if (cell.matches(":focus-visible")) showTip(cell);
});
document.addEventListener(
    "scroll",
    () => {
        const box = tip();
        if (!box || box.hidden || box.className === "sheet") return;
        // A key that moves the focus scrolls too, and that is heard after the focus: the tip goes along.
        const focused = box.className === "" && tipped === document.activeElement;
        const at = focused && tipped.getBoundingClientRect();
        if (at && at.bottom > 0 && at.top < innerHeight) showTip(tipped);
        else hideTip();
    },
    { passive: true, capture: true },
);

document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
        hideTip();
        return;
    }
    const cell = cellOf(event);
    if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = cell.closest(".channel-row");
    const cells = [...row.querySelectorAll(".cell")];
    const at = cells.indexOf(cell);
    const rowAt = (other) => {
        const found = other && other.querySelectorAll(".cell");
        return found && found.length ? found[Math.min(at, found.length - 1)] : null;
    };
    const moves = {
        ArrowRight: () => cells[at + 1],
        ArrowLeft: () => cells[at - 1],
        ArrowDown: () => rowAt(row.nextElementSibling),
        ArrowUp: () => rowAt(row.previousElementSibling),
        Home: () => cells[0],
        End: () => cells[cells.length - 1],
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const target = moves[event.key]();
    if (target) target.focus();
});
