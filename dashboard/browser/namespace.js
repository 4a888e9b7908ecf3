/** Where Dash looks for the functions of clientside callbacks: each module adds its own. */
const browser = /** @type {Window} */ (globalThis.window ?? {});
export const ns = (browser.dash_clientside ??= /** @type {DashClientside} */ ({}));
export const convscope = (ns.convscope ??= /** @type {Callbacks} */ ({}));
