/* The grid of patches: the server sends records, this draws them, loads the pictures, shows what is
   under the pointer or the focus, and moves the focus by arrow keys. */
(function () {
    "use strict";
    const ns = (window.dash_clientside = window.dash_clientside || {});
    const convscope = (ns.convscope = ns.convscope || {});

    function make(tag, className, text) {
        const element = document.createElement(tag);
        if (className) element.className = className;
        if (text !== undefined) element.textContent = text;
        return element;
    }

    const boxWords = (box) => `y ${box[0]}–${box[2]}, x ${box[1]}–${box[3]} px`;

    /* A patch as pairs of name and value; the order of the record is that of `cell` in grid.py. */
    function told([rank, activation, image, label, index, wnid, name, y, x, field, effective]) {
        const pairs = [[label || "no label", `rank ${rank}`], ["activation", activation]];
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

    convscope.paintGrid = function (data) {
        const grid = document.getElementById("patches-grid");
        hideTip();
        if (!grid) return "";
        delete grid.dataset.painted;
        const rows = make("div", data && data.tile !== "fit" ? "rows fixed" : "rows fit");
        grid.toggleAttribute("data-blank", !data);
        if (!data) { grid.replaceChildren(); return ""; }
        if (data.tile !== "fit") rows.style.setProperty("--tile", data.tile + "px");
        rows.style.setProperty("--k", data.k);
        const fine = window.devicePixelRatio > 1.3;
        let waiting = data.rows.length;
        const done = () => { if (--waiting === 0) grid.dataset.painted = String(performance.now()); };
        for (const row of data.rows) {
            const element = rowElement(data, row);
            const address = fine ? row.fine : row.picture;
            const picture = new Image();
            picture.onload = () => {
                element.style.setProperty("--row", `url("${address}")`);
                element.classList.add("loaded");
                done();
            };
            picture.onerror = () => { element.classList.add("failed"); done(); };
            picture.src = address;
            rows.append(element);
        }
        const first = rows.querySelector(".cell");
        if (first) first.tabIndex = 0;
        grid.replaceChildren(rows);
        return "";
    };

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
            if (group.more) chips.append(make("span", "quiet more", `and ${group.more.toLocaleString("en")} more`));
            part.append(head, chips);
            list.append(part);
        }
        return "";
    };

    const tip = () => document.getElementById("tip");

    function showTip(cell) {
        const box = tip();
        if (!box) return;
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

    const cellOf = (event) => event.target.closest && event.target.closest(".cell");
    document.addEventListener("pointerover", (event) => {
        if (event.pointerType === "touch") return;
        const cell = cellOf(event);
        if (cell) showTip(cell); else hideTip();
    });
    document.addEventListener("focusin", (event) => {
        const cell = cellOf(event);
        if (!cell) { hideTip(); return; }
        document.querySelectorAll(".cell[tabindex='0']").forEach((other) => { other.tabIndex = -1; });
        cell.tabIndex = 0;
        if (cell.matches(":focus-visible")) showTip(cell);
    });
    document.addEventListener("scroll", hideTip, { passive: true, capture: true });

    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape") { hideTip(); return; }
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
})();
