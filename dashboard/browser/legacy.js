/* What pages that are not yet rendered by Python draw with. */
// @ts-nocheck
import { address, ask, local, make, pagePath } from "./base.js";
import { loadMap, paint } from "./heat.js";
import { convscope } from "./namespace.js";

Object.assign(convscope, { address, ask, loadMap, local, make, pagePath, paint });

/* States of a job that still goes on. */
convscope.UNFINISHED = ["queued", "running"];

convscope.icon = (name) => convscope.make("i", { class: `bi bi-${name}`, "aria-hidden": "true" });

convscope.duration = function (seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 1) return "under 1 s";
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} d`;
};

/* Call `again` a second after it ended, while it gives true and somebody looks. One at a time per page. */
convscope.every = function (again) {
    let timer = null,
        stopped = false,
        running = false;
    async function tick() {
        timer = null;
        if (stopped || running) return;
        if (document.hidden) {
            timer = setTimeout(tick, 1000);
            return;
        }
        running = true;
        let more = false;
        try {
            more = await again();
        } finally {
            running = false;
        }
        if (more && !stopped) timer = setTimeout(tick, 1000);
    }
    tick();
    return {
        now() {
            clearTimeout(timer);
            stopped = false;
            tick();
        },
        stop() {
            stopped = true;
            clearTimeout(timer);
        },
    };
};

/* Bar of a job with words beside it. */
convscope.bar = function (share, words, state) {
    const width = `${Math.round(1000 * Math.min(1, Math.max(0, share))) / 10}%`;
    return convscope.make(
        "div",
        { class: `job-bar ${state || ""}` },
        convscope.make(
            "div",
            {
                class: "job-track",
                role: "progressbar",
                "aria-valuenow": Math.round(100 * share),
                "aria-valuemin": 0,
                "aria-valuemax": 100,
                "aria-label": words,
            },
            convscope.make("div", { class: "job-fill", style: `width:${width}` }),
        ),
        convscope.make("span", { class: "num" }, words),
    );
};
