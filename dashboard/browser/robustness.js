/* The Robustness page: its choices write the address, a point of a figure leads to what it stands for, and other
   models are asked about attacked images (see pages/robustness.py). */
// @ts-nocheck
import { convscope, ns } from "./namespace.js";

const { ask, go } = convscope;
const STANDARD = { axis: "log", label: "all", protocol: null };

document.addEventListener("change", (event) => {
    const name = /^robustness-(protocol|label|axis)$/.exec(event.target.id || "");
    if (!name) return;
    const value = event.target.value;
    convscope.address({
        [name[1]]: value === STANDARD[name[1]] ? "" : value,
        epsilon: "",
        listed: "",
        ...(name[1] === "protocol" ? { label: "" } : {}),
    });
});

/* A curve's point lists the images that change there, and leaves the page's model as it is; a point of the strip or a cell opens an attack. */
convscope.openPoint = function (curve, strip, matrix) {
    const id = ns.callback_context.triggered.map((item) => item.prop_id.split(".")[0])[0];
    const clicked = { "robustness-curve": curve, "robustness-strip": strip, "robustness-matrix": matrix }[id];
    const point = clicked && clicked.points && clicked.points[0];
    if (!point || point.customdata === undefined || point.customdata === null) return ns.no_update;
    if (id === "robustness-curve")
        convscope.address({ listed: point.customdata[0], epsilon: point.customdata[1] });
    else go(convscope.local(`/attack?attack=${[point.customdata].flat()[0]}`));
    return ns.no_update;
};

document.addEventListener("click", async (event) => {
    const button = event.target.closest && event.target.closest(".ask-judges");
    if (!button) return;
    button.disabled = true;
    try {
        const made = await ask("/api/jobs", {
            method: "POST",
            body: {
                kind: "transfer",
                attacks: button.dataset.attacks,
                judges: button.dataset.judges.split(","),
            },
        });
        go(convscope.local(`/jobs?job=${made.job}`));
    } catch (error) {
        button.disabled = false;
        button.after(convscope.make("p", { class: "problem", role: "alert" }, error.message));
    }
});
