/* The shell: status, theme, copying. */
// @ts-nocheck
import { addressFollowed } from "./address.js";
import { convscope, ns } from "./namespace.js";

/* A new version of the atlas is noticed here; pages listen to the status. */
convscope.poll = async function (_ticks, known, knownWork) {
    const nothing = [ns.no_update, ns.no_update];
    if (document.hidden) return nothing;
    try {
        const answer = await fetch(convscope.local("/status.json"), { cache: "no-store" });
        if (answer.status === 401) {
            sayLoggedOut();
            return nothing;
        }
        if (!answer.ok) throw new Error(answer.statusText);
        const { work, ...status } = await answer.json();
        sayAway(false);
        const news = (now, before) => (JSON.stringify(now) === JSON.stringify(before) ? ns.no_update : now);
        return [news(status, known), news(work, knownWork)];
    } catch (error) {
        sayAway(true);
        return nothing;
    }
};

/* What runs, what waits, and what is missing for it to run. */
convscope.workWords = (work) => work?.words ?? null;

/* How far the first run is, above every page; the page itself tells its steps where it has nothing else. */
function showFirstRun(first) {
    const line = document.getElementById("first-run");
    if (!line) return;
    line.hidden = !first;
    if (!first) return;
    const { make } = convscope;
    const words = first.steps[first.at];
    const head = first.error
        ? "The first run has stopped"
        : `First run, step ${first.at + 1} of ${first.steps.length}`;
    const news = `${head}: ${words}${first.error ? `: ${first.error}. It goes on with the next convscope run.` : ""}`;
    let said = line.querySelector("[role=status]");
    if (!said) line.append((said = make("span", { role: "status", class: "visually-hidden" })));
    if (said.textContent !== news) said.textContent = news; // told once, not at every look
    line.classList.toggle("failed", Boolean(first.error));
    const counted = first.total
        ? `${first.done.toLocaleString("en")} of ${first.total.toLocaleString("en")}`
        : "";
    const rest = first.error
        ? [make("span", {}, news.slice(head.length + 2))]
        : [
              make("progress", {
                  max: first.total || null,
                  value: first.total ? first.done : null,
                  "aria-label": words,
              }),
              make("span", {}, words),
              make("span", { class: "quiet num" }, [first.phase, counted].filter(Boolean).join(" ")),
          ];
    [...line.children].filter((child) => child !== said).forEach((child) => child.remove());
    line.append(make("b", {}, head), ...rest);
}

convscope.showWork = function (work) {
    convscope.lastWork = work;
    showFirstRun(work && work.first_run);
    const corner = document.getElementById("shell-busy");
    const words = convscope.workWords(work);
    if (!corner) return "";
    corner.hidden = !words;
    if (!words) return "";
    const [state, head, rest] = words;
    const lamp = document.createElement("span");
    lamp.className = "lamp " + state;
    lamp.setAttribute("aria-hidden", "true");
    const text = document.createElement("div");
    const bold = document.createElement("b");
    bold.textContent = head;
    const quiet = document.createElement("span");
    quiet.textContent = rest;
    text.append(bold, quiet);
    corner.title = rest ? `${head}: ${rest}` : head;
    corner.replaceChildren(lamp, text);
    return "";
};

function sayAway(away) {
    document.documentElement.classList.toggle("away", away);
    const notice = document.getElementById("away");
    const text = away
        ? "Convscope does not answer. Is it still running? What you see may be out of date."
        : "";
    if (notice && notice.textContent !== text) notice.textContent = text;
}

function sayLoggedOut() {
    document.documentElement.classList.add("away");
    const notice = document.getElementById("away");
    const link = document.createElement("a");
    link.href =
        convscope.local("/login?") + new URLSearchParams({ next: location.pathname + location.search });
    link.textContent = "log in again";
    if (notice) notice.replaceChildren("Your login has ended: ", link, ".");
}

/* A page is announced by its heading: it names the window, and gets the focus when its page was opened
   from another (the link that had the focus is gone). */
