/* The controls of a request, which the Saliency and the Attack page share: models, images, a method with its
   parameters, a class; and the lines that say how jobs go on. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make, icon, duration, ask, UNFINISHED } = convscope;

const classes = new Map(),
    labels = new Map();

/* Whether the address asks for what `page` was made for, but for names that concern the browser alone. */
convscope.isCurrent = function (page, display) {
    const asked = (search) => {
        const query = new URLSearchParams(search || "");
        display.forEach((name) => query.delete(name));
        query.sort();
        return query.toString();
    };
    return asked(page.search) === asked(location.search);
};

convscope.parameterLabel = (parameter) => parameter.label || parameter.name.replaceAll("_", " ");

/* The results of a page's request, in the order of its images and models; the first of several lists gives way. */
convscope.merged = function (page, ...lists) {
    const found = new Map(lists.flat().map((one) => [`${one.image_id} ${one.model}`, one]));
    return page
        ? page.rows
              .flatMap((row) => page.chosen.map((model) => found.get(`${row.id} ${model}`)))
              .filter(Boolean)
        : [];
};

/* A labelled control. */
convscope.control = (id, label, className, ...content) =>
    make("div", { class: `control ${className}` }, make("label", { for: id }, label), ...content);

convscope.selectBox = (id, options, changed) =>
    make(
        "select",
        { id, class: "form-select form-select-sm", onchange: changed },
        Object.entries(options).map(([value, text]) => make("option", { value }, text)),
    );

/* `prefix` of all ids; `target` the words of the choice of a class; `reads(name, parameters)` whether a method's
   parameter is read; `presses` what Run does; `say` shows a sentence; `guess` is the class offered first. */
