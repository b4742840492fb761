// Elements are made of text, and never of markup: whatever a device or a result is called, it is shown and nothing else.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; a child that is no node is text. */
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

/** Text in place of what is there; nothing happens if it is there already, so that a selection stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const number = new Intl.NumberFormat("en");

export function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** How long ago, in the largest unit that says it. */
export function ago(time, now = Date.now()) {
  if (!time) return "–";
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

/** Calls a function once, soon, however often it is asked for meanwhile. */
export function soon(work, milliseconds = 200) {
  let waiting = null;
  return () => {
    waiting ??= setTimeout(() => {
      waiting = null;
      work();
    }, milliseconds);
  };
}
