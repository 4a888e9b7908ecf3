/* The Saliency page: the request's controls, the job's progress, and the grid of maps (see pages/saliency.py).
   The maps themselves are in maps.js, the large view in large.js. */
(function () {
    "use strict";
    const ns = (window.dash_clientside = window.dash_clientside || {});
    const convscope = (ns.convscope = ns.convscope || {});
    const { make, icon, duration, ask, UNFINISHED } = convscope;
    const { DISPLAY, OPTIONS, display, arrange, repaint } = convscope.maps;

    let root = null, page = null, constants = null, parts = {}, job = null, scoring = null;
    let poller = null, said = "", classes = new Map(), labels = new Map(), looked = null, sought = null, runsNext = false;

    convscope.drawSaliency = function (given, fixed) {
        const now = document.getElementById("saliency-root");
        if (!now) return "";
        constants = fixed;
        if (!given) {
            now.replaceChildren();
            root = null;
            return "";
        }
        const another = !page || JSON.stringify(page.request) !== JSON.stringify(given.request);
        page = given;
        if (now !== root) mount(now);
        fill();
        if (another) { job = null; scoring = null; said = ""; looked = null; sought = null; parts.grid.dataset.shape = ""; }
        drawMaps();
        drawProgress();
        if (runsNext && isCurrent()) start();
        else poller.now();
        return "";
    };

    const drawMaps = () => convscope.maps.draw({ page, constants, parts, job });

    /* Whether the request is the one that the address asks for, and not that of a moment ago. */
    function isCurrent() {
        const asked = (search) => {
            const query = new URLSearchParams(search || "");
            Object.keys(DISPLAY).forEach((name) => query.delete(name));
            query.sort();
            return query.toString();
        };
        return asked(page.search) === asked(location.search);
    }

    // ---- controls

    function mount(element) {
        root = element;
        const control = (name, label, ...content) => make("div", { class: `control ${name}-control` },
            make("label", { for: `saliency-${name}` }, label), ...content);
        const select = (name, options, changed) => make("select", { id: `saliency-${name}`, class: "form-select form-select-sm",
            onchange: changed }, Object.entries(options).map(([value, text]) => make("option", { value }, text)));
        const shown = (name, label) => control(name, label, select(name, OPTIONS[name], (event) => show(name, event.target.value)));
        const slider = (name, label, min, max, step) => control(name, label, make("div", { class: "slide" },
            make("input", { type: "range", id: `saliency-${name}`, class: "form-range", min, max, step,
                oninput: (event) => show(name, Number(event.target.value)) }),
            make("output", { id: `saliency-${name}-value`, class: "num", for: `saliency-${name}` })));
        const text = (name, label, changed, more) => control(name, label, make("input", { id: `saliency-${name}`,
            class: "form-control form-control-sm", autocomplete: "off", spellcheck: "false", onchange: changed, ...more }));
        parts = {
            about: make("p", {}),
            tools: make("div", { class: "tools tools-place" }),
            models: make("div", { class: "checks" }),
            parameters: make("div", { class: "parameters" }),
            reference: make("p", { class: "reference quiet" }),
            classes: make("datalist", { id: "saliency-classes" }),
            run: make("button", { type: "submit", class: "btn btn-primary run" }, icon("play-fill"), make("span", {}, "Run")),
            problems: make("div", { role: "alert" }),
            progress: make("div", { class: "job-line", role: "status" }),
            legend: make("p", { class: "legend" }),
            grid: make("div", { class: "maps" }),
        };
        const small = "form-control form-control-sm";
        const pick = make("div", { class: "pick", role: "group", "aria-label": "Choose images" },
            make("div", { class: "pick-line" },
                make("input", { id: "saliency-n", type: "number", min: 1, max: 240, value: "6", class: small, "aria-label": "How many images to choose" }),
                make("input", { id: "saliency-label", class: `${small} pick-class`, list: "saliency-labels", placeholder: "of any class", autocomplete: "off",
                    "aria-label": "Class of the images to choose", onfocus: loadLabels }),
                make("datalist", { id: "saliency-labels" })),
            make("div", { class: "pick-line" },
                make("button", { type: "button", class: "btn btn-sm btn-quiet", onclick: () => pickImages("first") }, "First"),
                make("button", { type: "button", class: "btn btn-sm btn-quiet", onclick: () => pickImages("random") }, icon("shuffle"), "Random"),
                make("span", { class: "quiet" }, "seed"),
                make("input", { id: "saliency-pickseed", type: "number", min: 0, value: "0", class: small, "aria-label": "Seed of the random choice" }),
                make("a", { class: "btn btn-sm btn-quiet", id: "saliency-choose" }, icon("images"), "Choose…")));
        root.replaceChildren(
            make("div", { class: "heading" },
                make("div", { class: "title" }, make("h1", {}, "Saliency"), parts.about), parts.tools),
            make("form", { class: "controls saliency-request", "aria-label": "What is computed", onsubmit: run },
                make("fieldset", { class: "control models-control" }, make("legend", {}, "Models"), parts.models),
                make("div", { class: "control ids-group" },
                    make("label", { for: "saliency-ids" }, "Images by number"),
                    make("input", { id: "saliency-ids", class: "form-control form-control-sm num", autocomplete: "off",
                        placeholder: "0,1,4-7", onchange: (event) => convscope.address({ ids: event.target.value.trim(), n: "", seed: "", label: "" }) }), pick),
                make("div", { class: "method-group" },
                    make("div", { class: "method-line" },
                        control("method", "Method", select("method", Object.fromEntries(Object.entries(constants.methods)
                            .map(([name, method]) => [name, method.title])), changeMethod)),
                        control("target", "Class to explain", select("target", { prediction: "The prediction", label: "The label",
                            index: "Another class…" }, (event) => changeTarget(event.target.value))),
                        text("class", "Class", (event) => changeClass(event.target.value), { list: "saliency-classes", placeholder: "Name or index" }),
                        parts.run),
                    parts.parameters, parts.reference),
                parts.classes),
            parts.problems, parts.progress,
            make("div", { class: "controls display", role: "group", "aria-label": "How maps are shown" },
                shown("view", "Show"), slider("strength", "Strength", 0, 1, 0.01), slider("wipe", "Original | map", 0, 1, 0.01),
                shown("colours", "Colour map"), shown("scale", "Scale"), slider("clip", "Clip at percentile", 80, 100, 0.1),
                shown("order", "Order"), shown("model_order", "Sort models"),
                make("button", { type: "button", class: "btn btn-sm btn-quiet as-reports", onclick: asInReports,
                    title: "The map alone, its magnitudes white on black, clipped at the 99th percentile" }, "As in reports")),
            parts.legend, parts.grid);
        if (poller) poller.stop();
        poller = convscope.every(refresh);
    }

    /* Put what the address says into the controls; one that is being typed into is left alone. */
    function fill() {
        const set = (id, value) => {
            const control = document.getElementById(id);
            if (control && control !== document.activeElement) control.value = value;
        };
        parts.about.textContent = `${page.image_set} · ${page.images.toLocaleString("en")} images`;
        set("saliency-ids", page.ids);
        const query = new URLSearchParams(location.search);
        if (query.has("n")) set("saliency-n", query.get("n"));
        if (query.has("seed")) set("saliency-pickseed", query.get("seed"));
        if (query.has("label")) loadLabels().then((found) => set("saliency-label", nameOf(found, query.get("label"))));
        set("saliency-method", page.method);
        const other = !["prediction", "label"].includes(page.target);
        set("saliency-target", other ? "index" : page.target);
        document.querySelector(".class-control").hidden = !other;
        if (other) {
            loadClasses(page.chosen[0]).then((names) => {
                set("saliency-class", page.target === "index" ? "" : `${page.target}: ${names[Number(page.target)] || "?"}`);
            });
        }
        document.getElementById("saliency-choose").href = "/images?" + new URLSearchParams({ images: page.image_set });
        const known = [...new Set([...page.models, ...page.chosen])];
        if (parts.models.dataset.known !== known.join()) {
            parts.models.dataset.known = known.join();
            parts.models.replaceChildren(...known.map((name) => make("label", { class: "check" },
                make("input", { type: "checkbox", class: "form-check-input", value: name, onchange: changeModels }), make("span", {}, name))));
        }
        parts.models.querySelectorAll("input").forEach((box) => { box.checked = page.chosen.includes(box.value); });
        fillParameters();
        const problems = Object.values(page.problems);
        parts.problems.replaceChildren(...problems.map((sentence) => make("p", { class: "problem" }, sentence)));
        parts.run.disabled = !page.request;
        fillDisplay();
    }

    function fillParameters() {
        const method = constants.methods[page.method];
        if (parts.parameters.dataset.method !== page.method) {
            parts.parameters.dataset.method = page.method;
            parts.parameters.replaceChildren(...(method ? method.parameters : []).map((parameter) => {
                const id = `saliency-p-${parameter.name}`;
                const changed = (event) => convscope.address({
                    [`p_${parameter.name}`]: event.target.value === String(parameter.default) ? "" : event.target.value });
                const input = parameter.choices.length
                    ? make("select", { id, class: "form-select form-select-sm", onchange: changed },
                        parameter.choices.map((choice) => make("option", { value: choice }, choice.replaceAll("_", " "))))
                    : make("input", { id, class: "form-control form-control-sm num", onchange: changed, autocomplete: "off",
                        inputmode: typeof parameter.default === "number" ? "decimal" : "text",
                        placeholder: parameter.default === "" ? "last layer" : parameter.default });
                return make("div", { class: "control", title: parameter.help, onfocusin: () => {
                    parts.reference.textContent = `${parameter.name.replaceAll("_", " ")}: ${parameter.help}`;
                }, onfocusout: () => { parts.reference.textContent = method.reference; } },
                    make("label", { for: id }, parameter.name.replaceAll("_", " ")), input);
            }));
        }
        for (const parameter of method ? method.parameters : []) {
            const input = document.getElementById(`saliency-p-${parameter.name}`);
            const value = page.parameters[parameter.name];
            if (input !== document.activeElement) input.value = value === undefined ? parameter.default : value;
        }
        parts.reference.textContent = method ? method.reference : "";
    }

    function fillDisplay() {
        const chosen = display();
        for (const name of ["view", "colours", "scale", "order", "model_order", "strength", "wipe", "clip"]) {
            const control = document.getElementById(`saliency-${name}`);
            if (control !== document.activeElement || control.type !== "range") control.value = chosen[name];
            const value = document.getElementById(`saliency-${name}-value`);
            if (value) value.textContent = name === "clip" ? chosen[name].toFixed(1) : `${Math.round(100 * chosen[name])} %`;
        }
        document.querySelector(".strength-control").hidden = chosen.view !== "overlay";
        const scored = Boolean(job && job.maps.some((map) => map.deletion_auc !== null));
        document.querySelector(".model_order-control").hidden = page.chosen.length < 2 || !scored;
    }

    function show(name, value) {
        convscope.address({ [name]: value === DISPLAY[name] ? "" : value }, true);
        fillDisplay();
        if (name === "order" || name === "model_order") arrange(); else repaint();
    }

    /* Grey pictures as papers print them. */
    function asInReports() {
        convscope.address({ view: "map", colours: "grey", clip: 99, wipe: "" }, true);
        fillDisplay();
        repaint();
    }

    function changeModels() {
        const chosen = [...parts.models.querySelectorAll("input:checked")].map((box) => box.value);
        if (!chosen.length) { fill(); return; }
        convscope.address({ models: chosen.join(","), model: chosen[0] });
    }

    function changeMethod(event) {
        const gone = Object.fromEntries([...new URLSearchParams(location.search).keys()].filter((name) => name.startsWith("p_"))
            .map((name) => [name, ""]));
        convscope.address({ ...gone, method: event.target.value === "smoothgrad" ? "" : event.target.value });
    }

    function changeTarget(value) {
        const most = job && job.maps && job.maps.length ? job.maps[0].predicted_class : 0;
        convscope.address({ target: value === "index" ? String(most) : value === "prediction" ? "" : value });
    }

    async function loadClasses(model) {
        if (!classes.has(model)) {
            const answer = await ask("/choices/classes.json?" + new URLSearchParams({ model }));
            classes.set(model, answer.classes);
        }
        const names = classes.get(model);
        if (parts.classes.dataset.model !== model) {
            parts.classes.dataset.model = model;
            parts.classes.replaceChildren(...names.map((name, index) => make("option", { value: `${index}: ${name}` })));
        }
        return names;
    }

    async function changeClass(text) {
        const names = await loadClasses(page.chosen[0]);
        const wanted = text.trim().toLowerCase();
        const leading = /^(\d+)\s*(:|$)/.exec(wanted);
        let index = leading ? Number(leading[1]) : names.findIndex((name) => name.toLowerCase() === wanted);
        if (index < 0 && wanted) index = names.findIndex((name) => name.toLowerCase().includes(wanted));
        if (index >= 0) convscope.address({ target: String(index) });
        else say(`No class of ${page.chosen[0]} is called “${text}”.`);
    }

    /* The classes that images of the set are labelled with. */
    async function loadLabels() {
        const image_set = page.image_set;
        if (!labels.has(image_set)) {
            labels.set(image_set, (await ask("/choices/labels.json?" + new URLSearchParams({ images: image_set }))).labels);
        }
        const found = labels.get(image_set), list = document.getElementById("saliency-labels");
        if (list && list.dataset.of !== image_set) {
            list.dataset.of = image_set;
            list.replaceChildren(...found.map((one) => make("option", { value: one.name }, `${one.images} images`)));
        }
        return found;
    }

    const nameOf = (found, label) => (found.find((one) => one.label === label) || { name: label }).name;

    async function pickImages(how) {
        const value = (id) => document.getElementById(id).value.trim();
        const asked = new URLSearchParams({ images: page.image_set, n: value("saliency-n") });
        if (how === "random") asked.set("seed", value("saliency-pickseed"));
        try {
            const wanted = value("saliency-label").toLowerCase();
            if (wanted) {
                const found = await loadLabels();
                const label = found.find((one) => one.name.toLowerCase() === wanted) || found.find((one) => one.name.toLowerCase().includes(wanted));
                if (!label) { say(`No image of ${page.image_set} is labelled “${value("saliency-label")}”.`); return; }
                asked.set("label", label.label);
            }
            const answer = await ask(`/choices/ids.json?${asked}`);
            said = "";
            convscope.address({ ids: answer.ids, n: asked.get("n"), seed: asked.get("seed") || "", label: asked.get("label") || "" });
        } catch (error) {
            say(error.message);
        }
    }

    function say(sentence) {
        said = sentence;
        drawProgress();
    }

    // ---- the job

    function run(event) {
        event.preventDefault();
        if (isCurrent()) start();
        else runsNext = true; // what was just typed is on its way
    }

    async function start() {
        runsNext = false;
        if (!page.request) return;
        parts.run.disabled = true;
        try {
            const made = await ask("/api/jobs", { method: "POST", body: page.request });
            page.job = made.job;
            said = made.notice.includes("broker is away") ? `${made.notice[0].toUpperCase()}${made.notice.slice(1)}.` : "";
            if (UNFINISHED.includes(made.state)) sought = made.job;
            job = { ...made, item_list: job ? job.item_list : [], maps: job ? job.maps : [] };
        } catch (error) {
            said = error.message;
        }
        parts.run.disabled = false;
        drawProgress();
        poller.now();
    }

    async function act(path, method) {
        try {
            await ask(path, { method });
            said = "";
        } catch (error) {
            said = error.message;
        }
        poller.now();
    }

    async function refresh() {
        const mine = page;
        if (!root || !root.isConnected || page.job === null) return false;
        try {
            const wanted = page.job;
            // one request a tick: the maps carry what the other job has found so far
            if (scoring && UNFINISHED.includes(scoring.state) && job && !UNFINISHED.includes(job.state)) {
                const found = await ask(`/api/jobs/${scoring.job}?limit=1`);
                if (found.items_done !== scoring.items_done || !UNFINISHED.includes(found.state)) looked = null;
                scoring = found;
            }
            if (!looked || !job || UNFINISHED.includes(job.state)) {
                const found = await ask(`/api/jobs/${wanted}?limit=${constants.most}`);
                if (page !== mine && page.job !== wanted) return true;
                job = found;
                looked = true;
                if (UNFINISHED.includes(job.state)) sought = job.job; // new maps have no curves yet
            } else if (!scoring && sought !== job.job && job.maps.some((map) => map.deletion_auc === null)) {
                await findScoring();
            }
            if (said === "Convscope does not answer.") said = "";
        } catch (error) {
            said = error.message;
        }
        if (!root || !root.isConnected) return false;
        drawProgress();
        drawMaps();
        const seeking = job && !scoring && sought !== job.job && job.maps.some((map) => map.deletion_auc === null);
        return seeking || Boolean(job && UNFINISHED.includes(job.state)) || Boolean(scoring && UNFINISHED.includes(scoring.state))
            || said === "Convscope does not answer.";
    }

    /* Curves that are being computed since before this page was opened. */
    async function findScoring() {
        sought = job.job;
        const numbers = new Set(job.maps.map((map) => map.map));
        const found = await ask("/api/jobs?" + new URLSearchParams({ kind: "faithfulness", images: page.image_set, limit: 20 }));
        scoring = found.jobs.find((one) => UNFINISHED.includes(one.state) && one.parameters.maps.some((map) => numbers.has(map))) || null;
    }

    async function score() {
        try {
            scoring = await ask("/api/jobs", { method: "POST", body: { kind: "faithfulness", maps: job.maps.map((map) => map.map).sort((a, b) => a - b),
                queue: "interactive" } });
            looked = null;
        } catch (error) {
            said = error.message;
        }
        drawProgress();
        poller.now();
    }

    function drawProgress() {
        const lines = [];
        if (said) lines.push(make("p", { class: "problem" }, said));
        for (const shown of [job, scoring]) {
            if (!shown || (shown === scoring && shown.state === "done")) continue;
            if (shown === job && shown.state === "done") continue;
            const running = UNFINISHED.includes(shown.state);
            const left = shown.state === "running" && shown.seconds_left !== null ? `, ${duration(shown.seconds_left)} left` : "";
            const noun = shown === scoring ? "curves" : "maps";
            const words = `${shown.items_done} of ${shown.items} ${noun}${shown.items_failed ? `, ${shown.items_failed} failed` : ""}${left}`;
            const state = shown.cancel_requested && running ? "cancelling" : shown.state;
            lines.push(make("div", { class: "job-now" },
                make("a", { href: `/jobs?job=${shown.job}`, class: "num" }, `Job ${shown.job}`),
                make("span", {}, state), convscope.bar(shown.progress, words, shown.state),
                running && !shown.cancel_requested ? make("button", { type: "button", class: "btn btn-sm btn-quiet",
                    onclick: () => act(`/api/jobs/${shown.job}`, "DELETE") }, icon("x-lg"), "Cancel") : null,
                ["failed", "cancelled"].includes(shown.state) ? make("button", { type: "button", class: "btn btn-sm btn-quiet",
                    onclick: () => act(`/api/jobs/${shown.job}/retry`, "POST") }, icon("arrow-clockwise"), "Retry") : null,
                shown.state === "failed" && shown.error ? make("p", { class: "problem" }, shown.error) : null));
            const store = window.dash_clientside.convscope.lastWork;
            if (shown.state === "queued" && store) {
                const words = convscope.workWords(store);
                if (words && words[0] === "off") lines.push(make("p", { class: "problem" }, `${words[1]}: ${words[2]}.`));
            }
        }
        if (!job && page && page.job === null && page.request && !said) {
            lines.push(make("p", { class: "quiet" }, `Not computed yet: ${page.rows.length} ${page.rows.length === 1 ? "image" : "images"} by `
                + `${page.chosen.length} ${page.chosen.length === 1 ? "model" : "models"}. Press Run.`));
        }
        const text = lines.map((line) => line.textContent).join();
        if (parts.progress.dataset.shown !== text || text.includes("of")) {
            const focused = parts.progress.contains(document.activeElement) && document.activeElement.textContent;
            parts.progress.dataset.shown = text;
            parts.progress.replaceChildren(...lines);
            if (focused) {
                const again = [...parts.progress.querySelectorAll("button, a")].find((element) => element.textContent === focused);
                if (again) again.focus();
            }
        }
        drawTools();
    }

    function drawTools() {
        const maps = job ? job.maps : [];
        const key = `${job && job.job} ${maps.length} ${scoring && scoring.state} ${maps.every((map) => map.deletion_auc !== null)}`;
        if (parts.tools.dataset.key === key) return;
        parts.tools.dataset.key = key;
        if (!maps.length) { parts.tools.replaceChildren(); return; }
        fillDisplay(); // curves bring an order of their own
        const scored = maps.every((map) => map.deletion_auc !== null);
        const busy = scoring && UNFINISHED.includes(scoring.state);
        parts.tools.replaceChildren(
            scored ? "" : make("button", { type: "button", class: "btn btn-sm btn-quiet", disabled: busy || UNFINISHED.includes(job.state),
                title: "How fast the class goes when the pixels that the map ranks first are deleted, and comes when they are inserted",
                onclick: score }, icon("graph-down"), "Deletion and insertion"),
            make("a", { class: "btn btn-sm btn-quiet", href: "/download/saliency.csv" + location.search, download: "" }, icon("download"), "CSV"),
            // the address has changed since this was drawn where colours or scale did
            make("a", { class: "btn btn-sm btn-quiet", href: "/download/saliency.png" + location.search, download: "",
                onclick: (event) => { event.currentTarget.href = "/download/saliency.png" + location.search; } }, icon("image"), "Figure"));
    }
})();
