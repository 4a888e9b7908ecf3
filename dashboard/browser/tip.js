/* The tooltip of the shell, which describes a patch or a value of a map. */

const MARGIN = 8;

export const tip = () => document.getElementById("tip");

export function hideTip() {
    const box = tip();
    if (box) box.hidden = true;
}

/**
 * Shows the tooltip in the middle below an area, or above it where there is no room below.
 * @param {string} kind its class
 * @param {(Node | string)[]} content
 * @param {{ left: number, right: number, top: number, bottom: number }} area of the window
 */
export function showTip(kind, content, { left, right, top, bottom }) {
    const box = tip();
    if (!box) return;
    box.className = kind;
    box.replaceChildren(...content);
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const x = Math.max(MARGIN, Math.min((left + right - width) / 2, innerWidth - width - MARGIN));
    const above = top - height - MARGIN;
    const below = bottom + MARGIN;
    const y = below + height > innerHeight - MARGIN && above > 0 ? above : below;
    box.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
}
