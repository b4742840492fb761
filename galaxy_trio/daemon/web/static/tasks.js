// The table of tasks: the newest page, updated by events, and older pages on demand.

import { errorText, requestJson } from "./api.js";
import { $, ago, busy, clock, el, noted, number, setText, shown, throttled } from "./dom.js";
import { showResult } from "./result.js";
import { go, graphPath, setTitle, taskPath } from "./router.js";

const PAGE = 50;
const MAX_TASKS = 1000;
const ENDED = new Set(["completed", "failed", "cancelled", "lost"]);

let tasks = new Map();
const rows = new Map();
let before = null;
let shownInDialog = null;

const wanted = () => $("state").value;

export async function load() {
  const state = wanted();
  await read(`tasks?limit=${PAGE}${state ? `&state=${state}` : ""}`, (page) => {
    if (state !== wanted()) return;
    tasks = new Map(page.tasks.map((task) => [task.id, task]));
    before = page.before;
  });
  draw();
}

// Events that arrive while a page is loading may be newer than the page.
const readers = new Set();

async function read(path, take) {
  const arrived = [];
  readers.add(arrived);
  try {
    take(await requestJson(path));
  } finally {
    readers.delete(arrived);
  }
  for (const task of arrived) applyEvent(task);
}

async function loadOlder() {
  const state = wanted();
  try {
    await read(`tasks?limit=${PAGE}&before=${before}${state ? `&state=${state}` : ""}`, (page) => {
      if (state !== wanted()) return;
      for (const task of page.tasks) tasks.set(task.id, task);
      before = page.before;
    });
    draw();
  } catch (error) {
    setText($("submit-outcome"), errorText(error));
  }
}

const progress = (task) => (ENDED.has(task.state) ? 2 : task.state === "running" ? 1 : 0);

/** Applies an event. Events arrive in order, and a running task may be queued again; a page of tasks may be newer than an event. */
export function applyEvent(task) {
  for (const events of readers) events.push(task);
  const known = tasks.get(task.id);
  if (!known || !ENDED.has(known.state) || ENDED.has(task.state)) apply(task);
}

/** Applies a response, which may be older than an event: the task does not go back to an earlier state. */
export function applyResponse(task) {
  const known = tasks.get(task.id);
  if (!known || progress(known) <= progress(task)) apply(task);
}

function apply(task) {
  if (tasks.has(task.id)) tasks.set(task.id, { ...tasks.get(task.id), ...task });
  else if (!wanted() || wanted() === task.state) add(task);
  drawSoon();
  if (shownInDialog === task.id) showSoon();
}

function add(task) {
  tasks.set(task.id, task);
  if (tasks.size <= MAX_TASKS) return;
  const newest = newestFirst().slice(0, PAGE);
  tasks = new Map(newest.map((task) => [task.id, task]));
  // The others can be loaded again.
  before = newest.at(-1).id;
}

/** The tasks in the order of the daemon's list; events arrive in another one. */
const newestFirst = () => [...tasks.values()].sort((one, other) => (one.created < other.created) - (one.created > other.created));

function makeRow(id) {
  const row = { state: el("span", {}), request: el("button", { type: "button", className: "link" }), error: el("small", { className: "problem" }) };
  row.device = el("td", {});
  row.when = el("td", { className: "time" });
  row.actions = el("td", { className: "last" });
  row.request.onclick = () => go(taskPath(id));
  row.element = el("tr", {}, el("td", {}, row.state), el("td", { className: "wide" }, row.request, row.error), row.device, row.when, row.actions);
  return row;
}

function fill(row, task) {
  row.state.className = `state ${task.state}`;
  setText(row.state, task.state);
  setText(row.request, shown(task.request));
  row.request.setAttribute("aria-label", `Show task: ${shown(task.request)}`);
  setText(row.error, task.state === "failed" || task.state === "lost" ? shown(task.error ?? "") : "");
  setText(row.device, shown(task.device ?? task.wants.device ?? (task.wants.os ? `any ${task.wants.os}` : "any")));
  setText(row.when, ago(task.ended ?? task.started ?? task.created));
  row.when.title = new Date(task.created).toLocaleString();
  if (row.actionsFor !== task.state) {
    row.actionsFor = task.state;
    row.actions.replaceChildren(...actions(task));
  }
}

async function act(path, method, words) {
  try {
    applyResponse(await requestJson(path, { method, signal: AbortSignal.timeout(60_000) }));
    setText($("submit-outcome"), words);
    $("submit-outcome").className = "outcome";
  } catch (error) {
    setText($("submit-outcome"), errorText(error));
    $("submit-outcome").className = "outcome bad";
  }
}

