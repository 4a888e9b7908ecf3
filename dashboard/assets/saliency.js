/* The Saliency page: the request's controls, the job's progress, and the grid of maps (see pages/saliency.py).
   The large view is in large.js. */
(function () {
    "use strict";
    const ns = (window.dash_clientside = window.dash_clientside || {});
    const convscope = (ns.convscope = ns.convscope || {});
    const { make, icon, duration, number, percent, ask } = convscope;
    const UNFINISHED = ["queued", "running"];

    // what is shown of the maps, with what the address leaves out
    const DISPLAY = { view: "overlay", strength: 65, wipe: 0, colours: "auto", scale: "own", clip: 99.5, order: "", model_order: "" };
    const OPTIONS = {
        view: { overlay: "Over the picture", map: "Map alone", error: "Standard error" },
        colours: { auto: "By the kind of map", inferno: "Inferno", viridis: "Viridis", magma: "Magma", cividis: "Cividis",
            grey: "Grey (magnitude)", rdbu: "Red and blue (sign)" },
        scale: { own: "Own of each map", model: "Shared in a column", all: "Shared by all" },
        order: { "": "As chosen", deletion: "Deletion, best first", insertion: "Insertion, best first",
            agreement: "Agreement, best first", confidence: "Confidence" },
        model_order: { "": "As chosen", deletion: "Deletion, best first", insertion: "Insertion, best first" },
    };

    let root = null, page = null, constants = null, parts = {}, cells = new Map(), job = null, scoring = null;
    let poller = null, said = "", classes = new Map(), looked = null, sought = null, runsNext = false;

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
        drawGrid();
        drawProgress();
        if (runsNext && isCurrent()) start();
        else poller.now();
        return "";
    };

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

    const display = () => {
        const query = new URLSearchParams(location.search);
        const found = {};
        for (const [name, standard] of Object.entries(DISPLAY)) {
            const text = query.get(name);
            const wrong = OPTIONS[name] && !(text in OPTIONS[name]);
            const value = typeof standard === "number" && text !== null ? Number(text) : text;
            found[name] = text === null || wrong || (typeof standard === "number" && !Number.isFinite(value)) ? standard : value;
        }
        found.strength = Math.min(100, Math.max(0, found.strength));
        found.wipe = Math.min(100, Math.max(0, found.wipe));
        found.clip = Math.min(100, Math.max(50, found.clip));
        return found;
    };

    // ---- controls

    function mount(element) {
        root = element;
        cells = new Map();
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
        const pick = make("div", { class: "pick-line" },
            make("button", { type: "button", class: "btn btn-sm btn-quiet", onclick: () => pickImages("random") }, icon("shuffle"), "Random"),
            make("input", { id: "saliency-n", type: "number", min: 1, max: 240, value: "6", class: "form-control form-control-sm",
                "aria-label": "How many random images" }),
            make("span", { class: "quiet" }, "seed"),
            make("input", { id: "saliency-pickseed", type: "number", min: 0, value: "0", class: "form-control form-control-sm",
                "aria-label": "Seed of the random choice" }),
            make("a", { class: "btn btn-sm btn-quiet", id: "saliency-choose" }, icon("images"), "Choose…"));
        root.replaceChildren(
            make("div", { class: "heading" },
                make("div", { class: "title" }, make("h1", {}, "Saliency"), parts.about), parts.tools),
            make("form", { class: "controls saliency-request", "aria-label": "What is computed", onsubmit: run },
                make("fieldset", { class: "control models-control" }, make("legend", {}, "Models"), parts.models),
                make("div", { class: "control ids-group" },
                    make("label", { for: "saliency-ids" }, "Images by number"),
                    make("input", { id: "saliency-ids", class: "form-control form-control-sm num", autocomplete: "off",
                        placeholder: "0,1,4-7", onchange: (event) => convscope.address({ ids: event.target.value.trim(), n: "", seed: "" }) }), pick),
                control("method", "Method", select("method", Object.fromEntries(Object.entries(constants.methods)
                    .map(([name, method]) => [name, method.title])), changeMethod)),
                control("target", "Class to explain", select("target", { prediction: "The prediction", label: "The label",
                    index: "Another class…" }, (event) => changeTarget(event.target.value))),
                text("class", "Class", (event) => changeClass(event.target.value), { list: "saliency-classes", placeholder: "Name or index" }),
                parts.run, parts.parameters, parts.reference, parts.classes),
            parts.problems, parts.progress,
            make("div", { class: "controls display", role: "group", "aria-label": "How maps are shown" },
                shown("view", "Show"), slider("strength", "Strength", 0, 100, 1), slider("wipe", "Original | map", 0, 100, 1),
                shown("colours", "Colours"), shown("scale", "Scale"), slider("clip", "Clip at percentile", 80, 100, 0.1),
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
            if (value) value.textContent = name === "clip" ? chosen[name].toFixed(1) : `${chosen[name]} %`;
        }
        document.querySelector(".strength-control").hidden = chosen.view !== "overlay";
        document.querySelector(".model_order-control").hidden = page.chosen.length < 2;
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

    async function pickImages(how) {
        const value = (id) => document.getElementById(id).value;
        const asked = new URLSearchParams({ images: page.image_set, n: value("saliency-n") });
        if (how === "random") asked.set("seed", value("saliency-pickseed"));
        try {
            const answer = await ask(`/choices/ids.json?${asked}`);
            convscope.address({ ids: answer.ids, n: asked.get("n"), seed: asked.get("seed") });
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
        drawGrid();
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
        const scored = maps.every((map) => map.deletion_auc !== null);
        const busy = scoring && UNFINISHED.includes(scoring.state);
        parts.tools.replaceChildren(
            scored ? "" : make("button", { type: "button", class: "btn btn-sm btn-quiet", disabled: busy || UNFINISHED.includes(job.state),
                title: "How fast the class goes when the pixels that the map ranks first are deleted, and comes when they are inserted",
                onclick: score }, icon("graph-down"), "Deletion and insertion"),
            make("a", { class: "btn btn-sm btn-quiet", href: "/download/saliency.csv" + location.search, download: "" }, icon("download"), "CSV"),
            make("a", { class: "btn btn-sm btn-quiet figure", download: "", onclick: (event) => {
                const chosen = display();
                const query = new URLSearchParams(location.search);
                const shown = { show: chosen.view, strength: chosen.strength / 100, clip: chosen.clip,
                    scale: chosen.scale === "own" ? "own" : "shared" };
                for (const [name, value] of Object.entries(shown)) query.set(name, value);
                if (chosen.colours === "auto") query.delete("colours");
                event.currentTarget.href = `/download/saliency.png?${query}`;
            }, href: "#" }, icon("image"), "Figure"));
    }

    // ---- the grid

    const cellKey = (image, model) => `${image} ${model}`;

    function drawGrid() {
        const grid = parts.grid;
        const columns = page.request ? page.request.models : page.chosen;
        grid.style.setProperty("--columns", columns.length);
        grid.classList.toggle("single", columns.length === 1);
        const shape = JSON.stringify([columns, page.rows.map((row) => row.id)]);
        if (grid.dataset.shape !== shape) {
            grid.dataset.shape = shape;
            cells.clear();
            grid.replaceChildren(
                columns.length > 1 ? make("div", { class: "map-heads", "aria-hidden": "true" }, make("span", {}),
                    ...columns.map((model) => make("b", { "data-model": model }, model))) : "",
                ...page.rows.map((row) => make("section", { class: "map-row", "data-image": row.id, "aria-label": `image ${row.id}` },
                    make("a", { class: "map-image", href: row.href }, make("img", { src: row.thumbnail, alt: "", loading: "lazy" }),
                        make("span", { class: "name" }, row.label || "no label"), make("span", { class: "num quiet" }, `image ${row.id}`)),
                    ...columns.map((model) => {
                        const element = make("div", { class: "map-cell", "data-model": model });
                        cells.set(cellKey(row.id, model), { element, row, model, state: null });
                        return element;
                    }))));
        }
        const maps = new Map((job ? job.maps : []).map((map) => [cellKey(map.image_id, map.model), map]));
        const items = new Map((job ? job.item_list : []).map((item) => [cellKey(item.image_id, item.model), item]));
        let next = true;
        for (const [key, cell] of cells) {
            const map = maps.get(key), item = items.get(key);
            let state = "idle";
            if (map) state = `map ${map.map}`;
            else if (item && item.error) state = `failed ${item.error}`;
            else if (job && UNFINISHED.includes(job.state)) { state = job.state === "running" && next ? "computing" : "waiting"; next = false; }
            const scores = map ? `${map.deletion_auc} ${map.insertion_auc}` : "";
            if (cell.state === state && cell.scores === scores) continue;
            if (cell.state !== state) fillCell(cell, state, map, item);
            cell.state = state;
            cell.scores = scores;
            if (map) { cell.map = map; cell.caption.replaceChildren(...caption(map, cell.row)); }
        }
        arrange();
        repaint();
    }

    function fillCell(cell, state, map, item) {
        cell.element.className = `map-cell ${state.split(" ")[0]}`;
        cell.map = null;
        if (map) {
            const words = `${map.model}, image ${map.image_id}: ${map.target_name || `class ${map.target_class}`}`;
            cell.canvas = make("canvas", { width: map.width, height: map.height, role: "img", "aria-label": `Map of ${words}` });
            cell.caption = make("figcaption", {});
            const open = make("button", { type: "button", class: "map-open", "aria-label": `Open the map of ${words}`,
                onclick: () => { document.getElementById("tip").hidden = true; convscope.openMap(map.map); } }, cell.canvas);
            hover(open, cell);
            cell.element.replaceChildren(make("figure", {}, open, cell.caption));
        } else {
            const words = { waiting: "waiting", computing: "computing…", idle: "", failed: item ? item.error : "" }[state.split(" ")[0]];
            cell.element.replaceChildren(make("div", { class: "map-blank" }, make("span", {}, words)));
        }
    }

    function caption(map, row) {
        const label = row.classes[map.model];
        const right = label === undefined ? "" : map.predicted_class === label ? "right" : "wrong";
        const lines = [make("div", { class: "map-line" },
            make("span", { class: "name", title: map.predicted_name }, map.predicted_name || `class ${map.predicted_class}`),
            right ? make("span", { class: `verdict-mark ${right}`, title: `${right}: the label is ${row.label}` },
                icon(right === "right" ? "check-lg" : "x-lg")) : null,
            make("span", { class: "num quiet" }, percent(map.predicted_probability)))];
        if (map.target_class !== map.predicted_class) {
            lines.push(make("div", { class: "map-line" }, make("span", { class: "name quiet", title: map.target_name },
                `for ${map.target_name || map.target_class}`), make("span", { class: "num quiet" }, percent(map.target_probability))));
        }
        if (map.deletion_auc !== null) {
            lines.push(make("div", { class: "map-line num quiet", title: "Areas below the curves: deletion (lower is better), insertion (higher is better)" },
                make("span", {}, `del ${map.deletion_auc.toFixed(3)}`), make("span", {}, `ins ${map.insertion_auc.toFixed(3)}`)));
        }
        return lines;
    }

    function arrange() {
        const { order, model_order: modelOrder } = display();
        const rows = [...parts.grid.querySelectorAll(".map-row")];
        const value = (element) => {
            const image = Number(element.dataset.image);
            return mean((cell) => cell.row.id === image, order);
        };
        // the lower, the further to the front
        const mean = (wanted, how) => {
            const found = [...cells.values()].filter((cell) => cell.map && wanted(cell)).map((cell) => cell.map);
            const of = { deletion: (map) => map.deletion_auc, insertion: (map) => (map.insertion_auc === null ? null : -map.insertion_auc),
                agreement: (map) => (map.agreement === null ? null : -map.agreement), confidence: (map) => -map.predicted_probability }[how];
            const values = found.map(of).filter((one) => one !== null);
            return values.length ? values.reduce((sum, one) => sum + one, 0) / values.length : Infinity;
        };
        const places = new Map(page.rows.map((row, at) => [row.id, at]));
        const place = (element) => places.get(Number(element.dataset.image));
        const sorted = [...rows].sort((a, b) => (order ? value(a) - value(b) : 0) || place(a) - place(b));
        if (sorted.some((element, at) => element !== rows[at])) parts.grid.append(...sorted);
        const columns = [...new Set([...cells.values()].map((cell) => cell.model))];
        const means = new Map(columns.map((model) => [model, modelOrder ? mean((cell) => cell.model === model, modelOrder) : 0]));
        const inOrder = [...columns].sort((a, b) => (means.get(a) - means.get(b)) || columns.indexOf(a) - columns.indexOf(b));
        parts.grid.querySelectorAll(".map-row, .map-heads").forEach((line) => {
            const byModel = new Map([...line.querySelectorAll("[data-model]")].map((element) => [element.dataset.model, element]));
            if (inOrder.some((model, at) => [...byModel.keys()][at] !== model)) line.append(...inOrder.map((model) => byModel.get(model)));
        });
    }

    // ---- painting

    const colourName = (map, chosen) => (chosen.colours === "auto" ? (map.signed && chosen.view !== "error" ? constants.diverging : "inferno") : chosen.colours);
    const arrayAddress = (map, chosen) => (chosen.view === "error" ? map.standard_error_npy : map.npy);

    let painting = 0;
    async function repaint() {
        const turn = ++painting;
        const chosen = display();
        const shown = [...cells.values()].filter((cell) => cell.map);
        const loaded = await Promise.all(shown.map(async (cell) => {
            const address = arrayAddress(cell.map, chosen);
            if (!address) return { cell, missing: "no standard error" };
            try {
                const [array, picture] = await Promise.all([convscope.loadMap(address), convscope.loadPicture(cell.map.input_png)]);
                return { cell, array, picture, high: convscope.highest(array, chosen.clip) };
            } catch (error) {
                return { cell, missing: error.message };
            }
        }));
        if (turn !== painting) return;
        const shared = (found) => {
            if (chosen.scale === "own") return found.high;
            const together = loaded.filter((other) => other.array && (chosen.scale === "all" || other.cell.model === found.cell.model));
            return Math.max(...together.map((other) => other.high));
        };
        for (const found of loaded) {
            const { cell, array, picture, missing } = found;
            cell.element.classList.toggle("missing", Boolean(missing));
            cell.element.dataset.missing = missing || "";
            if (missing) continue;
            const name = colourName(cell.map, chosen);
            const high = shared(found);
            cell.array = array;
            cell.high = high;
            convscope.paint(cell.canvas, array, picture, { table: constants.colours[name], diverging: name === constants.diverging, high,
                strength: chosen.view === "map" ? 1 : chosen.view === "error" ? 1 : chosen.strength / 100, wipe: chosen.wipe / 100 });
            cell.canvas.dataset.painted = `${name} ${high}`;
        }
        legend(chosen, loaded.filter((found) => found.array));
    }

    function legend(chosen, loaded) {
        if (!loaded.length) { parts.legend.replaceChildren(); return; }
        const names = new Set(loaded.map((found) => colourName(found.cell.map, chosen)));
        const name = names.size === 1 ? [...names][0] : null;
        const highs = new Set(loaded.map((found) => found.cell.high));
        const what = { own: "each map has its own scale, so their strengths cannot be compared", model: "one scale per model", all: "one scale for all maps" };
        const unit = chosen.view === "error" ? "standard error of the map" : unitOf(page.method);
        const bar = make("canvas", { class: "colour-bar", "aria-hidden": "true" });
        if (name) convscope.paintBar(bar, constants.colours[name]);
        const top = highs.size === 1 ? number([...highs][0]) : `${chosen.clip.toFixed(1)}th percentile`;
        const low = name === constants.diverging ? `−${top}` : "0";
        const dtypes = [...new Set(loaded.map((found) => found.cell.map.dtype))].join(" and ");
        parts.legend.replaceChildren(...(name ? [make("span", { class: "num" }, low), bar, make("span", { class: "num" }, top)] : []),
            make("span", {}, `${unit}; ${what[chosen.scale]}; ${dtypes}`));
    }

    function unitOf(method) {
        return {
            smoothgrad: page.parameters.variant && page.parameters.variant !== "mean" ? "moments of the gradient of the class's logit by pixels in [0, 1]"
                : "mean gradient of the class's logit by pixels in [0, 1]",
            gradient: "gradient of the class's logit by pixels in [0, 1]",
            guided_backprop: "guided gradient of the class's logit by pixels in [0, 1]",
            gradient_x_input: "gradient × (pixel − mean), in logits",
            integrated_gradients: "share of the logit's change from the baseline",
            gradcam: "weighted activation of the layer",
            occlusion: "fall of the logit when the pixel is hidden",
        }[method] || method;
    }

    // ---- values under the pointer

    function hover(element, cell) {
        // a dialog lies over everything outside of it
        const tip = () => (element.closest("dialog") || document).querySelector("#tip, .value-tip");
        const tell = (event) => {
            const box = tip();
            if (!cell.array || !box) return;
            const area = cell.canvas.getBoundingClientRect();
            const x = Math.min(cell.array.width - 1, Math.max(0, Math.floor(((event.clientX - area.left) / area.width) * cell.array.width)));
            const y = Math.min(cell.array.height - 1, Math.max(0, Math.floor(((event.clientY - area.top) / area.height) * cell.array.height)));
            const value = cell.array.data[y * cell.array.width + x];
            box.className = "value-tip";
            box.replaceChildren(make("b", { class: "num" }, number(value)), make("span", { class: "num quiet" }, ` at row ${y}, column ${x}`));
            box.hidden = false;
            const size = box.getBoundingClientRect();
            const left = Math.min(event.clientX + 14, innerWidth - size.width - 8);
            const top = event.clientY + 18 + size.height > innerHeight ? event.clientY - size.height - 10 : event.clientY + 18;
            box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
        };
        element.addEventListener("pointermove", tell);
        element.addEventListener("pointerdown", tell);
        element.addEventListener("pointerleave", (event) => {
            const box = tip();
            // a finger leaves when it is lifted; what it pointed at stays to be read
            if (box && (event.pointerType !== "touch" || box.id === "tip")) box.hidden = true;
        });
    }

    convscope.saliencyState = () => ({ page, constants, job, display: display(), cells, colourName, arrayAddress, unitOf, hover });
})();