let announced = { path: location.pathname, heading: null };
function announce() {
    const heading = document.querySelector("#content h1");
    if (!heading) return;
    const title = heading.textContent + " · Convscope";
    if (document.title !== title) document.title = title;
    const opened = announced.path !== location.pathname;
    if (opened && heading === announced.heading) return; // the address is ahead of the page
    announced = { path: location.pathname, heading };
    if (!opened) return;
    if (document.activeElement && document.activeElement !== document.body) return;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
}
new MutationObserver(function () {
    announce();
    foldTour();
}).observe(document.documentElement, { childList: true, subtree: true });

document.addEventListener("keydown", function (event) {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, .dash-dropdown-content")) return;
    const field = document.getElementById("patches-layer");
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.click();
});

/* What of the address concerns more than one page. */
/* What a callback met concerns the view in which it was asked. */
convscope.noFault = function () {
    return "";
};

convscope.subject = function (path, search, before) {
    addressFollowed();
    const query = new URLSearchParams(search || "");
    const now = {
        path: convscope.pagePath(path) || "/",
        model: query.get("model") || "",
        images: query.get("images") || "",
    };
    const same = before && Object.keys(now).every((name) => now[name] === before[name]);
    return same ? ns.no_update : now;
};

/* On a phone the pages' links are wider than the screen: the one that is open stands in the middle. */
convscope.showHere = function (filled) {
    nameTheRun(filled);
    requestAnimationFrame(() => {
        const here = document.querySelector(".shell nav .page-link-here");
        if (!here) return;
        const links = here.closest("nav");
        const middle = (box) => box.left + box.width / 2;
        links.scrollLeft += middle(here.getBoundingClientRect()) - middle(links.getBoundingClientRect());
    });
};

/* An address that leaves the run open gets its name as soon as there is one, as the server does on loading: a
   better run that is published later then changes nothing on a page that somebody looks at. */
function nameTheRun(filled) {
    const query = new URLSearchParams(location.search);
    const given = ["model", "images"].filter((name) => query.get(name));
    if (!filled || !filled.run || given.length === 2) return;
    if (given.some((name) => query.get(name) !== filled[name])) return; // the address is ahead of the shell
    const named = new URLSearchParams({ model: filled.model, images: filled.images });
    query.forEach((value, name) => named.set(name, value || named.get(name) || ""));
    history.replaceState({}, "", `${location.pathname}?${named}`);
    dispatchEvent(new PopStateEvent("popstate"));
}

const COLOURS = [
    "--line",
    "--line-strong",
    "--text",
    "--quiet",
    "--accent",
    "--on-accent",
    "--panel",
    "--sunken",
    "--raised",
];
convscope.theme = function (clicks) {
    const root = document.documentElement;
    if (clicks) {
        const theme = root.getAttribute("data-bs-theme") === "dark" ? "light" : "dark";
        root.setAttribute("data-bs-theme", theme);
        try {
            localStorage.setItem("convscope-theme", theme);
        } catch (error) {
            /* private mode */
        }
    }
    return colours();
};

function colours() {
    const style = getComputedStyle(document.documentElement);
    const found = {};
    COLOURS.forEach((name) => {
        found[name.slice(2)] = style.getPropertyValue(name).trim();
    });
    return found;
}

