/* Images that a person selects on the Images page, over pages, filters and views of one set, and the way from
   there to their maps. What is selected lives in this window alone. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const HOLD_MILLISECONDS = 500;
const MOST_SELECTED = 5000;

const place = () => document.querySelector("#images-body [data-images]");
const boxes = () => [...document.querySelectorAll("#images-body [data-image]")];
const selectedIn = (images) => `convscope-selected:${convscope.local("")}${images}`;
const storage = () => selectedIn(place().dataset.images);

let kept = new Map(); // for windows that may not store
function selected() {
    let text = null;
    try {
        text = sessionStorage.getItem(storage());
    } catch (error) {
        /* private mode */
    }
    return new Set(text === null ? kept.get(storage()) || [] : JSON.parse(text));
}

function keep(ids) {
    kept.set(storage(), [...ids]);
    try {
        sessionStorage.setItem(storage(), JSON.stringify([...ids]));
    } catch (error) {
        /* private mode */
    }
}

/* Before leaving a page for this one: its images are selected here, and the way back keeps the rest of its request. */
convscope.chooseFrom = function (given) {
    const ids = (/^[\d,\s-]*$/.test(given.ids) ? given.ids : "")
        .split(",")
        .flatMap((part) => {
            const [low, high] = part.split("-").map(Number);
            return Array.from(
                { length: Math.min(MOST_SELECTED, Math.max(0, (high ?? low) - low + 1)) },
                (_, at) => low + at,
            );
        })
        .slice(0, MOST_SELECTED);
    kept.set(selectedIn(given.images), ids);
    try {
        sessionStorage.setItem(selectedIn(given.images), JSON.stringify(ids));
        sessionStorage.setItem("convscope-choosing", JSON.stringify(given));
    } catch (error) {
        /* private mode */
    }
};

/* The request that a page had when its images were to be chosen; empty for another page or another set. */
function requestOf(path) {
    let given = null;
    try {
        given = JSON.parse(sessionStorage.getItem("convscope-choosing"));
    } catch (error) {
        /* private mode */
    }
    const query = new URLSearchParams(
        given && given.path === path && given.images === place().dataset.images ? given.search : "",
    );
    ["ids", "n", "seed", "label", "verdict", "where", "attack", "at"].forEach((name) => query.delete(name));
    return query;
}

/* `0,1,4-7` of numbers. */
function shortIds(ids) {
    const runs = [];
    for (const id of [...ids].sort((one, other) => one - other)) {
        const last = runs[runs.length - 1];
        if (last && id === last[1] + 1) last[1] = id;
        else runs.push([id, id]);
    }
    return runs.map(([low, high]) => (low === high ? `${low}` : `${low}-${high}`)).join(",");
}

function show() {
    const bar = document.getElementById("images-selection");
    if (!bar) return;
    const ids = place() ? selected() : new Set();
    boxes().forEach((box) => {
        const on = ids.has(Number(box.dataset.image));
        box.setAttribute("aria-checked", String(on));
        box.closest(".selectable").classList.toggle("selected", on);
    });
    const body = document.getElementById("images-body");
    if (body) body.classList.toggle("selecting", ids.size > 0);
    bar.hidden = ids.size === 0;
    if (!ids.size) {
        bar.replaceChildren();
        return;
    }
    const leading = (path) => {
        const query = requestOf(path);
        if (!query.has("models") && place().dataset.model) query.set("model", place().dataset.model);
        query.set("images", place().dataset.images);
        query.set("ids", shortIds(ids));
        return convscope.local(`${path}?${query.toString().replaceAll("%2C", ",")}`);
    };
    const { make, icon } = convscope;
    const counted = ids.size.toLocaleString("en");
    const link = make(
        "a",
        { class: "btn btn-sm btn-primary", id: "images-mapped", href: leading("/saliency") },
        icon("bullseye"),
        ` Saliency of the ${ids.size === 1 ? "selected image" : counted + " selected"}`,
    );
    const attack = make(
        "a",
        { class: "btn btn-sm btn-quiet", id: "images-attacked", href: leading("/attack") },
        icon("lightning-charge"),
        " Attack",
    );
    const clear = make(
        "button",
        {
            class: "btn btn-sm btn-quiet",
            type: "button",
            id: "images-clear",
            onclick: () => {
                keep([]);
                show();
                const first = boxes()[0];
                if (first) first.focus();
            },
        },
        "Clear",
    );
    const all = boxes().every((box) => ids.has(Number(box.dataset.image)));
    const page = all
        ? null
        : make(
              "button",
              {
                  class: "btn btn-sm btn-quiet",
                  type: "button",
                  id: "images-all",
                  onclick: () => choose(boxes(), true),
              },
              "Select all on this page",
          );
    bar.replaceChildren(
        make("span", { class: "num" }, `${counted} selected`),
        link,
        attack,
        ...(page ? [page] : []),
        clear,
    );
}

convscope.markSelected = function () {
    requestAnimationFrame(show);
    return "";
};

let before = null;
function choose(some, on) {
    const ids = selected();
    some.forEach((box) => ids[on ? "add" : "delete"](Number(box.dataset.image)));
    keep(ids);
    show();
}

/* One box; with Shift, all from the one before to this one. */
function toggle(box, ranged) {
    const on = box.getAttribute("aria-checked") !== "true";
    const all = boxes(),
        from = all.indexOf(before),
        to = all.indexOf(box);
    before = box;
    const range = ranged && from >= 0 ? all.slice(Math.min(from, to), Math.max(from, to) + 1) : [box];
    choose(range, on);
}

document.addEventListener("click", (event) => {
    const box = event.target.closest && event.target.closest("#images-body [data-image]");
    if (box) toggle(box, event.shiftKey);
});

/* A finger that rests on a picture selects it; what would follow (its link, the browser's menu) does not. */
let holding = null,
    held = false;
const letGo = () => {
    clearTimeout(holding);
    holding = null;
};
document.addEventListener("pointerdown", (event) => {
    letGo();
    held = false;
    const item = event.pointerType === "touch" && event.target.closest("#images-body .selectable");
    if (!item || event.target.closest("[data-image]")) return;
    holding = setTimeout(() => {
        held = true;
        toggle(item.querySelector("[data-image]"), false);
    }, HOLD_MILLISECONDS);
});
["pointerup", "pointercancel", "scroll"].forEach((name) =>
    document.addEventListener(name, letGo, { passive: true, capture: true }),
);
document.addEventListener("contextmenu", (event) => {
    if ((holding || held) && event.target.closest("#images-body .selectable")) event.preventDefault();
});
document.addEventListener(
    "click",
    (event) => {
        if (!held) return;
        held = false;
        if (!event.target.closest("#images-body .selectable")) return;
        event.preventDefault();
        event.stopPropagation();
    },
    true,
);