convscope.requestForm = function ({ prefix, methods, standard, label, target, reads, presses, say, guess }) {
    const id = (name) => `${prefix}-${name}`;
    const find = (name) => document.getElementById(id(name));
    const small = "form-control form-control-sm";
    const control = (name, text, ...content) =>
        convscope.control(id(name), text, `${name}-control`, ...content);
    let page = null,
        asking = null,
        choices = 0,
        drawn = "";
    const parts = {
        models: make("div", { class: "checks" }),
        parameters: make("div", { class: "parameters" }),
        reference: make("p", { class: "reference quiet" }),
        classes: make("datalist", { id: id("classes") }),
        run: make(
            "button",
            { type: "submit", class: "btn btn-primary run" },
            icon("play-fill"),
            make("span", {}, "Run"),
        ),
    };
    const picker = make(
        "div",
        { class: "pick", role: "group", "aria-label": "Choose images" },
        make(
            "div",
            { class: "pick-line" },
            make("input", {
                id: id("n"),
                type: "number",
                min: 1,
                max: 240,
                value: "6",
                class: small,
                "aria-label": "How many images to choose",
            }),
            make("input", {
                id: id("label"),
                class: `${small} pick-class`,
                list: id("labels"),
                placeholder: "of any class",
                autocomplete: "off",
                "aria-label": "Class of the images to choose",
                onfocus: () => loadLabels(),
            }),
            make("datalist", { id: id("labels") }),
        ),
        make(
            "div",
            { class: "pick-line" },
            make(
                "button",
                { type: "button", class: "btn btn-sm btn-quiet", onclick: () => pickImages("first") },
                "First",
            ),
            make(
                "button",
                { type: "button", class: "btn btn-sm btn-quiet", onclick: () => pickImages("random") },
                icon("shuffle"),
                "Random",
            ),
            make("span", { class: "quiet" }, "seed"),
            make("input", {
                id: id("pickseed"),
                type: "number",
                min: 0,
                value: "0",
                class: small,
                "aria-label": "Seed of the random choice",
            }),
            make("a", { class: "btn btn-sm btn-quiet", id: id("choose") }, icon("images"), "Choose…"),
        ),
        make(
            "div",
            { class: "pick-line" },
            make("label", { for: id("where"), class: "quiet" }, "where"),
            make("input", {
                id: id("where"),
                class: `${small} pick-where`,
                autocomplete: "off",
                spellcheck: "false",
                placeholder: "SQL: verdict = 'right' AND width > 300",
                title: "A condition over name, label, wnid, split, width, height, bytes, predicted, probability and verdict. Enter chooses all images for which it holds.",
                onkeydown: (event) => {
                    if (event.key === "Enter") {
                        event.preventDefault();
                        pickWhere(event.target.value.trim());
                    }
                },
                onchange: (event) => pickWhere(event.target.value.trim()),
            }),
            make(
                "button",
                {
                    type: "button",
                    class: "btn btn-sm btn-quiet",
                    title: "All images of the set; the condition stays in its field",
                    onclick: () => pickWhere(""),
                },
                "All",
            ),
        ),
        make(
            "label",
            { class: "check only-right" },
            make("input", { type: "checkbox", class: "form-check-input", id: id("verdict") }),
            make("span", {}, "only images that the model gets right"),
        ),
    );
    const element = make(
        "form",
        {
            class: "controls asks",
            "aria-label": "What is computed",
            onsubmit: (event) => {
                event.preventDefault();
                presses();
            },
        },
        make("fieldset", { class: "control models-control" }, make("legend", {}, "Models"), parts.models),
        make(
            "div",
            { class: "control ids-group" },
            make("label", { for: id("ids") }, "Images by number"),
            make("input", {
                id: id("ids"),
                class: `${small} num`,
                autocomplete: "off",
                placeholder: "0,1,4-7",
                onchange: (event) =>
                    convscope.address({
                        ids: event.target.value.trim(),
                        n: "",
                        seed: "",
                        label: "",
                        verdict: "",
                        where: "",
                        attack: "",
                    }),
            }),
            picker,
        ),
        make(
            "div",
            { class: "method-group" },
            make(
                "div",
                { class: "method-line" },
                control(
                    "method",
                    "Method",
                    convscope.selectBox(
                        id("method"),
                        Object.fromEntries(
                            Object.entries(methods).map(([name, method]) => [name, method.title]),
                        ),
                        changeMethod,
                    ),
                ),
                control(
                    "target",
                    label,
                    convscope.selectBox(id("target"), target, (event) => changeTarget(event.target.value)),
                ),
                control(
                    "class",
                    "Class",
                    make("input", {
                        id: id("class"),
                        class: small,
                        autocomplete: "off",
                        spellcheck: "false",
                        onchange: (event) => changeClass(event.target.value),
                        list: id("classes"),
                        placeholder: "Name or index",
                    }),
                ),
                parts.run,
            ),
            parts.parameters,
            parts.reference,
        ),
        parts.classes,
    );

    /* Put what the address says into the controls; one that is being typed into is left alone. */
    function fill(given) {
        page = given;
        const set = (name, value) => {
            const found = find(name);
            if (found && found !== document.activeElement) found.value = value;
        };
        set("ids", page.ids);
        const query = new URLSearchParams(location.search);
        if (query.has("n")) set("n", query.get("n"));
        if (query.has("seed")) set("pickseed", query.get("seed"));
        if (query.has("where")) set("where", query.get("where")); // else what was typed stays, to be used again
        find("verdict").checked = query.get("verdict") === "right";
        if (query.has("label")) loadLabels().then((found) => set("label", nameOf(found, query.get("label"))));
        set("method", page.method);
        const other = !["prediction", "label"].includes(page.target);
        set("target", other ? "index" : page.target);
        element.querySelector(".class-control").hidden = !other;
        if (other) {
            loadClasses(page.chosen[0]).then((names) => {
                const known = names[Number(page.target)];
                set("class", page.target === "index" ? "" : known ? `${page.target}: ${known}` : page.target);
            });
        }
        find("choose").href =
            convscope.local("/images?") +
            new URLSearchParams({ images: page.image_set, model: page.chosen[0] });
        find("choose").onclick = () =>
            convscope.chooseFrom({
                path: convscope.pagePath(location.pathname),
                search: location.search,
                images: page.image_set,
                ids: page.ids,
            });
        const known = [...new Set([...page.models, ...page.chosen])];
        if (parts.models.dataset.known !== known.join()) {
            parts.models.dataset.known = known.join();
            parts.models.replaceChildren(
                ...known.map((name) =>
                    make(
                        "label",
                        { class: "check" },
                        make("input", {
                            type: "checkbox",
                            class: "form-check-input",
                            value: name,
                            onchange: changeModels,
                        }),
                        make("span", {}, name),
                    ),
                ),
            );
        }
        parts.models.querySelectorAll("input").forEach((box) => {
            box.checked = page.chosen.includes(box.value);
        });
        fillParameters();
        parts.run.disabled = !page.request;
    }

    function fillParameters() {
        const method = methods[page.method];
        const values = Object.fromEntries(
            (method ? method.parameters : []).map((parameter) => [
                parameter.name,
                page.parameters[parameter.name] === undefined
                    ? parameter.default
                    : page.parameters[parameter.name],
            ]),
        );
        const shown = (method ? method.parameters : []).filter(
            (parameter) => !reads || reads(parameter.name, values),
        );
        const key = `${page.method} ${shown.map((parameter) => parameter.name)}`;
        if (parts.parameters.dataset.shown !== key) {
            parts.parameters.dataset.shown = key;
            parts.parameters.replaceChildren(
                ...shown.map((parameter) => {
                    const name = id(`p-${parameter.name}`);
                    const changed = (event) =>
                        convscope.address({
                            [`p_${parameter.name}`]:
                                event.target.value === String(parameter.default) ? "" : event.target.value,
                            attack: "",
                            ...gone(
                                (other) =>
                                    reads &&
                                    !reads(other, { ...values, [parameter.name]: event.target.value }),
                            ),
                        });
                    const input = parameter.choices.length
                        ? make(
                              "select",
                              { id: name, class: "form-select form-select-sm", onchange: changed },
                              parameter.choices.map((choice, at) =>
                                  make(
                                      "option",
                                      { value: choice },
                                      parameter.words[at] || choice.replaceAll("_", " "),
                                  ),
                              ),
                          )
                        : make("input", {
                              id: name,
                              class: `${small} num`,
                              onchange: changed,
                              autocomplete: "off",
                              inputmode: typeof parameter.default === "number" ? "decimal" : "text",
                              placeholder: parameter.default === "" ? "default layer" : parameter.default,
                          });
                    return make(
                        "div",
                        {
                            class: "control",
                            title: parameter.help,
                            onfocusin: () => {
                                parts.reference.textContent = `${convscope.parameterLabel(parameter)}: ${parameter.help}`;
                            },
                            onfocusout: () => {
                                parts.reference.textContent = method.reference;
                            },
                        },
                        make("label", { for: name }, convscope.parameterLabel(parameter)),
                        input,
                    );
                }),
            );
        }
        for (const parameter of shown) {
            const input = find(`p-${parameter.name}`);
            const value = values[parameter.name];
            if (input !== document.activeElement)
                input.value = typeof value === "number" ? Number(value.toPrecision(6)) : value;
        }
        parts.reference.textContent = method ? method.reference : "";
    }

    /* The names of the address's parameters for which `wanted` holds, each to be taken out. */
    const gone = (wanted) =>
        Object.fromEntries(
            [...new URLSearchParams(location.search).keys()]
                .filter((name) => name.startsWith("p_") && wanted(name.slice(2)))
                .map((name) => [name, ""]),
        );

    function changeModels() {
        const chosen = [...parts.models.querySelectorAll("input:checked")].map((box) => box.value);
        if (!chosen.length) {
            fill(page);
            return;
        }
        convscope.address({ models: chosen.join(","), model: chosen[0], attack: "" });
    }

    function changeMethod(event) {
        const chosen = methods[event.target.value];
        const has = chosen.parameters.map((parameter) => parameter.name);
        // what both have stays as it was set, where they are kinds of one thing
        convscope.address({
            ...gone((name) => !reads || !has.includes(name)),
            method: event.target.value === standard ? "" : event.target.value,
            attack: "",
        });
    }

    function changeTarget(value) {
        convscope.address({
            target: value === "index" ? String(guess() || 0) : value === "prediction" ? "" : value,
            attack: "",
        });
    }

    async function loadClasses(model) {
        const key = `${page.version} ${model}`; // indexed again, a model may have other classes
        if (!classes.has(key)) {
            const answer = await ask("/choices/classes.json?" + new URLSearchParams({ model }));
            classes.set(key, answer.classes);
        }
        const names = classes.get(key);
        if (parts.classes.dataset.model !== key) {
            parts.classes.dataset.model = key;
            parts.classes.replaceChildren(
                ...names.map((name, index) => make("option", { value: `${index}: ${name}` })),
            );
        }
        return names;
    }

    async function changeClass(text) {
        const names = await loadClasses(page.chosen[0]);
        const wanted = text.trim().toLowerCase();
        const leading = /^(\d+)\s*(:|$)/.exec(wanted);
        const matching = (fits) =>
            names.map((name, index) => index).filter((index) => fits(names[index].toLowerCase()));
        let found = leading
            ? [Number(leading[1])].filter((index) => index < names.length)
            : matching((name) => name === wanted);
        if (!found.length && !leading && wanted) found = matching((name) => name.includes(wanted));
        if (found.length === 1) {
            convscope.address({ target: String(found[0]), attack: "" });
            return;
        }
        const shown = found
            .slice(0, 5)
            .map((index) => `${index}: ${names[index]}`)
            .join(", ");
        // the address says what was typed, so that no maps of another class stand below it
        convscope.address({ target: text.trim() || "index", attack: "" });
        say(
            found.length
                ? `${found.length} classes of ${page.chosen[0]} are called like “${text}”: ${shown}${found.length > 5 ? ", …" : ""}.`
                : `No class of ${page.chosen[0]} is called “${text}”: expected a name, or an index from 0 to ${names.length - 1}.`,
        );
    }

    /* The classes that images of the set are labelled with. */
    async function loadLabels() {
        const images = page.image_set,
            key = `${page.version} ${images}`; // imported again, a set may have other labels
        if (!labels.has(key))
            labels.set(key, (await ask("/choices/labels.json?" + new URLSearchParams({ images }))).labels);
        const found = labels.get(key),
            list = find("labels");
        if (list && list.dataset.of !== key) {
            list.dataset.of = key;
            list.replaceChildren(
                ...found.map((one) => make("option", { value: one.name }, `${one.images} images`)),
            );
        }
        return found;
    }

    const nameOf = (found, wanted) => (found.find((one) => one.label === wanted) || { name: wanted }).name;

    async function pickImages(how) {
        const value = (name) => find(name).value.trim();
        const asked = new URLSearchParams({ images: page.image_set, model: page.chosen[0], n: value("n") });
        if (find("verdict").checked) asked.set("verdict", "right");
        const wanted = value("label").toLowerCase();
        if (how === "random") {
            // pressed again, it draws others: with the next seed
            const draw = [asked.toString(), wanted, value("pickseed")].join();
            if (draw === drawn) find("pickseed").value = String(Number(value("pickseed")) + 1);
            asked.set("seed", value("pickseed"));
            drawn = [asked.toString().replace(/&seed=[^&]*/, ""), wanted, value("pickseed")].join();
        }
        await pick(async () => {
            if (wanted) {
                const found = await loadLabels();
                const one =
                    found.find((other) => other.name.toLowerCase() === wanted) ||
                    found.find((other) => other.name.toLowerCase().includes(wanted));
                if (!one) throw new Error(`No image of ${page.image_set} is labeled “${value("label")}”.`);
                asked.set("label", one.label);
            }
            const answer = await ask(`/choices/ids.json?${asked}`);
            return {
                ...answer,
                address: {
                    n: asked.get("n"),
                    seed: asked.get("seed") || "",
                    label: asked.get("label") || "",
                    verdict: asked.get("verdict") || "",
                    where: "",
                },
            };
        });
    }

    /* All images for which a condition holds, or all; Enter and leaving the field ask once. */
    async function pickWhere(where) {
        if (where === asking) return;
        asking = where;
        const asked = new URLSearchParams({ images: page.image_set, model: page.chosen[0], where });
        await pick(async () => ({
            ...(await ask(`/choices/where.json?${asked}`)),
            address: { n: "", seed: "", label: "", verdict: "", where },
        }));
        if (asking === where) asking = null;
    }

    /* What was chosen last is what counts, whichever answer comes first. */
    async function pick(choose) {
        const mine = ++choices;
        let answer = null,
            sentence = "";
        try {
            answer = await choose();
            if (!answer.images) sentence = `No image of ${page.image_set} is like that.`;
        } catch (error) {
            sentence = error.message;
        }
        if (mine !== choices) return;
        say(sentence);
        if (!sentence) convscope.address({ ids: answer.ids, ...answer.address, attack: "" });
    }

    return { element, fill, run: parts.run };
};

