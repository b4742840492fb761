// The shapes of states, because colours alone do not tell them apart. Each is a path in a square of 16 by 16.

import { el } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const CIRCLE = "M8 2.5a5.5 5.5 0 1 0 .01 0z";

const SHAPES = {
  waiting: CIRCLE,
  ready: `${CIRCLE}M8 7a1 1 0 1 0 .01 0z`,
  running: "M4.5 2.5l9 5.5-9 5.5z",
  completed: "M2.5 8.5l3.5 4 7.5-9",
  failed: "M3.5 3.5l9 9m0-9l-9 9",
  lost: "M5 5.5a3 3 0 1 1 4.6 2.5C8.4 8.8 8 9.4 8 10.5M8 13.5v.01",
  cancelled: `${CIRCLE}M4.2 11.9l7.7-7.8`,
  skipped: "M2.5 3.5L7 8l-4.5 4.5M9 3.5L13.5 8 9 12.5",
  "partially failed": "M8 2L14.5 13.5h-13zM8 6.5v3.5M8 12v.01",
};

/** Creates an element of SVG with attributes and children. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The path of a state's shape. */
export const shape = (state) => SHAPES[state] ?? CIRCLE;

/** The class of a state: a state may have several words. */
export const classOf = (state) => state.replaceAll(" ", "-");

/** A state with its shape and its word. `words` replaces the word. */
export function badge(state, words = state) {
  const icon = svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, svg("path", { d: shape(state) }));
  return el("span", { className: `state ${classOf(state)}` }, icon, words);
}
