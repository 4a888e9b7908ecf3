/* What the browser keeps for a user. A window that may not store, as in private mode, keeps it in memory. */

/** @typedef {"localStorage" | "sessionStorage"} Place */
/** @type {Map<string, string>} */
const memory = new Map();

/** @param {string} name @param {Place} place */
export function recall(name, place = "localStorage") {
    try {
        return window[place].getItem(name) ?? memory.get(name) ?? null;
    } catch (error) {
        return memory.get(name) ?? null;
    }
}

/** @param {string} name @param {string} text @param {Place} place */
export function remember(name, text, place = "localStorage") {
    memory.set(name, text);
    try {
        window[place].setItem(name, text);
    } catch (error) {
        /* `memory` has it */
    }
}
