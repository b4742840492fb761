// Connects the parts of the page.

import { errorText, requestJson } from "./api.js";
import * as cluster from "./cluster.js";
import * as devices from "./devices.js";
import { $, busy, clock, el, number, setText, shown, throttled } from "./dom.js";
import * as focus from "./focus.js";
import * as graph from "./graph.js";
import * as graphFiles from "./graph_files.js";
import * as graphs from "./graphs.js";
import { listen } from "./live.js";
import { leaveTask, OVERVIEW, setTitle, start as startRouter } from "./router.js";
import * as tasks from "./tasks.js";

const EVENTS = 50;
const LIVE = { live: "Live", away: "Not live: reconnecting to the daemon…" };

// Ended tasks when the queue was last empty.
let base = null;

async function loadSummary() {
  const counts = (await requestJson("summary")).tasks;
  const open = counts.queued + counts.running;
  const bad = counts.failed + counts.lost;
  setText($("sum-running"), number.format(counts.running));
  setText($("sum-queued"), number.format(counts.queued));
  setText($("sum-completed"), number.format(counts.completed));
  setText($("sum-bad"), number.format(bad));
  $("figure-bad").classList.toggle("bad", bad > 0);
  // The bar shows the tasks since then.
  const ended = counts.completed + counts.cancelled + bad;
  if (!open) base = ended;
  base = Math.min(base ?? ended, ended);
  const done = ended - base;
  const total = done + open;
  $("progress").max = Math.max(1, total);
  $("progress").value = open ? done : 1;
  setText($("progress-words"), open ? `${number.format(done)} of ${number.format(total)}` : "the queue is empty");
  drawDevices();
}

function drawDevices() {
  const { all, connected } = devices.counts();
  setText($("sum-devices"), number.format(connected));
  setText($("sum-devices-of"), ` of ${number.format(all)}`);
}

const loadSummarySoon = throttled(() => loadSummary().catch(() => {}), 500);

