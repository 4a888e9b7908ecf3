/** Where Dash looks for the functions of clientside callbacks: each module adds its own. */
export const ns = (window.dash_clientside ??= /** @type {DashClientside} */ ({}));
export const convscope = (ns.convscope ??= {});