/* Cytoscape draws on a canvas, which knows no CSS: its colours are made from the page's. */
convscope.drawingColours = function (given) {
    const c = given || colours();
    const font = getComputedStyle(document.body).fontFamily;
    const node = (selector, style) => ({ selector, style });
    const sheet = [
        node("node", { "font-family": font, "font-size": 11, color: c.text, "min-zoomed-font-size": 4 }),
        node("node.stage", {
            shape: "round-rectangle",
            "background-color": c.sunken,
            "background-opacity": 1,
            "border-color": c.line,
            "border-width": 1,
            label: "data(label)",
            "text-valign": "top",
            "text-halign": "center",
            "text-margin-y": -4,
            "text-margin-x": "data(shift)",
            "font-size": 11,
            "font-weight": 600,
            color: c.quiet,
            padding: 8,
            events: "no",
        }),
        node("node.block", {
            shape: "round-rectangle",
            "background-color": c.panel,
            "background-opacity": 1,
            "border-color": c.line,
            "border-width": 1,
            label: "data(label)",
            "text-valign": "center",
            "text-halign": "left",
            "text-margin-x": -3,
            "font-size": 9.5,
            color: c.quiet,
            padding: 6,
            events: "no",
        }),
        node("node.layer", {
            shape: "round-rectangle",
            width: "data(width)",
            height: 24,
            "background-color": c.raised,
            "border-color": c["line-strong"],
            "border-width": 1,
            label: "data(label)",
            "text-valign": "center",
            "text-halign": "center",
            "overlay-opacity": 0,
        }),
        node("node.layer:active", { "overlay-opacity": 0, "border-color": c.accent, "border-width": 2 }),
        node("edge", {
            width: 1,
            "line-color": c["line-strong"],
            "target-arrow-color": c["line-strong"],
            "target-arrow-shape": "triangle",
            "arrow-scale": 0.55,
            "curve-style": "straight",
            events: "no",
        }),
        node("edge.down", { "curve-style": "taxi", "taxi-direction": "downward", "taxi-turn": "50%" }),
        node("edge.past, edge.over", {
            "curve-style": "unbundled-bezier",
            "line-style": "dashed",
            "line-dash-pattern": [3, 3],
            "control-point-distances": -26,
            "control-point-weights": 0.5,
            "line-opacity": 0.5,
            "target-arrow-shape": "none",
        }),
    ];
    sheet.push(node("node.layer.unindexed", { opacity: 0.4 }));
    sheet.push(
        node("node.layer.chosen", {
            "background-color": c.accent,
            "border-color": c.accent,
            color: c["on-accent"],
            "font-weight": 600,
        }),
    );
    return sheet;
};

/* By a class on the node: a new stylesheet would restyle the whole drawing at every click. */
convscope.lightUp = function (chosen, drawn) {
    foldOnNarrowScreens();
    shown = chosen && drawn ? `${drawn[0]} ${drawn[1].slice(0, 8)} ${chosen.layer}` : null; // its id in the drawing
    if (drawn) requestAnimationFrame(light);
    return "";
};

function light() {
    const cy = cytoscape();
    if (!cy) return;
    if (shown && !cy.getElementById(shown).length) {
        // the new model's elements come with the next rendering
        if (light.tries < 60) {
            light.tries += 1;
            requestAnimationFrame(light);
        }
        return;
    }
    light.tries = 0;
    cy.nodes(".chosen").removeClass("chosen");
    if (!shown) return;
    cy.getElementById(shown).addClass("chosen");
    reveal(shown);
}
light.tries = 0;

function cytoscape() {
    const holder = document.getElementById("patches-drawing");
    return holder && holder._cyreg ? holder._cyreg.cy : null;
}

/* Scroll the drawing to the chosen layer, where it is not in sight. */
function reveal(id) {
    const cy = cytoscape();
    const box = document.querySelector(".drawing-scroll");
    if (!cy || !box) return;
    const node = cy.getElementById(id);
    if (!node.length) return;
    const y = node.position("y") * cy.zoom();
    if (y < box.scrollTop + 30 || y > box.scrollTop + box.clientHeight - 30) {
        box.scrollTo({ top: y - box.clientHeight / 2, behavior: "instant" });
    }
}

/* A phone's screen is for the patches: the drawing waits folded below the list of layers. */
let shown = null;
function foldOnNarrowScreens() {
    const panel = document.querySelector(".drawing-panel");
    if (!panel || panel.dataset.ready) return;
    panel.dataset.ready = "yes";
    panel.addEventListener("toggle", () => {
        const cy = cytoscape();
        if (!cy || !panel.open) return;
        cy.resize();
        cy.pan({ x: 0, y: 0 });
        if (shown) reveal(shown);
    });
    if (window.matchMedia("(max-width: 640px)").matches) panel.open = false;
}