/* How a job goes on, with buttons to cancel or to try again; nothing of one that is done. */
convscope.jobLine = function (job, noun, act) {
    if (!job || job.state === "done") return [];
    const running = UNFINISHED.includes(job.state);
    const left =
        job.state === "running" && job.seconds_left !== null ? `, ${duration(job.seconds_left)} left` : "";
    const words =
        `${job.items_done.toLocaleString("en")} of ${job.items.toLocaleString("en")} ${noun}` +
        `${job.items_failed ? `, ${job.items_failed} failed` : ""}${left}`;
    const state = job.cancel_requested && running ? "cancelling" : job.state;
    const lines = [
        make(
            "div",
            { class: "job-now" },
            make("a", { href: convscope.local(`/jobs?job=${job.job}`), class: "num" }, `Job ${job.job}`),
            make("span", {}, state),
            convscope.bar(job.progress, words, job.state),
            running && !job.cancel_requested
                ? make(
                      "button",
                      {
                          type: "button",
                          class: "btn btn-sm btn-quiet",
                          onclick: () => act(`/api/jobs/${job.job}`, "DELETE"),
                      },
                      icon("x-lg"),
                      "Cancel",
                  )
                : null,
            ["failed", "cancelled"].includes(job.state)
                ? make(
                      "button",
                      {
                          type: "button",
                          class: "btn btn-sm btn-quiet",
                          onclick: () => act(`/api/jobs/${job.job}/retry`, "POST"),
                      },
                      icon("arrow-clockwise"),
                      "Retry",
                  )
                : null,
            job.state === "running" && job.note ? make("p", { class: "num quiet job-note" }, job.note) : null,
            job.state === "failed" && job.error ? make("p", { class: "problem" }, job.error) : null,
        ),
    ];
    const store = convscope.lastWork;
    if (job.state === "queued" && store) {
        const told = convscope.workWords(store);
        if (told && told[0] === "off") lines.push(make("p", { class: "problem" }, `${told[1]}: ${told[2]}.`));
    }
    return lines;
};

/* Put lines of jobs into `place`; the button that had the focus has it again. */
convscope.drawJobLines = function (place, lines) {
    const text = lines.map((line) => line.textContent).join();
    if (place.dataset.shown === text && !text.includes("of")) return;
    const focused = place.contains(document.activeElement) && document.activeElement.textContent;
    place.dataset.shown = text;
    place.replaceChildren(...lines);
    if (!focused) return;
    const again = [...place.querySelectorAll("button, a")].find((element) => element.textContent === focused);
    if (again) again.focus();
};
