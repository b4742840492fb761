// All of the page together.

import { ask, sentence } from "./api.js";
import * as devices from "./devices.js";
import { $, clock, el, number, say, soon } from "./dom.js";
import { listen } from "./live.js";
import * as tasks from "./tasks.js";

const EVENTS = 50;
const LIVE = { live: "Live", away: "Not live: trying to reach the daemon…" };

// ---- the summary

let total = 0;

async function loadSummary() {
  const counts = (await ask("summary")).tasks;
  const open = counts.queued + counts.running;
  const bad = counts.failed + counts.lost;
  say($("sum-running"), number.format(counts.running));
  say($("sum-queued"), number.format(counts.queued));
  say($("sum-completed"), number.format(counts.completed));
  say($("sum-bad"), number.format(bad));
  $("figure-bad").classList.toggle("bad", bad > 0);
  // The bar is of the tasks since the queue was last empty.
  const ended = counts.completed + counts.cancelled + bad;
  if (!open) base = ended;
  base = Math.min(base ?? ended, ended);
  const done = ended - base;
  total = done + open;
  $("progress").max = Math.max(1, total);
  $("progress").value = open ? done : 1;
  say($("progress-words"), open ? `${number.format(done)} of ${number.format(total)}` : "nothing waits");
  drawDevices();
}

let base = null;

function drawDevices() {
  const { all, connected } = devices.counts();
  say($("sum-devices"), number.format(connected));
  say($("sum-devices-of"), ` of ${number.format(all)}`);
}

const loadSummarySoon = soon(() => loadSummary().catch(() => {}), 500);

// ---- a new task

function drawChoices() {
  const select = $("device");
  const chosen = select.value;
  const names = devices.names().sort((one, other) => one.localeCompare(other, undefined, { numeric: true }));
  if (names.join("\n") !== [...select.options].slice(1).map((option) => option.value).join("\n")) {
    select.replaceChildren(select.options[0], ...names.map((name) => el("option", { value: name }, name)));
    select.value = names.includes(chosen) ? chosen : "";
  }
  const systems = devices.systems();
  if (systems.join() !== [...$("systems").options].map((option) => option.value).join()) {
    $("systems").replaceChildren(...systems.map((name) => el("option", { value: name })));
  }
  chooseDevice();
  drawDevices();
}

function chooseDevice() {
  for (const id of ["os", "capabilities"]) $(id).disabled = $("device").value !== "";
}

async function submit(event) {
  event.preventDefault();
  const button = event.submitter ?? event.target.querySelector("button");
  const outcome = $("submit-outcome");
  const body = { request: $("request").value, timeout: Number($("timeout").value), idempotency_key: key };
  if ($("device").value) body.device = $("device").value;
  else {
    if ($("os").value.trim()) body.os = $("os").value.trim();
    const capabilities = $("capabilities").value.split(",").map((word) => word.trim()).filter(Boolean);
    if (capabilities.length) body.capabilities = capabilities;
  }
  button.disabled = true;
  say(outcome, "");
  try {
    const task = await ask("tasks", { method: "POST", body });
    tasks.update(task);
    key = newKey();
    // Who types fast has begun with the next one.
    if ($("request").value === body.request) $("request").value = "";
    outcome.className = "outcome good";
    const away = body.device && !devices.isConnected(body.device);
    say(outcome, `Accepted as ${task.id.slice(0, 8)}.${away ? ` ${body.device} is not connected: the task waits for it.` : ""}`);
    $("request").focus();
  } catch (error) {
    outcome.className = "outcome bad";
    say(outcome, sentence(error));
  } finally {
    button.disabled = false;
  }
}

// What is submitted again because the answer was lost is the same task; what is changed in between is another.
const newKey = () => `page-${[...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
let key = newKey();

// ---- what happens

function tell(kind, data) {
  let words = null;
  if (kind === "task" && data.state !== "queued") words = `${data.state} on ${data.device ?? "no device"}: ${data.request.slice(0, 80)}`;
  if (kind === "device" && data.what !== "information") words = `${data.device_id}: ${data.what}${data.what !== "connected" && data.problem ? `: ${data.problem}` : ""}`;
  if (words === null) return;
  const list = $("events");
  list.prepend(el("li", {}, el("time", {}, clock(Date.now())), ` ${words}`));
  while (list.childElementCount > EVENTS) list.lastElementChild.remove();
  $("no-events").hidden = true;
}

function onEvent(kind, data) {
  tell(kind, data);
  if (kind === "task") {
    tasks.update(data);
    devices.loadSoon();
  } else devices.update(kind, data);
  loadSummarySoon();
}

async function onFresh() {
  await Promise.all([devices.load(), tasks.load(), loadSummary()]);
}

function onStatus(status) {
  $("live").className = `liveness ${status}`;
  say($("live-words"), LIVE[status]);
  document.body.classList.toggle("away", status !== "live");
}

$("submit").onsubmit = submit;
$("submit").oninput = () => {
  key = newKey();
};
$("device").onchange = chooseDevice;
for (const button of document.querySelectorAll("[data-close]")) button.onclick = () => button.closest("dialog").close();
// A text area takes Enter for itself: this submits.
$("request").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("submit").requestSubmit();
};
devices.start(drawChoices);
tasks.start();
listen({ onStatus, onFresh, onEvent });
