// Draws a graph as SVG. Events change only the elements of the nodes that changed, and of the edges from them.

import { el, shown } from "./dom.js";
import { HEIGHT, place, WIDTH } from "./graph_layout.js";
import { Viewport } from "./graph_viewport.js";
import { shape, svg } from "./icons.js";

const TITLE = "600 13px system-ui, sans-serif";
const SMALL = "11.5px system-ui, sans-serif";
const LEFT = 34;
const MAX_LABEL = 120;
// Up to this number of nodes, both directions are tried.
const MAX_TRIED = 1000;

const measure = el("canvas").getContext("2d");

/** The beginning of a text that fits into a width, in pixels. */
function fitting(text, font, width) {
  measure.font = font;
  if (measure.measureText(text).width <= width) return text;
  let [least, most] = [0, text.length];
  while (least < most) {
    const middle = Math.ceil((least + most) / 2);
    if (measure.measureText(`${text.slice(0, middle)}…`).width <= width) least = middle;
    else most = middle - 1;
  }
  return `${text.slice(0, least).replace(/[\ud800-\udbff]$/, "")}…`;
}

const widthOf = (text, font) => {
  measure.font = font;
  return measure.measureText(text).width;
};

export class Picture {
  /** `onSelect(id)` is called when the user chooses a node, `onOpen(id)` when the user asks for its task. */
  constructor(element, { onSelect, onOpen }) {
    this._element = element;
    this._content = svg("svg");
    element.append(this._content);
    this.viewport = new Viewport(element, this._content);
    this._onSelect = onSelect;
    this._onOpen = onOpen;
    this.clear();
    element.addEventListener("click", (event) => this._choose(event, onSelect));
    element.addEventListener("dblclick", (event) => this._choose(event, onOpen));
    element.addEventListener("keydown", (event) => this._onKey(event));
    element.addEventListener("focusin", (event) => this._onFocus(event));
  }

  /** Forgets the graph. */
  clear() {
    this._model = null;
    this._nodes = new Map();
    this._ids = new WeakMap();
    this._edges = new Map();
    this._current = null;
    this._content.replaceChildren();
  }

  /** Whether it shows a graph in its present shape. */
  shows(model) {
    return this._model === model;
  }

  /** Whether it shows any graph. */
  get isDrawn() {
    return this._model !== null;
  }

  /** Draws a graph. */
  draw(model) {
    const current = this._current;
    const hasFocus = this._content.contains(document.activeElement);
    this.clear();
    this._model = model;
    const nodes = [...model.nodes.values()];
    const index = new Map(nodes.map((node, at) => [node.id, at]));
    const labels = model.edges.map((edge) => fitting(shown(edge.label), SMALL, MAX_LABEL));
    const rooms = labels.map((label) => (label ? widthOf(`✕ ${label}`, SMALL) : 0));
    const pairs = model.edges.map((edge) => [index.get(edge.source), index.get(edge.target)]);
    this._layout = this._bestLayout(nodes.length, pairs, (edge) => rooms[edge]);
    const [lines, boxes, words] = [svg("g"), svg("g"), svg("g", { class: "labels" })];
    const met = new Map();
    model.edges.forEach((edge, at) => {
      const route = this._layout.routes[at];
      const line = svg("path", { d: pathOf(route, this._layout.isVertical), class: `edge ${edge.when}` });
      const number = met.get(edge.target) ?? 0;
      met.set(edge.target, number + 1);
      lines.append(line);
      this._edges.set(edge, { line, label: null, text: labels[at], at: labelPlace(...route.slice(-2), number, this._layout.isVertical) });
    });
    this._labels = words;
    nodes.forEach((node, at) => {
      const box = makeBox(node, this._layout.places[at], this._layout.isVertical);
      boxes.append(box.element);
      this._nodes.set(node.id, box);
      this._ids.set(box.element, node.id);
    });
    this._layout.layers.forEach((layer, at) => layer.forEach((node, row) => Object.assign(this._nodes.get(nodes[node].id), { layer: at, row })));
    this._rows = this._layout.layers.map((layer) => layer.map((node) => nodes[node].id));
    this._content.append(lines, words, boxes);
    this.viewport.setSize(this._layout.width, this._layout.height);
    this.refresh(model.nodes.keys());
    this._moveFocus(this._nodes.has(current) ? current : (this._rows[0]?.[0] ?? null));
    if (hasFocus) this.focus(current);
  }

  /** Draws the states of some nodes again. */
  refresh(ids) {
    for (const id of ids) {
      const node = this._model.nodes.get(id);
      fillBox(this._nodes.get(id), node);
      for (const edge of node.out) this._fillEdge(edge);
    }
  }

  /** Moves the picture so that a node is visible. */
  reveal(id, { isReadable = false } = {}) {
    const { x, y } = this._nodes.get(id).at;
    this.viewport.reveal(x, y, WIDTH, HEIGHT, { isReadable });
  }

  /** Marks a node; none if the id is null. */
  select(id) {
    for (const [name, box] of this._nodes) if (box.isSelected !== (name === id)) box.element.classList.toggle("selected", (box.isSelected = name === id));
  }

  /** Gives a node the focus, and shows it. */
  focus(id) {
    if (!this._nodes.has(id)) return;
    this._moveFocus(id);
    this._nodes.get(id).element.focus({ preventScroll: true });
  }

  /** Layers from left to right or from top to bottom: the one of which all can be shown larger. */
  _bestLayout(count, pairs, roomOf) {
    const { width, height } = this._element.getBoundingClientRect();
    const tried = count <= MAX_TRIED ? [false, true] : [false];
    const layouts = tried.map((isVertical) => ({ isVertical, ...place(count, pairs, { isVertical, roomOf }) }));
    const scale = (layout) => Math.min(width / layout.width, height / layout.height, 1);
    return layouts.reduce((best, layout) => (scale(layout) > scale(best) ? layout : best));
  }

