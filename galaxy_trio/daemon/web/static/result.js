// A result: text, pictures, or JSON that is folded where it is long. What comes from a device is text, whatever it says.

import { request, sentence } from "./api.js";
import { el, number } from "./dom.js";

const PICTURE = /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+$/;
const OPEN_UNTIL = 12;
const ROOM = 100;
const LONG = 4000;

export function showResult(place, task) {
  if (!("result" in task)) {
    const size = `${number.format(Math.ceil(task.result_size / 1024))} KiB`;
    const button = el("button", { type: "button" }, `Download it, ${size}`);
    button.onclick = () => download(button, task);
    place.replaceChildren(el("p", {}, "It is too large to be shown here. "), button);
    return;
  }
  // It does not change: what somebody has unfolded stays so.
  if (place.dataset.task === task.id) return;
  place.dataset.task = task.id;
  place.replaceChildren(shown(task.result, true));
}

async function download(button, task) {
  button.disabled = true;
  try {
    const response = await request(task.result_url.slice(1), { signal: AbortSignal.timeout(600_000) });
    const url = URL.createObjectURL(await response.blob());
    el("a", { href: url, download: `task-${task.id.slice(0, 8)}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    button.after(el("p", { className: "outcome bad" }, sentence(error)));
  } finally {
    button.disabled = false;
  }
}

function shown(value, isTop) {
  if (typeof value === "string") return text(value, isTop);
  if (value === null || typeof value !== "object") return el("span", { className: "value" }, JSON.stringify(value));
  const entries = Array.isArray(value) ? value.map((item, index) => [index, item]) : Object.entries(value);
  if (!entries.length) return el("span", { className: "value" }, Array.isArray(value) ? "[ ]" : "{ }");
  const folded = el("details", { className: "fold", open: isTop || entries.length <= OPEN_UNTIL });
  folded.append(el("summary", {}, Array.isArray(value) ? `list of ${number.format(entries.length)}` : `${number.format(entries.length)} ${entries.length === 1 ? "member" : "members"}`));
  const list = el("ul", {});
  folded.append(list);
  // A list of a million is not a million elements before somebody wants them.
  const more = (from) => {
    for (const [name, item] of entries.slice(from, from + ROOM)) {
      list.append(el("li", {}, el("span", { className: "key" }, `${name}: `), shown(item, false)));
    }
    if (from + ROOM < entries.length) {
      const button = el("button", { type: "button" }, `${number.format(entries.length - from - ROOM)} more`);
      button.onclick = () => {
        last.remove();
        more(from + ROOM);
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
  if (PICTURE.test(value)) return el("img", { src: value, alt: "A picture that the device gave as its result", className: "picture" });
  const quoted = isTop ? value : JSON.stringify(value);
  if (quoted.length <= LONG && !value.includes("\n")) return el(isTop ? "pre" : "span", { className: "value" }, quoted);
  if (value.length <= LONG) return el("pre", { className: "value" }, value);
  const whole = el("details", { className: "fold" }, el("summary", {}, `text of ${number.format(value.length)} characters: ${value.slice(0, 60)}…`));
  whole.ontoggle = () => {
    if (whole.childElementCount === 1) whole.append(el("pre", { className: "value" }, value));
  };
  whole.open = isTop;
  return whole;
}