function actions(task) {
  const what = shown(task.request);
  const button = (word, method, path) => {
    const made = el("button", { type: "button" }, word);
    made.setAttribute("aria-label", `${word}: ${what}`);
    made.onclick = () => busy(made, () => act(path, method, `${word === "Cancel" ? "Cancelled" : "Retried"}: ${what}`));
    return made;
  };
  if (!ENDED.has(task.state)) return [button("Cancel", "DELETE", `tasks/${task.id}`)];
  return [button("Retry", "POST", `tasks/${task.id}/retry`)];
}

/** Draws the table, unless another view is shown. */
export function draw() {
  if ($("overview").hidden) return;
  const body = $("task-rows");
  for (const [id, row] of rows) {
    if (!tasks.has(id)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  let at = body.firstElementChild;
  for (const task of newestFirst()) {
    let row = rows.get(task.id);
    if (!row) rows.set(task.id, (row = makeRow(task.id)));
    fill(row, task);
    if (row.element === at) at = at.nextElementSibling;
    else body.insertBefore(row.element, at);
  }
  $("older").hidden = before === null;
  $("no-tasks").hidden = tasks.size > 0;
  setText($("no-tasks-words"), wanted() ? `There are no ${$("state").value} tasks.` : "There are no tasks yet.");
}

const drawSoon = throttled(draw);

/** Shows a task in the dialog. Lists and events have only the beginning of its request and error: the whole task is loaded. */
async function show(id) {
  const dialog = $("task-dialog");
  let task = tasks.get(id);
  const place = $("task-result");
  let problem = null;
  try {
    task = await requestJson(`tasks/${encodeURIComponent(id)}`);
  } catch (error) {
    problem = el("p", { className: "outcome bad" }, shown(errorText(error), 400));
    if (error.status === 404) task = null;
  }
  if (shownInDialog !== id) return;
  if (problem) {
    delete place.dataset.task;
    place.replaceChildren(problem);
  }
  if (task) fillDialog(task, place);
  else {
    setTitle("Task not found");
    setText($("task-title"), problem ? `Task ${shown(id, 8)} is not shown` : "Task");
    setText($("task-request"), "");
    $("task-facts").replaceChildren();
    $("task-actions").replaceChildren();
    $("result-title").hidden = true;
    place.hidden = false;
  }
  if (!dialog.open) dialog.showModal();
}

function fillDialog(task, place) {
  setTitle(`Task ${shown(task.request, 60)}`);
  setText($("task-title"), `Task ${task.id.slice(0, 8)}`);
  setText($("task-request"), noted(task.request, task.request_size));
  const facts = [
    ["State", task.state],
    ["Device", task.device ?? "–"],
    ["Requires", [task.wants.device, task.wants.os, ...task.wants.capabilities].filter(Boolean).join(", ") || "any device"],
    ["Submitted", clock(task.created)],
    ["Started", task.started ? clock(task.started) : "–"],
    ["Ended", task.ended ? `${clock(task.ended)}${task.started ? `, after ${((Date.parse(task.ended) - Date.parse(task.started)) / 1000).toFixed(1)} s` : ""}` : "–"],
    ["Timeout", `${number.format(task.timeout)} s`],
    ["Priority", `${task.priority}`],
    ["Id", task.id],
  ];
  if (task.error) facts.splice(1, 0, ["Why", noted(task.error, task.error_size)]);
  if (task.graph) facts.push(["Graph", el("a", { href: graphPath(task.graph) }, task.graph)], ["Node", el("bdi", {}, shown(task.node))]);
  if (task.retry_of) facts.push(["Retry of", el("a", { href: taskPath(task.retry_of) }, task.retry_of)]);
  $("task-facts").replaceChildren(...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  const hasProblem = place.querySelector(":scope > .bad") !== null;
  $("result-title").hidden = task.result_size === null;
  place.hidden = task.result_size === null && !hasProblem;
  if (task.result_size !== null && !hasProblem) showResult(place, task);
  $("task-actions").replaceChildren(...actions(task));
}

const showSoon = throttled(() => shownInDialog && show(shownInDialog));

/** Opens the dialog of a task. */
export function open(id) {
  if (shownInDialog === id) return;
  shownInDialog = id;
  show(id);
}

/** Closes the dialog. */
export function close() {
  shownInDialog = null;
  $("task-dialog").close();
}

/** `onLeave()` is called when the user has closed the dialog. */
export function start(onLeave) {
  $("state").onchange = () => load().catch((error) => setText($("submit-outcome"), errorText(error)));
  $("older").onclick = () => busy($("older"), loadOlder);
  $("task-dialog").onclose = () => {
    if (shownInDialog === null) return;
    shownInDialog = null;
    onLeave();
  };
  setInterval(drawSoon, 5000);
}
