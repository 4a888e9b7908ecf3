/* The one script of every page: it loads the modules, then starts Dash, whose callbacks need them. */
import "./address.js";
import "./combobox.js";
import "./grid.js";
import "./form.js";
import "./jobs.js";
import "./maps.js";
import "./selection.js";
import "./drawing.js";
import "./shell.js";
import "./add_images.js";
import "./sql.js";
import "./step.js";

/*
 * Requests of callbacks, in two cases that the renderer leaves open. Without an answer (the server restarts,
 * the network changes) it never ends what the callback declared as `running`, so a paused timer would stay
 * paused; an error status ends it. And an answer that changes the address would change that of the page that
 * was opened meanwhile.
 */
const ADDRESS = /"id":"location","property":"(search|href)\b/;
const plainFetch = window.fetch;
window.fetch = async (resource, options) => {
    if (!String(resource).includes("/_dash-update-component")) return plainFetch(resource, options);
    const { pathname } = location;
    const answer = await plainFetch(resource, options).catch(() => new Response(null, { status: 503 }));
    const late = pathname !== location.pathname && ADDRESS.test(String(options?.body));
    return late ? new Response(null, { status: 204 }) : answer;
};

new window.DashRenderer();
