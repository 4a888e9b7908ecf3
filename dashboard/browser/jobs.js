/* The table of jobs: puts the cells that Python drew into the grid, and fits its columns to the window. */
import { hit } from "./base.js";
import { convscope, ns } from "./namespace.js";

/**
 * A component of `dash.html`, as it arrives in JSON, as an element of React.
 * @param {Child} component @param {Window["React"]["createElement"]} create @returns {unknown}
 */
export function element(component, create) {
    if (typeof component !== "object" || component === null) return component;
    const { children, ...props } = component.props;
    const list = [children].flat().map((child) => element(child, create));
    return create(component.type.toLowerCase(), props, ...list);
}

/**
 * The columns for a window: all but the last if it is wide, else the last, in which a job is a card.
 * @param {GridColumn[]} columns @param {boolean} narrow
 */
export const columnsFor = (columns, narrow) =>
    columns.map((column) => ({ ...column, hide: (column.colId === "card") !== narrow }));

/** @param {{ data: Record<string, Child>, fields: string[], setData: (value: unknown) => void }} props */
function JobCell({ data, fields, setData }) {
    const create = window.React.createElement;
    const onClick = (/** @type {{ nativeEvent: Event }} */ { nativeEvent }) => {
        const action = hit(nativeEvent, "[data-action]")?.dataset.action;
        if (action) setData({ action, job: data.job });
    };
    const className = fields.length > 1 ? "job-head" : "job-cell";
    return create("div", { className, onClick }, ...fields.map((name) => element(data[name], create)));
}

if (globalThis.window) (window.dashAgGridComponentFunctions ??= {}).JobCell = JobCell;

const narrow = globalThis.matchMedia?.("(max-width: 1000px)");
/** @type {GridColumn[]} */
let columns = [];
narrow?.addEventListener("change", () => {
    if (!document.getElementById("jobs-grid")) return;
    ns.set_props("jobs-grid", { columnDefs: columnsFor(columns, narrow.matches) });
});

convscope.jobColumns = (given) => {
    columns = given;
    return columnsFor(columns, narrow.matches);
};

/* A page that nobody sees asks for nothing. */
convscope.whileVisible = (tick) => (document.hidden ? ns.no_update : tick);
