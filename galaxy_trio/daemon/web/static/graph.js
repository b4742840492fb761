// The view of one graph: it is loaded once, and kept up to date by events. Only the graph that is shown is kept.

import { errorText, requestJson } from "./api.js";
import { $, ago, busy, clock, el, number, setText, shown, throttled } from "./dom.js";
import { ENDED, GraphModel, RETRYABLE } from "./graph_model.js";
import { NodePanel } from "./graph_node.js";
import { Picture } from "./graph_picture.js";
import { NodeTable } from "./graph_table.js";
import { countBadges, durationOf, nameOf } from "./graphs.js";
import { badge } from "./icons.js";
import { go, graphPath, listPath, setTitle, taskPath } from "./router.js";

// A larger graph is shown as a list first.
const MAX_DRAWN = 1000;
// The beginning of a smaller graph is shown so large that it can be read.
const MAX_READ = 60;
const MAX_EVENTS = 2000;

let open = null; // The route of the graph that is shown.
let model = null;
let loading = null; // The request whose answer is taken: one for a graph that is not shown any more changes nothing.
// Events that arrive while the graph is loading may be older or newer than what is loaded.
let arrived = [];
let isWanted = false;
let hasFailed = false;
let picture;
let table;
let panel;
const dirty = new Set();
let frame = null;

/** Shows a graph, as a picture or as a list. */
export function show(route) {
  const isSame = open?.id === route.id;
  open = route;
  for (const [id, path, isCurrent] of [["as-picture", graphPath(route.id), !route.isList], ["as-list", listPath(route.id), route.isList]]) {
    $(id).href = path;
    if (isCurrent) $(id).setAttribute("aria-current", "true");
    else $(id).removeAttribute("aria-current");
  }
  if (!isSame) {
    forget();
    setText($("graph-title"), "Graph");
    load();
  } else {
    draw();
    revealNode();
  }
}

/** Forgets the graph: another view is shown. */
export function close() {
  open = null;
  forget();
}

function forget() {
  model = null;
  loading = null;
  arrived = [];
  isWanted = false;
  dirty.clear();
  picture.clear();
  table.clear();
  panel.hide();
  say("");
  for (const id of ["graph-body", "graph-actions", "graph-about"]) $(id).hidden = true;
}

/** The name of the graph for the title of the document. */
export const title = () => (model ? `Graph ${nameOf(model.record)}` : `Graph ${shown(open?.id ?? "", 8)}`);

function say(text, kind = "") {
  $("graph-outcome").className = `outcome ${kind}`;
  setText($("graph-outcome"), text);
}

/** Loads the graph, again if events need it. */
export async function load() {
  if (open === null) return;
  if (loading !== null) {
    isWanted = true;
    return;
  }
  const mine = {};
  loading = mine;
  isWanted = false;
  arrived = [];
  try {
    const whole = await requestJson(`graphs/${encodeURIComponent(open.id)}`);
    if (loading === mine) take(whole);
  } catch (error) {
    if (loading === mine) fail(error);
  }
  if (loading !== mine) return;
  loading = null;
  if (isWanted) loadSoon();
}

const loadSoon = throttled(() => load(), 300);

function fail(error) {
  if (error.status === 404) {
    const { id } = open;
    forget();
    setTitle("Graph not found");
    setText($("graph-title"), `Graph ${shown(id, 8)} is not shown`);
  }
  hasFailed = true;
  say(shown(errorText(error), 400), "bad");
}

function take(whole) {
  if (model?.hasShapeOf(whole)) changed(model.take(whole));
  else {
    model = new GraphModel(whole);
    dirty.clear();
    sayTooLarge();
    draw();
  }
  // What an action has said stays.
  if (hasFailed) say("");
  hasFailed = false;
  for (const event of arrived) {
    // What a node was before it ended.
    if (event.task && ENDED.has(model.nodes.get(event.task.node)?.state) && !ENDED.has(event.task.state)) isWanted = true;
    else if (event.graph && event.graph.version !== model.record.version) isWanted = true;
    else if (event.task) changed(model.applyTask(event.task));
    else isWanted = true;
  }
  arrived = [];
}

function draw() {
  if (model === null) return;
  for (const id of ["graph-body", "graph-actions", "graph-about"]) $(id).hidden = false;
  const isList = open.isList;
  const isTooLarge = model.nodes.size > MAX_DRAWN && !picture.isDrawn;
  $("graph-list").hidden = !isList && !isTooLarge;
  $("graph-picture").hidden = isList || isTooLarge;
  $("too-large").hidden = isList || !isTooLarge;
  if (!$("graph-list").hidden) table.draw(model);
  if (!$("graph-picture").hidden && !picture.shows(model)) drawPicture();
  if (panel.id !== null) panel.refresh(model);
  drawHead();
}

function drawPicture() {
  const isFirst = !picture.isDrawn;
  picture.draw(model);
  // After an edit, the user sees the same part.
  if (isFirst) picture.viewport.begin({ isReadable: model.nodes.size <= MAX_READ });
  picture.select(panel.id);
}

async function drawAnyway() {
  const asked = open;
  setText($("draw-words"), `Drawing ${number.format(model.nodes.size)} nodes and ${number.format(model.edges.length)} edges…`);
  // The browser shows that before it does nothing else for some seconds.
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  if (open === asked && model !== null) {
    $("too-large").hidden = $("graph-list").hidden = true;
    $("graph-picture").hidden = false;
    drawPicture();
    $("picture").focus();
  }
  sayTooLarge();
}

