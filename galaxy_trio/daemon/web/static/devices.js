// The table of devices, whose rows are updated in place.

import { errorText, requestJson } from "./api.js";
import { $, ago, busy, el, noted, number, setText, shown, throttled } from "./dom.js";

const CONNECTED = new Set(["idle", "busy"]);
const ORDER = ["failed", "disconnected", "connecting", "registering", "busy", "idle"];

const devices = new Map();
const rows = new Map();
let onChange = () => {};

export const names = () => [...devices.keys()];
export const systems = () => [...new Set([...devices.values()].map((device) => device.os).filter(Boolean))];
export const isConnected = (name) => CONNECTED.has(devices.get(name)?.status);
export const counts = () => ({
  all: devices.size,
  connected: [...devices.values()].filter((device) => CONNECTED.has(device.status)).length,
});

export async function load() {
  const found = (await requestJson("devices")).devices;
  const present = new Set(found.map((device) => device.device_id));
  for (const name of devices.keys()) if (!present.has(name)) devices.delete(name);
  for (const device of found) devices.set(device.device_id, device);
  draw();
  onChange();
}

/** No event reports a queue's length, so it is loaded after each event of a task. */
export const loadSoon = throttled(() => load().catch(() => {}), 2000);

/** Applies an event: `device` has all members of a device, `status` only its status. */
export function update(kind, data) {
  if (kind === "device") {
    devices.set(data.device_id, data);
    onChange();
  } else if (devices.has(data.device_id)) {
    devices.get(data.device_id).status = data.status;
  } else {
    loadSoon();
    return;
  }
  drawSoon();
}

function makeRow(name) {
  const row = {
    name: el("th", { scope: "row" }, shown(name)),
    status: el("span", {}),
    about: el("small", {}),
    problem: el("td", { className: "problem", colSpan: 5 }),
    queue: el("td", { className: "count" }),
    heard: el("span", {}),
    reconnects: el("small", {}),
    reconnect: el("button", { type: "button" }, "Reconnect"),
  };
  row.reconnect.setAttribute("aria-label", `Reconnect ${shown(name)}`);
  row.reconnect.onclick = () => busy(row.reconnect, () => reconnect(name, row));
  row.name.append(row.about);
  row.queue.dataset.label = "queued";
  row.element = el(
    "tr",
    {},
    row.name,
    el("td", { className: "wide" }, row.status),
    row.queue,
    el("td", { className: "time" }, row.heard, row.reconnects),
    el("td", { className: "last" }, row.reconnect),
  );
  // A second row with the reason why the device is not connected.
  row.beneath = el("tr", {}, row.problem);
  return row;
}

async function reconnect(name, row) {
  try {
    update("device", await requestJson(`devices/${encodeURIComponent(name)}/reconnect`, { method: "POST", signal: AbortSignal.timeout(60_000) }));
  } catch (error) {
    setText(row.problem, errorText(error));
    explain(row);
    row.element.after(row.beneath);
  }
}

function fill(row, device) {
  row.status.className = `state ${device.status}`;
  setText(row.status, device.status);
  const capabilities = device.capabilities ?? [];
  const more = device.capability_count - capabilities.length;
  setText(row.about, shown([device.os, ...capabilities, more > 0 && `and ${number.format(more)} more`].filter(Boolean).join(" · "), Infinity));
  const trying = device.next_try ? ` Next try ${new Date(device.next_try).toLocaleTimeString()}.` : "";
  const reason = noted(device.problem, device.problem_size) ?? "";
  const problem = `${reason}${/[.?!]$/.test(reason) ? "" : "."}${trying}`;
  setText(row.problem, device.problem && !CONNECTED.has(device.status) ? shown(problem, Infinity) : "");
  setText(row.queue, number.format(device.queued));
  setText(row.heard, ago(device.last_heard));
  const reconnects = Math.max(0, device.connects - 1);
  setText(row.reconnects, reconnects === 1 ? "1 reconnect" : `${number.format(reconnects)} reconnects`);
  explain(row);
}

function explain(row) {
  row.element.classList.toggle("explained", row.problem.textContent !== "");
}

/** Draws the table, unless another view is shown. */
export function draw() {
  if ($("overview").hidden) return;
  const wanted = $("find").value.trim().toLowerCase();
  const body = $("device-rows");
  for (const [name, row] of rows) {
    if (!devices.has(name)) {
      row.element.remove();
      row.beneath.remove();
      rows.delete(name);
    }
  }
  // Devices that need attention come first.
  const sorted = [...devices.values()].sort(
    (one, other) => rank(one) - rank(other) || one.device_id.localeCompare(other.device_id, undefined, { numeric: true }),
  );
  let visible = 0;
  let at = body.firstElementChild;
  for (const device of sorted) {
    let row = rows.get(device.device_id);
    if (!row) rows.set(device.device_id, (row = makeRow(device.device_id)));
    fill(row, device);
    const words = `${device.device_id} ${device.os ?? ""} ${device.status} ${(device.capabilities ?? []).join(" ")}`.toLowerCase();
    row.element.hidden = row.beneath.hidden = !words.includes(wanted);
    if (!row.element.hidden) visible += 1;
    const explained = row.problem.textContent !== "";
    if (!explained && row.beneath === at) at = at.nextElementSibling;
    if (!explained) row.beneath.remove();
    for (const element of explained ? [row.element, row.beneath] : [row.element]) {
      // A row that is in its place is not moved, because it may have the focus.
      if (element === at) at = at.nextElementSibling;
      else body.insertBefore(element, at);
    }
  }
  $("no-devices").hidden = visible > 0 && counts().connected > 0;
  setText(
    $("no-devices-words"),
    !devices.size ? "No devices are configured." : visible ? "No device is connected. Is their server running?" : `None of ${devices.size} devices matches.`,
  );
}

// Idle and busy have the same rank: they may change many times a second.
const rank = (device) => (CONNECTED.has(device.status) ? ORDER.length : ORDER.indexOf(device.status));

const drawSoon = throttled(draw);

export function start(changed) {
  onChange = changed;
  $("find").oninput = draw;
  // No event reports queue lengths and times.
  setInterval(() => {
    if (!document.hidden && devices.size) load().catch(() => {});
  }, 5000);
}
