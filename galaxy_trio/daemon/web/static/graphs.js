// The table of graphs: the newest page, loaded again after events, and older pages on demand.

import { errorText, requestJson } from "./api.js";
import { $, ago, busy, clock, el, number, setText, shown, throttled } from "./dom.js";
import { badge } from "./icons.js";
import { graphPath } from "./router.js";

const PAGE = 50;
const MAX_GRAPHS = 1000;
const ORDER = ["failed", "lost", "running", "ready", "waiting", "completed", "cancelled", "skipped"];

let graphs = new Map();
const rows = new Map();
let before = null;
let visit = null; // From opening the list to closing it: an answer for an earlier one changes nothing.

const wanted = () => $("graph-state").value;
const path = (more = "") => `graphs?limit=${PAGE}${more}${wanted() ? `&state=${encodeURIComponent(wanted())}` : ""}`;

const isCurrent = (asked) => asked.visit === visit && asked.state === wanted();

export async function load() {
  if (visit === null) return;
  const asked = { visit, state: wanted() };
  const page = await requestJson(path());
  if (!isCurrent(asked)) return;
  // The older pages that were loaded stay, unless there are newer graphs than a page.
  const oldest = page.graphs.at(-1)?.number ?? 0;
  const overlaps = [...graphs.values()].some((graph) => graph.number >= oldest);
  const older = overlaps && page.before !== null ? [...graphs.values()].filter((graph) => graph.number < oldest) : [];
  if (!older.length) before = page.before;
  graphs = new Map([...page.graphs, ...older].map((graph) => [graph.id, graph]));
  draw();
}

/** After an event. The starts of nodes are not events of their graph, so the counts are loaded instead of read from events. */
export const loadSoon = throttled(() => load().catch(() => {}), 500);

export function applyEvent({ changed, more_changed, ...graph }) {
  if (visit === null) return;
  // A page has only the newest graphs.
  if (graphs.has(graph.id)) graphs.set(graph.id, graph);
  if (wanted() && wanted() !== graph.state) graphs.delete(graph.id);
  loadSoon();
}

async function loadOlder() {
  const asked = { visit, state: wanted() };
  try {
    const page = await requestJson(path(`&before=${before}`));
    if (!isCurrent(asked)) return;
    for (const graph of page.graphs) graphs.set(graph.id, graph);
    before = graphs.size < MAX_GRAPHS ? page.before : null;
    draw();
  } catch (error) {
    if (isCurrent(asked)) report(error);
  }
}

/** Loads the newest page, and shows why it cannot. */
function loadNow() {
  const asked = { visit, state: wanted() };
  load().catch((error) => isCurrent(asked) && report(error));
}

function report(error) {
  $("graphs-outcome").className = "outcome bad";
  setText($("graphs-outcome"), errorText(error));
}

/** A graph's name for people; one without a name has the beginning of its id. */
export const nameOf = (graph) => (graph.name?.trim() ? shown(graph.name, 120) : `graph ${graph.id.slice(0, 8)}`);

/** The numbers of nodes by state, each with its shape and word. */
export function countBadges(nodes) {
  return ORDER.filter((state) => nodes[state]).map((state) => badge(state, `${number.format(nodes[state])} ${state}`));
}

/** How long a graph took, if it has ended. */
export function durationOf(graph) {
  if (!graph.ended) return "";
  const seconds = (Date.parse(graph.ended) - Date.parse(graph.created)) / 1000;
  return `took ${seconds < 60 ? `${seconds.toFixed(1)} s` : ago(graph.created, Date.parse(graph.ended)).replace(" ago", "")}`;
}

function makeRow(graph) {
  const row = { state: el("td", {}), name: el("a", { href: graphPath(graph.id) }), about: el("small", {}), nodes: el("td", { className: "counts" }), when: el("span", {}), took: el("small", {}) };
  row.element = el("tr", {}, row.state, el("th", { scope: "row", className: "wide" }, el("bdi", {}, row.name), row.about), row.nodes, el("td", { className: "time last" }, row.when, row.took));
  return row;
}

function fill(row, graph) {
  const total = Object.values(graph.nodes).reduce((sum, count) => sum + count, 0);
  const drawn = JSON.stringify([graph.state, graph.nodes, graph.name]);
  if (row.drawn !== drawn) {
    row.drawn = drawn;
    row.state.replaceChildren(badge(graph.state));
    row.nodes.replaceChildren(...countBadges(graph.nodes));
    setText(row.name, nameOf(graph));
    setText(row.about, `${number.format(total)} ${total === 1 ? "node" : "nodes"} · ${graph.id.slice(0, 8)}`);
  }
  setText(row.when, ago(graph.created));
  setText(row.took, durationOf(graph));
  row.when.title = clock(graph.created);
}

function draw() {
  if (visit === null) return;
  for (const [id, row] of rows) {
    if (!graphs.has(id)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  const body = $("graph-rows");
  let at = body.firstElementChild;
  for (const graph of [...graphs.values()].sort((one, other) => other.number - one.number)) {
    let row = rows.get(graph.id);
    if (!row) rows.set(graph.id, (row = makeRow(graph)));
    fill(row, graph);
    if (row.element === at) at = at.nextElementSibling;
    else body.insertBefore(row.element, at);
  }
  $("older-graphs").hidden = before === null;
  $("no-graphs").hidden = graphs.size > 0;
  setText($("no-graphs-words"), wanted() ? `There are no ${wanted()} graphs.` : "There are no graphs yet.");
}

export function open() {
  visit = {};
  loadNow();
}

/** Forgets the graphs: another view is shown. */
export function close() {
  visit = null;
  setText($("graphs-outcome"), "");
  graphs = new Map();
  before = null;
}

export function start() {
  $("graph-state").onchange = loadNow;
  $("older-graphs").onclick = () => busy($("older-graphs"), loadOlder);
  setInterval(draw, 5000);
}