function sayTooLarge() {
  if (model !== null) setText($("draw-words"), `This graph has ${number.format(model.nodes.size)} nodes: its picture is large and slow.`);
}

function drawHead() {
  const { record } = model;
  setText($("graph-title"), nameOf(record));
  setTitle(title());
  const about = [record.state, model.counts(), record.ended];
  if ($("graph-about").dataset.drawn !== JSON.stringify(about)) {
    $("graph-about").dataset.drawn = JSON.stringify(about);
    $("graph-state-now").replaceChildren(badge(record.state));
    $("graph-counts").replaceChildren(...countBadges(model.counts()));
    $("cancel-graph").hidden = record.state !== "running";
  }
  setText($("graph-times"), [`accepted ${ago(record.created)}`, durationOf(record), `${number.format(model.nodes.size)} nodes`, `id ${record.id.slice(0, 8)}`].filter(Boolean).join(" · "));
  $("graph-times").title = clock(record.created);
}

/** Draws nodes that changed with the next frame. */
function changed(ids) {
  for (const id of ids) dirty.add(id);
  frame ??= requestAnimationFrame(() => {
    frame = null;
    if (model === null) return;
    const now = [...dirty];
    dirty.clear();
    if (picture.shows(model)) picture.refresh(now);
    if (!$("graph-list").hidden) table.refresh(now);
    if (panel.id !== null) panel.refresh(model);
    drawHead();
  });
}

/** Applies the event of a graph. */
export function applyGraph(graph) {
  if (graph.id !== open?.id) return;
  if (loading !== null) keep({ graph });
  else if (model !== null) {
    const { ids, isWhole } = model.applyGraph(graph);
    changed(ids);
    if (!isWhole) loadSoon();
  }
}

/** Applies the event of a task. */
export function applyTask(task) {
  if (task.graph === null || task.graph !== open?.id) return;
  if (loading !== null) keep({ task });
  if (model !== null) changed(model.applyTask(task));
}

function keep(event) {
  if (arrived.length < MAX_EVENTS) arrived.push(event);
  else isWanted = true;
}

/** The buttons of a node: what can be done with it in its state. */
function actionsOf(node) {
  const button = (word, path) => {
    const made = el("button", { type: "button", ariaLabel: `${word}: ${shown(node.title)}` }, word);
    made.onclick = () => busy(made, () => actOnNode(node, path, `${word === "Cancel" ? "Cancelled" : "Retried"}: ${shown(node.title)}`));
    return made;
  };
  if (!ENDED.has(node.state)) return [button("Cancel", "cancel")];
  return RETRYABLE.has(node.state) ? [button("Retry", "retry")] : [];
}

async function actOnNode(node, path, words) {
  // A browser removes such a part from any URL.
  if (/^\.\.?$/.test(node.id)) say("A browser cannot name this node in a URL: cancel or retry it on the command line.", "bad");
  else await act(open.id, `/nodes/${encodeURIComponent(node.id)}/${path}`, "POST", words);
}

/** Does something with a graph, and says how it went while that graph is shown. */
async function act(id, path, method, words) {
  say("");
  try {
    await requestJson(`graphs/${encodeURIComponent(id)}${path}`, { method, signal: AbortSignal.timeout(60_000) });
    if (open?.id !== id) return;
    say(words);
    loadSoon();
  } catch (error) {
    if (open?.id === id) say(shown(errorText(error), 400), "bad");
  }
}

/** Asks before it cancels the graph that is shown now. */
function confirmCancel() {
  const counts = model.counts();
  const { id } = model.record;
  const name = nameOf(model.record);
  setText($("cancel-words"), `Cancel ${name}? Nodes that have not started never do: ${number.format((counts.waiting ?? 0) + (counts.ready ?? 0))}. Nodes that run are stopped: ${number.format(counts.running ?? 0)}.`);
  $("cancel-yes").onclick = () => {
    $("cancel-dialog").close();
    act(id, "", "DELETE", `Cancelled: ${name}`);
  };
  $("cancel-dialog").showModal();
}

function select(id) {
  panel.show(model, id);
  picture.select(id);
  revealNode();
}

function revealNode() {
  if (panel.id !== null && !$("graph-picture").hidden) picture.reveal(panel.id);
}

function openTask(id) {
  const { task } = model.nodes.get(id);
  if (task) go(taskPath(task));
}

function closePanel() {
  const { id } = panel;
  panel.hide();
  picture.select(null);
  if (!$("graph-picture").hidden) picture.focus(id);
  else table.focus(id);
}

/** The graph that is shown, or null. */
export const current = () => model?.record ?? null;

/** Says something about a graph, unless another one is shown now. */
export function sayOf(graph, text, kind) {
  if (open?.id === graph.id) say(text, kind);
}

export function start() {
  picture = new Picture($("picture"), { onSelect: select, onOpen: openTask });
  table = new NodeTable({ actionsOf, onSelect: select });
  panel = new NodePanel({ actionsOf, onClose: closePanel });
  $("zoom-in").onclick = () => picture.viewport.zoomIn();
  $("zoom-out").onclick = () => picture.viewport.zoomOut();
  $("fit").onclick = () => picture.viewport.fit();
  $("draw-anyway").onclick = () => busy($("draw-anyway"), drawAnyway);
  $("cancel-graph").onclick = confirmCancel;
  setInterval(() => model && drawHead(), 5000);
}
