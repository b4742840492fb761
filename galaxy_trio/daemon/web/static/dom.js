// Elements are made from text, never from markup, so that names and results from devices cannot inject anything.

export const $ = (id) => document.getElementById(id);

/** Creates an element with properties and children; a child that is not a node becomes text. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Sets an element's text. An equal text is not replaced, so that a selection stays. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Does the work of a button. As long as it lasts, the button does nothing more; it is not disabled, because it would lose the focus. */
export async function busy(button, work) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  try {
    await work();
  } finally {
    button.ariaDisabled = "false";
  }
}

/** A text of which the daemon may have sent only the beginning, with a note if so. `size` is that of the whole text, in bytes. */
export function noted(text, size) {
  return text && size > new TextEncoder().encode(text).length ? `${text}… (cut: it has ${number.format(size)} bytes)` : text;
}

// The same characters as in galaxy_trio/_printable.py: those that control, that are not seen, or that turn the text around them. Line ends and tabs stay, and what
// chooses between a symbol and its picture.
const HIDDEN = /(?![\n\t\ufe00-\ufe0f]|\r\n)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;
const escaped = (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** A foreign text for people: its beginning, with hidden characters as escapes, so that it looks like no other text. */
export function shown(text, most = 160) {
  const beginning = text.length > most ? `${text.slice(0, most).replace(/[\ud800-\udbff]$/, "")}…` : text;
  return beginning.replace(HIDDEN, (hidden) => hidden.split("").map(escaped).join(""));
}

export const number = new Intl.NumberFormat("en");

export function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** The time since a moment, in the largest fitting unit. */
export function ago(time, now = Date.now()) {
  if (!time) return "–";
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

/** A function that calls another one after a delay, once for all calls in between. */
export function throttled(work, milliseconds = 200) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      work();
    }, milliseconds);
  };
}