  _fillEdge(edge) {
    const drawn = this._edges.get(edge);
    const { line, text } = drawn;
    const holds = this._model.holds(edge);
    line.classList.toggle("holds", holds === true);
    line.classList.toggle("dropped", holds === false);
    const words = holds === false ? `✕ ${text || "success"}` : text;
    // Most edges have none: a large graph has half as many elements.
    if (words && drawn.label === null) this._labels.append((drawn.label = svg("text", drawn.at)));
    if (drawn.label !== null && drawn.label.textContent !== words) drawn.label.textContent = words;
  }

  // Only one node is reached by Tab, as in a list.
  _moveFocus(id) {
    this._nodes.get(this._current)?.element.setAttribute("tabindex", "-1");
    this._current = id;
    this._nodes.get(id)?.element.setAttribute("tabindex", "0");
  }

  _choose(event, take) {
    const id = this._idAt(event.target);
    if (id === undefined) return;
    this._moveFocus(id);
    take(id);
  }

  _idAt(target) {
    return this._ids.get(target.closest(".node"));
  }

  _onFocus(event) {
    const id = this._idAt(event.target);
    if (id === undefined || !event.target.matches(":focus-visible")) return;
    this._moveFocus(id);
    this.reveal(id, { isReadable: true });
  }

  _onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const id = this._idAt(event.target);
    if (id !== undefined && (event.key === "Enter" || event.key === " ")) (event.shiftKey ? this._onOpen : this._onSelect)(id);
    else if (id !== undefined && event.key.startsWith("Arrow")) this.focus(this._beside(id, event.key));
    else if (!this.viewport.onKey(event.key, { canPan: true })) return;
    event.preventDefault();
  }

  /** The node that is next in the direction of an arrow: along an edge, or in the layer. */
  _beside(id, key) {
    const box = this._nodes.get(id);
    const isBack = key === "ArrowUp" || key === "ArrowLeft";
    const isAlong = (key === "ArrowUp" || key === "ArrowDown") === this._layout.isVertical;
    if (!isAlong) return this._rows[box.layer][box.row + (isBack ? -1 : 1)];
    const node = this._model.nodes.get(id);
    const others = isBack ? node.in.map((edge) => edge.source) : node.out.map((edge) => edge.target);
    const far = (other) => Math.hypot(this._nodes.get(other).at.y - box.at.y, this._nodes.get(other).at.x - box.at.x);
    return others.sort((one, other) => far(one) - far(other))[0];
  }
}

/** A smooth line through points: it is straight within layers, and curved between them. */
function pathOf(points, isVertical) {
  const written = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  let path = `M${written(...points[0])}`;
  for (let at = 1; at < points.length; at += 1) {
    const [[fromX, fromY], [x, y]] = [points[at - 1], points[at]];
    const [middleX, middleY] = [(fromX + x) / 2, (fromY + y) / 2];
    const bends = isVertical ? `${written(fromX, middleY)} ${written(x, middleY)}` : `${written(middleX, fromY)} ${written(middleX, y)}`;
    path += at % 2 ? `C${bends} ${written(x, y)}` : `L${written(x, y)}`;
  }
  return path;
}

/** Where the label of an edge is: near its end, apart from those of the other edges to its target. `index` is its number among them. */
function labelPlace([x, y], [toX, toY], index, isVertical) {
  const part = index % 2 ? 0.46 : 0.62;
  const along = 1.5 * part * (1 - part) + part ** 3;
  const across = 3 * part ** 2 - 2 * part ** 3;
  return isVertical ? { x: x + (toX - x) * across, y: y + (toY - y) * along + 2 } : { x: x + (toX - x) * along, y: y + (toY - y) * across - 3 };
}

function makeBox(node, at, isVertical) {
  const box = { at, icon: svg("path", { class: "shape" }), state: svg("text", { x: LEFT, y: 36, class: "small" }), isSelected: false };
  box.title = fitting(shown(node.title), TITLE, WIDTH - LEFT - 8);
  box.element = svg(
    "g",
    { class: "node", role: "button", tabindex: "-1", transform: `translate(${at.x.toFixed(1)} ${at.y.toFixed(1)})` },
    svg("rect", { width: WIDTH, height: HEIGHT, rx: 9 }),
    svg("g", { transform: "translate(9 15)" }, box.icon),
    svg("text", { x: LEFT, y: 19, class: "title" }, box.title),
    box.state,
  );
  if (node.in.length) box.element.prepend(svg("path", { d: isVertical ? `M${WIDTH / 2 - 4.5} -9l4.5 8 4.5-8z` : `M-9 ${HEIGHT / 2 - 4.5}l8 4.5-8 4.5z`, class: "tip" }));
  return box;
}

function fillBox(box, node) {
  if (box.drawn !== node.state) {
    if (box.drawn) box.element.classList.remove(box.drawn);
    box.element.classList.add((box.drawn = node.state));
    box.icon.setAttribute("d", shape(node.state));
  }
  const words = [node.state, node.device].filter(Boolean).map((text) => shown(text)).join(" · ");
  const fits = box.words === words ? box.state.textContent : fitting(words, SMALL, WIDTH - LEFT - 8);
  if (box.state.textContent !== fits) box.state.textContent = fits;
  if (box.words !== words) box.element.setAttribute("aria-label", `${shown(node.title)}: ${words}`);
  box.words = words;
}
