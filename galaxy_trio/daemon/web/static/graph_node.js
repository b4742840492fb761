// The panel that shows one node of a graph, with the reasons why it waits, and its actions.

import { $, clock, el, number, setText, shown } from "./dom.js";
import { beforeText } from "./graph_table.js";
import { badge } from "./icons.js";
import { taskPath } from "./router.js";

const MAX_EDGES = 20;

export class NodePanel {
  /** `actionsOf(node)` returns the buttons of a node; `onClose()` is called when the user closes the panel. */
  constructor({ actionsOf, onClose }) {
    this._actionsOf = actionsOf;
    this.id = null;
    $("close-node").onclick = onClose;
    $("node").onkeydown = (event) => {
      if (event.key === "Escape") onClose();
    };
  }

  hide() {
    this.id = null;
    $("node").hidden = true;
  }

  /** Shows a node, and gives its heading the focus. */
  show(model, id) {
    this.id = id;
    $("node").hidden = false;
    this.refresh(model);
    $("node-title").focus();
  }

  /** Shows the node as it is now. */
  refresh(model) {
    const node = model.nodes.get(this.id);
    if (!node) {
      this.hide();
      return;
    }
    setText($("node-title"), shown(node.title));
    const isRunning = node.state === "running";
    const facts = [
      ["State", badge(node.state)],
      ["Why", node.error && shown(node.error, 1001)],
      ["Request", shown(node.request, 1001)],
      ["Device", node.device && shown(node.device)],
      ["Requires", node.wants ? shown(node.wants) : "any device"],
      ["Started", node.started && clock(node.started)],
      ["Ended", node.ended && clock(node.ended)],
      ["Attempts", `${number.format(node.attempts + isRunning)} of ${number.format(Math.max(node.retries + 1, node.attempts + isRunning))}`],
      ["Priority", node.priority || null],
      ["After", edgesText(node.in, (edge) => beforeText(edge, model))],
      ["Before", edgesText(node.out, (edge) => `${shown(model.nodes.get(edge.target).title)}${edge.label ? ` (${shown(edge.label)})` : ""}`)],
      ["Id", shown(node.id, 200)],
    ].filter(([, value]) => value);
    const drawn = JSON.stringify([node.id, node.task, facts.map(([, value]) => value.textContent ?? value)]);
    if (this._drawn === drawn && !$("node").hidden) return;
    this._drawn = drawn;
    $("node-facts").replaceChildren(...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
    const actions = this._actionsOf(node);
    if (node.task) actions.unshift(el("a", { className: "button", href: taskPath(node.task) }, "Open its task"));
    $("node-actions").replaceChildren(...actions);
  }
}

function edgesText(edges, text) {
  if (!edges.length) return null;
  const lines = edges.slice(0, MAX_EDGES).map((edge) => el("li", {}, el("bdi", {}, text(edge))));
  if (edges.length > MAX_EDGES) lines.push(el("li", {}, `and ${number.format(edges.length - MAX_EDGES)} more`));
  return el("ul", { className: "plain" }, ...lines);
}