let zoom = 1;
document.addEventListener("click", function (event) {
    const button = event.target.closest && event.target.closest("[data-zoom]");
    if (!button) return;
    const cy = cytoscape();
    const holder = document.getElementById("patches-drawing");
    if (!cy) return;
    const width = holder.offsetWidth / zoom,
        height = holder.offsetHeight / zoom;
    zoom = Math.min(2.5, Math.max(0.4, zoom * (button.dataset.zoom === "1" ? 1.25 : 0.8)));
    if (Math.abs(zoom - 1) < 0.02) zoom = 1;
    holder.style.width = width * zoom + "px";
    holder.style.height = height * zoom + "px";
    cy.resize();
    cy.zoom(zoom);
    cy.pan({ x: 0, y: 0 });
});

/* An open list takes letters for its search, wherever in the list the focus is. */
document.addEventListener(
    "keydown",
    function (event) {
        if (event.key.length !== 1 || event.key === " " || event.ctrlKey || event.metaKey || event.altKey)
            return;
        const list = event.target.closest && event.target.closest(".dash-dropdown-content");
        const search = list && list.querySelector("input.dash-dropdown-search, input[type=search]");
        if (search && search !== event.target) search.focus();
    },
    true,
);

/* The tour stays folded for whoever has folded it. */
document.addEventListener(
    "toggle",
    function (event) {
        if (event.target.id !== "tour") return;
        try {
            localStorage.setItem("convscope-tour", event.target.open ? "open" : "folded");
        } catch (error) {
            /* private mode */
        }
    },
    true,
);
function foldTour() {
    const tour = document.getElementById("tour");
    if (!tour || tour.dataset.ready) return;
    tour.dataset.ready = "yes";
    let kept = null;
    try {
        kept = localStorage.getItem("convscope-tour");
    } catch (error) {
        /* private mode */
    }
    if (kept === "folded") tour.open = false;
}

/* A model that waits on a hub is fetched by the job that indexes with it. */
document.addEventListener("click", async function (event) {
    const button = event.target.closest && event.target.closest("[data-offer]");
    if (!button) return;
    const said = document.getElementById("offer-said");
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true"); // it keeps the focus
    try {
        const made = await convscope.ask("/api/jobs", {
            method: "POST",
            body: { kind: "index", model: button.dataset.offer, images: button.dataset.images },
        });
        followOffer(said, made, `${button.dataset.offer} over ${button.dataset.images}`);
    } catch (error) {
        said.textContent = error.message;
    } finally {
        button.removeAttribute("aria-disabled");
    }
});

/* What becomes of that job, until it ends or another one is asked for. */
function followOffer(said, made, what) {
    const tell = (job) => {
        const link = convscope.make("a", { href: convscope.local(`/jobs?job=${job.job}`) }, `Job ${job.job}`);
        const words = {
            done: `: ${what} is indexed.`,
            failed: ` failed: ${job.error}`,
            cancelled: " was cancelled.",
            running: `, ${what}: ${job.note || "running"}.`,
            queued: `, ${what}: queued.`,
        };
        said.replaceChildren(link, words[job.state]);
        said.className = job.state === "failed" ? "problem" : "";
    };
    said.dataset.job = made.job;
    tell(made);
    const poller = convscope.every(async () => {
        if (!said.isConnected || said.dataset.job !== String(made.job)) return false;
        try {
            const found = await convscope.ask(`/api/jobs/${made.job}?limit=1`);
            tell(found);
            return convscope.UNFINISHED.includes(found.state);
        } catch (error) {
            said.textContent = error.message;
            return error.message === "Convscope does not answer.";
        }
    });
    poller.now();
}

document.addEventListener("click", async function (event) {
    const button = event.target.closest && event.target.closest("[data-copy]");
    if (!button) return;
    const text = button.dataset.copy;
    let copied = false;
    try {
        await navigator.clipboard.writeText(text);
        copied = true;
    } catch (error) {
        // no clipboard on plain http from another machine: the old way
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        copied = document.execCommand("copy");
        area.remove();
    }
    const label = button.querySelector("span");
    button.dataset.label = button.dataset.label || label.textContent;
    label.textContent = copied ? "Copied" : "Copy failed";
    setTimeout(() => {
        label.textContent = button.dataset.label;
    }, 1600);
});
