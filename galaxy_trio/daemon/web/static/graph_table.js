// The same graph as a table by layers, for screen readers, keyboards and small screens. Long tables are shown in parts.

import { $, ago, el, number, setText, shown } from "./dom.js";
import { layersOf } from "./graph_layout.js";
import { badge } from "./icons.js";
import { taskPath } from "./router.js";

const PART = 200;
const MAX_BEFORE = 5;

export class NodeTable {
  /** `actionsOf(node)` returns the buttons of a node; `onSelect(id)` is called when the user chooses one. */
  constructor({ actionsOf, onSelect }) {
    this._actionsOf = actionsOf;
    this._onSelect = onSelect;
    this.clear();
    for (const id of ["find-node", "node-state"]) $(id).oninput = () => this._model && this._draw();
    $("more-nodes").onclick = () => {
      this._most += PART;
      this._draw();
    };
  }

  clear() {
    this._model = null;
    this._rows = new Map();
    this._most = PART;
    $("node-rows").replaceChildren();
  }

  /** Shows a graph. */
  draw(model) {
    if (this._model !== model) {
      this.clear();
      this._model = model;
      const nodes = [...model.nodes.values()];
      const index = new Map(nodes.map((node, at) => [node.id, at]));
      const layers = layersOf(nodes.length, model.edges.map((edge) => [index.get(edge.source), index.get(edge.target)]));
      this._sorted = nodes.map((node, at) => ({ node, layer: layers[at] + 1 })).sort((one, other) => one.layer - other.layer);
    }
    this._draw();
  }

  /** Draws the states of some nodes again, those of the nodes after them too. */
  refresh(ids) {
    if ($("node-state").value) {
      this._draw();
      return;
    }
    const changed = new Set(ids);
    for (const id of [...changed]) for (const edge of this._model.nodes.get(id).out) changed.add(edge.target);
    for (const id of changed) if (this._rows.has(id)) this._fill(this._rows.get(id), this._model.nodes.get(id));
  }

  /** Gives a node's row the focus, or the table if the row is not shown. */
  focus(id) {
    (this._rows.get(id)?.name ?? $("graph-list").querySelector(".table")).focus();
  }

  _draw() {
    const wanted = $("find-node").value.trim().toLowerCase();
    const state = $("node-state").value;
    const matching = this._sorted.filter(({ node }) => (!state || node.state === state) && `${node.id} ${node.title} ${node.device ?? ""} ${node.wants}`.toLowerCase().includes(wanted));
    const shownNow = matching.slice(0, this._most);
    const kept = new Set(shownNow.map(({ node }) => node.id));
    for (const [id, row] of this._rows) {
      if (!kept.has(id)) {
        row.element.remove();
        this._rows.delete(id);
      }
    }
    const body = $("node-rows");
    let at = body.firstElementChild;
    for (const { node, layer } of shownNow) {
      let row = this._rows.get(node.id);
      if (!row) this._rows.set(node.id, (row = this._make(node, layer)));
      this._fill(row, node);
      if (row.element === at) at = at.nextElementSibling;
      else body.insertBefore(row.element, at);
    }
    $("more-nodes").hidden = matching.length <= shownNow.length;
    setText($("more-nodes"), `Show more: ${number.format(matching.length - shownNow.length)} left`);
    $("no-nodes").hidden = matching.length > 0;
  }

  _make(node, layer) {
    const title = shown(node.title);
    const row = { state: el("td", {}), device: el("td", {}), when: el("td", { className: "time" }), before: el("td", { className: "wide before" }), actions: el("td", { className: "last" }) };
    row.name = el("button", { type: "button", className: "link", ariaLabel: `Show node: ${title}` }, title);
    row.name.onclick = () => this._onSelect(node.id);
    const about = el("small", {}, [`layer ${number.format(layer)}`, node.title === node.id ? null : shown(node.id)].filter(Boolean).join(" · "));
    row.element = el("tr", {}, row.state, el("th", { scope: "row", className: "wide" }, el("bdi", {}, row.name), about), row.device, row.when, row.before, row.actions);
    return row;
  }

  _fill(row, node) {
    const before = node.in.slice(0, MAX_BEFORE).map((edge) => beforeText(edge, this._model));
    if (node.in.length > MAX_BEFORE) before.push(`and ${number.format(node.in.length - MAX_BEFORE)} more`);
    const drawn = JSON.stringify([node.state, node.task, before]);
    if (row.drawn !== drawn) {
      row.drawn = drawn;
      row.state.replaceChildren(badge(node.state));
      row.before.replaceChildren(...before.map((text) => el("div", {}, el("bdi", {}, text))));
      const actions = this._actionsOf(node);
      if (node.task) actions.unshift(el("a", { href: taskPath(node.task), ariaLabel: `Open the task of ${shown(node.title)}` }, "Task"));
      row.actions.replaceChildren(...actions);
    }
    setText(row.device, shown(node.device ?? (node.wants || "any")));
    setText(row.when, node.ended || node.started ? ago(node.ended ?? node.started) : "–");
  }
}

/** What an edge to a node demands, and whether that holds. */
export function beforeText(edge, model) {
  const source = model.nodes.get(edge.source);
  const holds = model.holds(edge);
  const how = edge.label ? ` (${shown(edge.label)})` : "";
  return `${holds === null ? "…" : holds ? "✓" : "✕"} ${shown(source.title)}${how}`;
}