function drawChoices() {
  const select = $("device");
  const chosen = select.value;
  const names = devices.names().sort((one, other) => one.localeCompare(other, undefined, { numeric: true }));
  if (names.join("\n") !== [...select.options].slice(1).map((option) => option.value).join("\n")) {
    select.replaceChildren(select.options[0], ...names.map((name) => el("option", { value: name }, shown(name))));
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

async function submit() {
  const outcome = $("submit-outcome");
  const body = { request: $("request").value, timeout: Number($("timeout").value), priority: Number($("priority").value), idempotency_key: idempotencyKey };
  if ($("device").value) body.device = $("device").value;
  else {
    if ($("os").value.trim()) body.os = $("os").value.trim();
    const capabilities = $("capabilities").value.split(",").map((word) => word.trim()).filter(Boolean);
    if (capabilities.length) body.capabilities = capabilities;
  }
  setText(outcome, "");
  try {
    const task = await requestJson("tasks", { method: "POST", body });
    tasks.applyResponse(task);
    idempotencyKey = newKey();
    // The user may have begun to type the next task.
    if ($("request").value === body.request) $("request").value = "";
    outcome.className = "outcome good";
    const away = body.device && !devices.isConnected(body.device);
    setText(outcome, `Accepted as ${task.id.slice(0, 8)}.${away ? ` ${body.device} is not connected: the task stays queued until it is.` : ""}`);
    $("request").focus();
  } catch (error) {
    outcome.className = "outcome bad";
    setText(outcome, errorText(error));
  }
}

// An unchanged form keeps its idempotency key, so that submitting it again after a lost response does not submit a second task.
const newKey = () => `page-${[...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
let idempotencyKey = newKey();

function showEvent(kind, data) {
  let words = null;
  if (kind === "task" && data.state !== "queued") words = `${data.state} on ${data.device ?? "no device"}: ${shown(data.request, 80)}`;
  if (kind === "device" && data.what !== "information") words = `${data.device_id}: ${data.what}${data.what !== "connected" && data.problem ? `: ${data.problem}` : ""}`;
  if (kind === "graph" && data.state !== "running") words = `${graphs.nameOf(data)}: ${data.state}`;
  if (words === null) return;
  const list = $("events");
  list.prepend(el("li", {}, el("time", {}, clock(Date.now())), ` ${shown(words, 2000)}`));
  while (list.childElementCount > EVENTS) list.lastElementChild.remove();
  $("no-events").hidden = true;
}

function onEvent(kind, data) {
  showEvent(kind, data);
  if (kind === "task") {
    tasks.applyEvent(data);
    devices.loadSoon();
    graph.applyTask(data);
    if (data.graph !== null) graphs.loadSoon();
  } else if (kind === "graph") {
    graph.applyGraph(data);
    graphs.applyEvent(data);
    return;
  } else if (kind === "cluster") {
    cluster.loadSoon();
    devices.loadSoon();
  } else devices.update(kind, data);
  loadSummarySoon();
}

async function onReload() {
  cluster.loadSoon();
  await Promise.all([devices.load(), tasks.load(), loadSummary(), graphs.load(), graph.load()]);
}

function onStatus(status) {
  $("live").className = `liveness ${status}`;
  setText($("live-words"), LIVE[status]);
  document.body.classList.toggle("away", status !== "live");
}

const VIEWS = {
  overview: { name: () => null, skip: "Skip to the tasks", main: "tasks" },
  graphs: { name: () => "Graphs", skip: "Skip to the graphs", main: "graphs" },
  graph: { name: graph.title, skip: "Skip to the graph", main: "graph" },
  unknown: { name: () => "Nothing here", skip: "Skip to the content", main: "unknown" },
};
// The route of the view, above which the dialog of a task may be open.
let view = null;

function showRoute(route) {
  // It asks about what was shown.
  $("cancel-dialog").close();
  if (route.view === "task") {
    if (view === null) showView({ view: "overview", path: OVERVIEW });
    tasks.open(route.id);
    return;
  }
  tasks.close();
  const last = view;
  // The dialog of a task was closed: the focus has returned to where it was.
  if (last?.path !== route.path) showView(route);
  setTitle(...[VIEWS[route.view].name()].filter(Boolean));
  if (last?.path === route.path || (last?.view === "graph" && last.id === route.id)) return;
  // The user did not ask for the overview when the page is loaded.
  if (last !== null || route.view !== "overview") $(`${route.view}-title`).focus();
}

function showView(route) {
  if (route.view !== "graphs") graphs.close();
  if (route.view !== "graph") graph.close();
  // What changed while another view was shown; before the first load there is nothing to draw.
  if (view !== null && route.view === "overview") {
    $("overview").hidden = false;
    tasks.draw();
    devices.draw();
  }
  view = route;
  for (const name of Object.keys(VIEWS)) $(name).hidden = name !== route.view;
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === route.view || (link.dataset.view === "graphs" && route.view === "graph")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  setText($("skip"), VIEWS[route.view].skip);
  if (route.view === "graphs") graphs.open();
  if (route.view === "graph") graph.show(route);
}

// Its address would be that of another view.
$("skip").onclick = (event) => {
  event.preventDefault();
  $(VIEWS[view.view].main).focus();
};
$("submit").onsubmit = (event) => {
  event.preventDefault();
  busy($("submit-task"), submit);
};
$("submit").oninput = () => {
  idempotencyKey = newKey();
};
$("device").onchange = chooseDevice;
for (const button of document.querySelectorAll("[data-close]")) button.onclick = () => button.closest("dialog").close();
// In a text area, Enter starts a new line, and Ctrl+Enter submits.
$("request").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("submit").requestSubmit();
};
focus.start();
devices.start(drawChoices);
tasks.start(() => leaveTask(view.path));
graphs.start();
graph.start();
graphFiles.start(graph);
cluster.start();
startRouter(showRoute);
listen({ onStatus, onReload, onEvent });
