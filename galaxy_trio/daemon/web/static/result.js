// Shows a result: text, a picture, or JSON, folded where it is long. Other content from a device is shown as text.

import { errorText, request } from "./api.js";
import { busy, el, number } from "./dom.js";

const PICTURE = /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+$/;
const MAX_OPEN = 12;
const BATCH = 100;
const LONG_TEXT = 4000;

export function showResult(place, task) {
  if (!("result" in task)) {
    const size = `${number.format(Math.ceil(task.result_size / 1024))} KiB`;
    const button = el("button", { type: "button" }, `Download, ${size}`);
    button.onclick = () => busy(button, () => download(button, task));
    place.replaceChildren(el("p", {}, "The result is too large to show here. "), button);
    return;
  }
  // A result does not change: what the user has unfolded stays unfolded.
  if (place.dataset.task === task.id) return;
  place.dataset.task = task.id;
  place.replaceChildren(shown(task.result, true));
}

async function download(button, task) {
  try {
    const response = await request(task.result_url.slice(1), { signal: AbortSignal.timeout(600_000) });
    const url = URL.createObjectURL(await response.blob());
    el("a", { href: url, download: `task-${task.id.slice(0, 8)}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    button.after(el("p", { className: "outcome bad" }, errorText(error)));
  }
}

function shown(value, isTop) {
  if (typeof value === "string") return text(value, isTop);
  if (value === null || typeof value !== "object") return el("span", { className: "value" }, JSON.stringify(value));
  const entries = Array.isArray(value) ? value.map((item, index) => [index, item]) : Object.entries(value);
  if (!entries.length) return el("span", { className: "value" }, Array.isArray(value) ? "[ ]" : "{ }");
  const folded = el("details", { className: "fold", open: isTop || entries.length <= MAX_OPEN });
  folded.append(el("summary", {}, Array.isArray(value) ? `list of ${number.format(entries.length)}` : `${number.format(entries.length)} ${entries.length === 1 ? "member" : "members"}`));
  const list = el("ul", {});
  folded.append(list);
  // Entries are added in batches, because a list may have a million of them.
  const more = (from) => {
    for (const [name, item] of entries.slice(from, from + BATCH)) {
      list.append(el("li", {}, el("span", { className: "key" }, `${name}: `), shown(item, false)));
    }
    if (from + BATCH < entries.length) {
      const button = el("button", { type: "button" }, `${number.format(entries.length - from - BATCH)} more`);
      button.onclick = () => {
        more(from + BATCH);
        list.lastElementChild.querySelector(":scope > button")?.focus();
        last.remove();
      };
      const last = el("li", {}, button);
      list.append(last);
    }
  };
  const fill = () => {
    if (folded.open && !list.childElementCount) more(0);
  };
  folded.ontoggle = fill;
  fill();
  return folded;
}

function text(value, isTop) {
  if (PICTURE.test(value)) return el("img", { src: value, alt: "A picture that the device returned as its result", className: "picture" });
  const quoted = isTop ? value : JSON.stringify(value);
  if (quoted.length <= LONG_TEXT && !value.includes("\n")) return el(isTop ? "pre" : "span", { className: "value" }, quoted);
  if (value.length <= LONG_TEXT) return el("pre", { className: "value" }, value);
  const whole = el("details", { className: "fold" }, el("summary", {}, `text of ${number.format(value.length)} characters: ${value.slice(0, 60)}…`));
  whole.ontoggle = () => {
    if (whole.childElementCount === 1) whole.append(el("pre", { className: "value" }, value));
  };
  whole.open = isTop;
  return whole;
}
