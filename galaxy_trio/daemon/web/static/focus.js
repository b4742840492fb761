// Keeps the focus when what has it is removed, hidden or moved: without this, the next Tab would begin at the top of the page.
//
// Only the place of the focus is remembered: the name of the element and those around it, once for the page and once for each dialog above it.

const CONTROLS = "a[href], button, input, select, summary, [tabindex]";

const places = new Map();

const layerOf = (element) => element.closest("dialog");
const topLayer = () => [...document.querySelectorAll("dialog[open]")].at(-1) ?? null;
const isUsable = (element) => element.isConnected && !element.disabled && !element.closest("[hidden], dialog:not([open])");

/** What a control is for the user: one with the same name at the same place has replaced it. */
const nameOf = (control) => `${control.localName} ${control.ariaLabel ?? control.textContent}`;

function remember(element) {
  const around = [];
  for (let at = element.parentElement; at !== null && at !== document.body; at = at.parentElement) around.push(at);
  places.set(layerOf(element), { name: nameOf(element), around });
}

/** The nearest element that can have the focus, if the one that had it cannot: an equal control or itself in another place, else the row, the table or the heading around it. */
function nearest({ name, around }) {
  const left = around.filter(isUsable);
  // Not among rows: another row may have an equal control.
  const same = left.length && left[0].localName !== "tbody" ? [...left[0].querySelectorAll(CONTROLS)].find((control) => isUsable(control) && nameOf(control) === name) : null;
  if (same) return same;
  for (const element of left) {
    const rest = element.hasAttribute("tabindex") ? element : restIn(element);
    if (rest) return rest;
  }
  return null;
}

function restIn(element) {
  if (element.localName === "tbody" || element.localName === "table") return null;
  if (element.localName === "details") return element.querySelector(":scope > summary");
  const wanted = element.localName === "tr" ? ".link, th a" : ":scope > .table, :is(h2, h3)[tabindex]";
  return [...element.querySelectorAll(wanted)].find(isUsable) ?? null;
}

function check() {
  const layer = topLayer();
  const { activeElement } = document;
  if (activeElement !== null && activeElement !== document.body && isUsable(activeElement) && layerOf(activeElement) === layer) return;
  const place = places.get(layer);
  if (place !== undefined) nearest(place)?.focus({ preventScroll: true });
}

export function start() {
  addEventListener("focusin", (event) => remember(event.target));
  // The user has taken the focus away, with a click next to all controls or with Tab: it stays away. What was moved has it again by then.
  addEventListener("focusout", ({ target, relatedTarget }) => {
    const forget = () => document.activeElement === document.body && isUsable(target) && places.delete(layerOf(target));
    if (relatedTarget === null) setTimeout(forget);
  });
  new MutationObserver(check).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["hidden", "open"] });
}
