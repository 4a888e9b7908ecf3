/* What an attack moves: maps before and after with the noise of their difference, layers and channels, and what was
   asked since of other models and of held channels. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make, icon, number, percent, svg } = convscope;
const CLIP = 99.5;
const TITLES = {
    clean: "Before",
    attacked: "After, same class",
    attacked_own: "After, its own prediction",
    other_seed: "Null: clean, other draws of noise",
    random_signs: "Null: random signs of the same ε",
};

const button = (id, symbol, words, disabled, press) =>
    make(
        "button",
        { id, type: "button", class: "btn btn-sm btn-quiet", disabled, onclick: press },
        icon(symbol),
        words,
    );

// ---- maps

const ASKED = ["samples", "noise_level", "seed"];
const askedOf = (one) => ASKED.map((name) => Number(one[name])).join(" ");
let wanted = { attack: 0, asked: "" };
/* Which request's maps are shown of an attack: those asked for last in this window, else the newest. */
convscope.shownComparison = (attack) =>
    (wanted.attack === attack.attack && attack.comparisons.find((one) => askedOf(one) === wanted.asked)) ||
    attack.comparisons[0] ||
    null;

convscope.attackMaps = function (attack, { constants, follow, busy, redraw }) {
    const card = make("section", {
        class: "card-plain attack-maps",
        "aria-label": "Saliency before and after",
    });
    const shown = convscope.shownComparison(attack);
    const maps = shown ? shown.maps : [];
    const field = (parameter) =>
        make(
            "div",
            { class: "control" },
            make("label", { for: `maps-${parameter.name}` }, convscope.parameterLabel(parameter)),
            make("input", {
                id: `maps-${parameter.name}`,
                class: "form-control form-control-sm num",
                autocomplete: "off",
                title: parameter.help,
                value: String(shown ? shown[parameter.name] : parameter.default),
            }),
        );
    const value = (name) => Number(document.getElementById(`maps-${name}`).value);
    const waits = busy.includes("comparison");
    card.append(
        make(
            "div",
            { class: "bar-line" },
            make("h2", {}, "Saliency before and after"),
            attack.attacked_epsilon
                ? make(
                      "div",
                      { class: "inline-form" },
                      constants.maps.map(field),
                      button("maps-compute", "bullseye", waits ? "Computing…" : "Compute", waits, () => {
                          const parameters = Object.fromEntries(
                              constants.maps.map((one) => [one.name, value(one.name)]),
                          );
                          wanted = { attack: attack.attack, asked: askedOf(parameters) };
                          follow("comparison", { parameters });
                      }),
                  )
                : null,
        ),
    );
    if (!attack.attacked_epsilon) {
        card.append(make("p", { class: "quiet" }, "Nothing was changed, so there is no after."));
        return card;
    }
    if (!shown) {
        card.append(
            make(
                "p",
                { class: "quiet" },
                "SmoothGrad of the image and of the attacked image with the same draws of noise, their difference with its " +
                    "standard error, and two nulls to read it by: other draws, and random signs of the same epsilon.",
            ),
        );
        return card;
    }
    const words = (one) => `${one.samples} samples, noise level ${one.noise_level}, seed ${one.seed}`;
    card.append(
        attack.comparisons.length > 1
            ? make(
                  "div",
                  { class: "control maps-shown" },
                  make("label", { for: "maps-shown" }, "Shown"),
                  make(
                      "select",
                      {
                          id: "maps-shown",
                          class: "form-select form-select-sm",
                          onchange: (event) => {
                              wanted = { attack: attack.attack, asked: event.target.value };
                              redraw();
                          },
                      },
                      attack.comparisons.map((one) =>
                          make("option", { value: askedOf(one), selected: one === shown }, words(one)),
                      ),
                  ),
              )
            : make("p", { class: "quiet" }, `Shown: ${words(shown)}.`),
    );
    const byPanel = Object.fromEntries(maps.map((map) => [map.panel, map]));
    const cells = [];
    const cell = (map, part, title, words) => {
        const canvas = make("canvas", { width: 224, height: 224, role: "img", "aria-label": title });
        const address =
            part === "map" ? map.npy : part === "difference" ? map.difference_npy : map.standard_error_npy;
        cells.push({ canvas, part, address });
        return make(
            "figure",
            {},
            make("h3", {}, title),
            canvas,
            make(
                "figcaption",
                {},
                make("span", {}, words),
                make(
                    "a",
                    {
                        href: address,
                        download: "",
                        title: "Its numbers",
                        "aria-label": `${title}: its numbers`,
                    },
                    icon("download"),
                    "NPY",
                ),
            ),
        );
    };
    const target = (map) => `of ${map.target_name || map.target_class}`;
    const { clean, attacked, attacked_own: own, other_seed: other, random_signs: signs } = byPanel;
    const grid = make(
        "div",
        { class: "map-panels" },
        cell(clean, "map", TITLES.clean, target(clean)),
        cell(attacked, "map", TITLES.attacked, target(attacked)),
        cell(attacked, "difference", "Difference", "after − before"),
        cell(attacked, "standard_error", "Its standard error", "over paired samples"),
        cell(own, "map", TITLES.attacked_own, target(own)),
        cell(own, "difference", "Difference", "own − before"),
        cell(other, "difference", "Null: other draws", "clean − clean"),
        cell(signs, "difference", "Null: random signs", "random − clean"),
    );
    const legend = make("p", { class: "legend" });
    const table = make(
        "div",
        { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Distances to the map before" },
        make(
            "table",
            { class: "table-plain" },
            make(
                "thead",
                {},
                make(
                    "tr",
                    {},
                    [
                        "Beside the map before",
                        "Class",
                        "Rank correlation",
                        "SSIM",
                        "Mean |difference|",
                        "Mean standard error",
                        "Beyond 2 errors",
                    ].map((name, at) => make("th", { scope: "col", class: at > 1 ? "end" : null }, name)),
                ),
            ),
            make(
                "tbody",
                {},
                maps
                    .filter((map) => map.panel !== "clean")
                    .map((map) =>
                        make(
                            "tr",
                            { class: map.panel.startsWith("attacked") ? "" : "quiet" },
                            make("td", {}, TITLES[map.panel]),
                            make("td", {}, map.target_name || String(map.target_class)),
                            make("td", { class: "num end" }, map.rank_correlation.toFixed(3)),
                            make("td", { class: "num end" }, map.ssim.toFixed(3)),
                            make("td", { class: "num end" }, number(map.mean_difference)),
                            make("td", { class: "num end" }, number(map.mean_standard_error)),
                            make("td", { class: "num end" }, percent(map.beyond_noise)),
                        ),
                    ),
            ),
        ),
    );
    card.append(grid, legend, make("p", {}, reading(byPanel)), table);
    paint(cells, legend, constants, clean.samples);
    return card;
};

/* What the numbers say: how far the ranks of the pixels move, beside what random signs and other draws do. */
function reading({ attacked, other_seed: other, random_signs: signs }) {
    const far = (map) => 1 - map.rank_correlation;
    const [attack, random, noise] = [far(attacked), far(signs), far(other)];
    const times = random > 0 ? attack / random : Infinity;
    const verdict =
        times > 2 && attacked.beyond_noise > 0.1
            ? "The explanation of the same class moves with the attack."
            : times > 2
              ? "It moves more than by chance, though few pixels clearly do."
              : "The explanation of the same class moves hardly more than by chance.";
    return (
        `For the same class the ranks of the pixels move by ${attack.toFixed(3)} (1 − rank correlation), ${times.toFixed(1)} times what random signs ` +
        `of the same size do (${random.toFixed(3)}); ${percent(attacked.beyond_noise)} of the pixels differ by more than two standard errors, where chance makes about 5 %. ${verdict} ` +
        `Other draws of noise alone would move them by ${noise.toFixed(3)}: hence the same draws before and after.`
    );
}

async function paint(cells, legend, constants, samples) {
    try {
        await Promise.all(
            cells.map(async (cell) => {
                cell.map = await convscope.loadMap(cell.address);
            }),
        );
    } catch (error) {
        legend.textContent = error.message;
        return;
    }
    const ends = {};
    for (const part of ["map", "difference", "standard_error"]) {
        const together = cells.filter((cell) => (part === "map" ? cell.part === "map" : cell.part !== "map"));
        ends[part] = Math.max(...together.map((cell) => convscope.highest(cell.map, CLIP)));
    }
    for (const cell of cells) {
        const diverging = cell.part === "difference";
        convscope.paint(cell.canvas, cell.map, null, {
            table: constants.colours[diverging ? constants.diverging : "inferno"],
            diverging,
            high: ends[cell.part],
            strength: 1,
            wipe: 0,
        });
    }
    legend.textContent =
        `Maps share one scale, which ends at ${number(ends.map)}; differences and their error share another, at ±${number(ends.difference)} ` +
        `(${CLIP}th percentiles). Red: more than before, blue: less. SmoothGrad, ${samples} samples, the largest absolute value of three colours.`;
}

// ---- inside

convscope.attackInside = function (attack, context) {
    const { page, constants, follow, busy } = context;
    const card = make(
        "section",
        { class: "card-plain attack-inside", "aria-label": "Inside" },
        make("h2", {}, "Inside"),
    );
    if (!attack.layers.length) {
        card.append(make("p", { class: "quiet" }, "Nothing was changed, so nothing moved."));
        return card;
    }
    const known = attack.units.some((unit) => unit.deviations !== null);
    const size = (unit) =>
        known ? (unit.deviations === null ? -1 : Math.abs(unit.deviations)) : Math.abs(unit.shift);
    const movers = make("div", { class: "movers" });
    const title = make("h3", {});
    const leftOut = make("p", { class: "quiet" });
    let layer = null;
    const show = () => {
        const shown = attack.units
            .filter((unit) => layer === null || unit.layer === layer)
            .sort((a, b) => size(b) - size(a))
            .slice(0, 8);
        title.textContent =
            layer === null
                ? "Channels that moved most"
                : `Channels of ${shown.length ? shown[0].label : layer} that moved most`;
        movers.replaceChildren(...shown.map((unit) => mover(attack, unit, known)));
        leftOut.textContent = deadWords(
            attack.layers.filter((row) => layer === null || row.layer === layer),
            known,
            constants,
        );
        drawing
            .querySelectorAll(".pill")
            .forEach((pill) => pill.classList.toggle("on", pill.dataset.layer === layer));
    };
    const drawing = network(attack, page.drawings[attack.model], (name) => {
        layer = layer === name ? null : name;
        show();
    });
    card.append(
        make(
            "div",
            { class: "inside-columns" },
            make(
                "div",
                { class: "network" },
                make("h3", {}, "Change of each layer"),
                drawing,
                make(
                    "p",
                    { class: "quiet" },
                    "The stronger the color, the further the layer's output moved, relative to its own size (Euclidean norm). Choose a layer to see its channels.",
                ),
            ),
            make(
                "div",
                {},
                title,
                make(
                    "p",
                    { class: "quiet" },
                    known
                        ? `By the shift of the largest activation over the channel's spread: ${constants.spread}. Next to them the patches that drive the channel most.`
                        : "By the shift of the largest activation: this set was not indexed with the model, so channels cannot be compared by their own spread.",
                ),
                leftOut,
                movers,
            ),
        ),
    );
    show();
    card.append(causal(attack, follow, busy), judged(attack, page, follow, busy));
    return card;
};

/* How many channels are not ranked; an earlier rule ranked them all. */
function deadWords(layers, known, constants) {
    if (layers.some((row) => row.dead === null)) {
        return "An earlier rule ranked these channels: nearly dead ones may come first. Request the attack again to rank them anew.";
    }
    const dead = layers.reduce((sum, row) => sum + row.dead, 0);
    const why = known ? constants.dead : "0 before and after";
    return dead
        ? `${dead.toLocaleString("en")} ${dead === 1 ? "channel is" : "channels are"} left out: ${why}.`
        : "";
}

function mover(attack, unit, known) {
    const href =
        convscope.local("/channel?") +
        new URLSearchParams({
            model: attack.model,
            images: attack.image_set,
            layer: unit.layer,
            channel: unit.channel,
        });
    const up = unit.shift >= 0;
    return make(
        "a",
        { class: "mover", href },
        make(
            "div",
            { class: "mover-words" },
            make("b", {}, `${unit.label.replaceAll(" > ", " › ")} · ${unit.channel}`),
            make(
                "span",
                { class: `num ${up ? "up" : "down"}` },
                icon(up ? "arrow-up" : "arrow-down"),
                known && unit.deviations !== null
                    ? `${Math.abs(unit.deviations).toFixed(1)} SD`
                    : number(Math.abs(unit.shift)),
            ),
            make(
                "small",
                { class: "quiet num" },
                `${number(unit.activation_before)} → ${number(unit.activation_after)}, row ${unit.y} column ${unit.x}`,
            ),
        ),
        unit.patches
            ? make("div", {
                  class: "mover-patches",
                  style: `background-image:url("${unit.patches.picture}");aspect-ratio:${unit.patches.k}`,
                  role: "img",
                  "aria-label": `The ${unit.patches.k} patches that drive channel ${unit.channel} of ${unit.label} most`,
              })
            : null,
    );
}

/* The drawing of the network as SVG, each layer coloured by how far it moved; without it, a list. */
function network(attack, drawing, choose) {
    const changes = new Map(attack.layers.map((row) => [row.layer, row]));
    const most = Math.max(...attack.layers.map((row) => row.relative_change), 1e-12);
    const pills = (drawing ? drawing.nodes : []).filter((node) => node.width);
    if (!pills.length)
        return make("p", { class: "quiet" }, "This model is not in the atlas, so there is no drawing of it.");
    const at = new Map(pills.map((node) => [node.id, node]));
    const line = (edge) => {
        const [from, to] = [at.get(edge.source), at.get(edge.target)];
        if (!from || !to) return [];
        const beside = Math.abs(from.y - to.y) < 1;
        return svg("line", {
            class: "wire",
            x1: from.x + (beside ? (Math.sign(to.x - from.x) * from.width) / 2 : 0),
            y1: from.y + (beside ? 0 : 12),
            x2: to.x - (beside ? (Math.sign(to.x - from.x) * to.width) / 2 : 0),
            y2: to.y - (beside ? 0 : 12),
        });
    };
    const pill = (node) => {
        const row = changes.get(node.id);
        const share = row ? row.relative_change / most : 0;
        const words = row
            ? `${row.label}: moved by ${percent(row.relative_change)} of its size`
            : `${node.id}: not looked at`;
        const element = svg(
            "g",
            {
                class: "pill",
                tabindex: 0,
                role: "button",
                "aria-label": words,
                transform: `translate(${node.x - node.width / 2} ${node.y - 12})`,
            },
            svg("title", {}, words),
            svg("rect", {
                width: node.width,
                height: 24,
                rx: 6,
                style: `fill:color-mix(in srgb, var(--accent) ${Math.round(100 * share)}%, var(--sunken))`,
            }),
            svg(
                "text",
                { x: node.width / 2, y: 16, "text-anchor": "middle", class: share > 0.55 ? "strong" : "" },
                node.label,
            ),
        );
        element.dataset.layer = node.id;
        element.addEventListener("click", () => choose(node.id));
        element.addEventListener("keydown", (event) => {
            if (["Enter", " "].includes(event.key)) {
                event.preventDefault();
                choose(node.id);
            }
        });
        return element;
    };
    const heads = drawing.nodes
        .filter((node) => node.head)
        .map((node) => svg("text", { class: "head", x: node.x, y: node.y }, node.label));
    return make(
        "div",
        { class: "network-scroll" },
        svg(
            "svg",
            {
                viewBox: `${drawing.left} 0 ${drawing.width - drawing.left} ${drawing.height}`,
                width: drawing.width - drawing.left,
                height: drawing.height,
                role: "group",
                "aria-label": `Drawing of ${attack.model}`,
            },
            drawing.edges.flatMap(line),
            heads,
            pills.map(pill),
        ),
    );
}

// ---- asked since

const found = (one) =>
    one.outcome === "resisted"
        ? "resists"
        : one.outcome === "no_gradient"
          ? "no gradient"
          : one.epsilon === 0
            ? "changes without an attack"
            : `ε ${convscope.epsilonWords(one.epsilon)}`;

const VERDICTS = {
    carry: "These channels carry the attack.",
    no_more_than_random: "They do no more than random channels.",
    cannot_say: "Cannot say.",
};

/* The random draws by the epsilon that each needs: lowest, middle and highest. */
function spread(draws) {
    const needed = (draw) => (draw.epsilon === null ? Infinity : draw.epsilon);
    const sorted = [...draws].sort((a, b) => needed(a) - needed(b));
    const ends =
        sorted.length > 2
            ? [
                  ["lowest", 0],
                  ["median", (sorted.length - 1) >> 1],
                  ["highest", sorted.length - 1],
              ]
            : sorted.map((_, at) => [`draw ${at + 1}`, at]);
    return ends.map(([name, at]) => [
        `Random channels clamped, ${name}${sorted.length > 2 ? ` of ${sorted.length} draws` : ""}`,
        sorted[at],
    ]);
}

function causal(attack, follow, busy) {
    const waits = busy.includes("ablation");
    const part = make(
        "div",
        { class: "asked" },
        make(
            "div",
            { class: "bar-line" },
            make("h3", {}, "Do these channels carry the attack?"),
            button(
                "ablation-run",
                "scissors",
                waits ? "Searching…" : "Clamp the 10 channels that shifted most and rerun",
                waits,
                () => follow("ablation", {}),
            ),
        ),
    );
    if (!attack.ablations.length) {
        part.append(
            make(
                "p",
                { class: "quiet" },
                "Clamps the channels at the mean of their clean map and searches again, next to 20 random draws of as many channels of the same layers.",
            ),
        );
    }
    for (const one of attack.ablations) {
        const random = spread(one.random);
        const rows = [
            ["Nothing clamped", { outcome: attack.outcome, epsilon: attack.epsilon, probability: null }],
            [`The ${one.units.length} that shifted most${one.layer ? ` in ${one.layer}` : ""}, clamped`, one],
            ...random,
        ];
        part.append(
            make(
                "p",
                { class: "verdict" },
                make("b", {}, VERDICTS[one.verdict]),
                ` ${one.reason[0].toUpperCase()}${one.reason.slice(1)}.`,
            ),
            make(
                "div",
                {
                    class: "table-scroll",
                    tabindex: 0,
                    role: "region",
                    "aria-label": "Searches with channels clamped",
                },
                make(
                    "table",
                    { class: "table-plain" },
                    make(
                        "thead",
                        {},
                        make(
                            "tr",
                            {},
                            [
                                "",
                                "Smallest epsilon",
                                `Confidence in ${attack.class_name || attack.class_index} before`,
                            ].map((name, at) => make("th", { scope: "col", class: at ? "end" : null }, name)),
                        ),
                    ),
                    make(
                        "tbody",
                        {},
                        rows.map(([name, row]) =>
                            make(
                                "tr",
                                {},
                                make("td", {}, name),
                                make("td", { class: "num end" }, found(row)),
                                make(
                                    "td",
                                    { class: "num end" },
                                    row.probability === null ? "" : percent(row.probability),
                                ),
                            ),
                        ),
                    ),
                ),
            ),
            make(
                "p",
                { class: "quiet" },
                `${one.channels} channels, ${one.draws} random draws, seed ${one.seed}. Clamped: ` +
                    one.units.map(([layer, channel]) => `${layer} ${channel}`).join(", "),
            ),
        );
    }
    return part;
}

function judged(attack, page, follow, busy) {
    const others = page.models.filter((name) => name !== attack.model);
    const waits = busy.includes("transfer");
    const part = make(
        "div",
        { class: "asked" },
        make(
            "div",
            { class: "bar-line" },
            make("h3", {}, "What other models say of it"),
            others.length
                ? button("transfer-run", "people", waits ? "Asking…" : "Ask them", waits, () =>
                      follow("transfer", { judges: others }),
                  )
                : null,
        ),
    );
    if (!others.length) part.append(make("p", { class: "quiet" }, "No other model was indexed."));
    if (attack.transfers.length) {
        part.append(
            make(
                "div",
                { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Other models" },
                make(
                    "table",
                    { class: "table-plain" },
                    make(
                        "thead",
                        {},
                        make(
                            "tr",
                            {},
                            ["Model", "Before", "Attacked", ""].map((name) =>
                                make("th", { scope: "col" }, name),
                            ),
                        ),
                    ),
                    make(
                        "tbody",
                        {},
                        attack.transfers.map((one) =>
                            make(
                                "tr",
                                {},
                                make("td", {}, one.judge),
                                make(
                                    "td",
                                    {},
                                    `${one.name_before || one.class_before}, ${percent(one.probability_before)}`,
                                ),
                                make(
                                    "td",
                                    {},
                                    `${one.name_after || one.class_after}, ${percent(one.probability_after)}`,
                                ),
                                make("td", { class: "quiet" }, one.moved ? "fooled too" : "not fooled"),
                            ),
                        ),
                    ),
                ),
            ),
        );
    }
    return part;
}
