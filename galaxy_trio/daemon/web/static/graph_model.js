// What the page knows of one graph: its nodes, edges and states, kept up to date by events. Texts are kept up to a length.

export const ENDED = new Set(["completed", "failed", "cancelled", "lost", "skipped"]);
export const RETRYABLE = new Set(["failed", "cancelled", "lost"]);
const MAX_TEXT = 1000;
const SIGNS = { eq: "=", ne: "≠", lt: "<", le: "≤", gt: ">", ge: "≥", in: "in" };
const WORDS = { success: "", failure: "failure", end: "any end" };

const cut = (text) => (typeof text === "string" && text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : (text ?? null));

export class GraphModel {
  /** Reads a whole graph, as the daemon returns it. */
  constructor(whole) {
    const { nodes, edges = [] } = whole.graph;
    this.nodes = new Map(nodes.map((node) => [node.id, makeNode(node)]));
    this.edges = edges.map(makeEdge);
    for (const edge of this.edges) {
      this.nodes.get(edge.source).out.push(edge);
      this.nodes.get(edge.target).in.push(edge);
    }
    this.take(whole);
  }

  /** Whether a whole graph has the same nodes and edges. */
  hasShapeOf(whole) {
    return whole.version === this.record.version && whole.graph.nodes.length === this.nodes.size;
  }

  /** Takes the states of a whole graph of the same shape. Returns the ids of the nodes that changed. */
  take(whole) {
    const { graph, ...record } = whole;
    this.record = record;
    const results = new Map(Object.entries(graph.results ?? {}));
    const decisions = new Map(Object.entries(graph.decisions ?? {}));
    const changed = [];
    for (const node of this.nodes.values()) {
      const before = fingerprint(node, this);
      const known = results.get(node.id) ?? {};
      node.state = known.state ?? "waiting";
      // An attempt that runs is counted when it has ended.
      node.attempts = (known.attempt ?? 0) - (node.state === "running" ? 1 : 0);
      node.task = known.task_id ?? null;
      node.device = known.device_id ?? null;
      node.started = known.started ?? null;
      node.ended = known.ended ?? null;
      node.error = cut(known.error);
      for (const edge of node.out) edge.decided = decisions.get(edge.id) ?? null;
      if (before !== fingerprint(node, this)) changed.push(node.id);
    }
    return changed;
  }

  /** Whether an edge holds; null as long as that is not decided. */
  holds(edge) {
    const { state } = this.nodes.get(edge.source);
    if (!ENDED.has(state)) return null;
    if (edge.when === "end") return true;
    if (edge.when === "failure") return state === "failed" || state === "lost";
    if (state !== "completed") return false;
    return edge.when === "success" ? true : edge.decided;
  }

  /** The number of nodes in each state. */
  counts() {
    const counts = {};
    for (const { state } of this.nodes.values()) counts[state] = (counts[state] ?? 0) + 1;
    return counts;
  }

  /** Applies the event of a graph. Returns the ids of the nodes that changed, and whether that is all: if not, the graph must be loaded again. */
  applyGraph({ changed, more_changed: more, ...record }) {
    const isSame = record.version === this.record.version;
    this.record = { ...this.record, ...record };
    if (!isSame || more) {
      // What was loaded has another shape until then.
      this.record.version = null;
      return { ids: [], isWhole: false };
    }
    const ids = [];
    let isWhole = true;
    for (const [id, state] of Object.entries(changed)) {
      const node = this.nodes.get(id);
      if (!node) {
        isWhole = false;
        continue;
      }
      if (node.state === state || (node.state === "running" && state === "ready")) continue;
      if (node.state === "running" && ENDED.has(state)) node.attempts += 1;
      node.state = state;
      node.ended = ENDED.has(state) ? new Date().toISOString() : null;
      if (state === "waiting" || state === "ready") Object.assign(node, { error: null, started: null });
      // Whether its conditions hold is not in the event.
      if (state === "completed" && node.out.some((edge) => edge.when === "condition")) isWhole = false;
      ids.push(id);
    }
    return { ids, isWhole };
  }

  /** Applies the event of a task of one of the nodes. Returns the ids of the nodes that changed. */
  applyTask(task) {
    const node = this.nodes.get(task.node);
    if (!node) return [];
    if (task.state === "queued") {
      node.task = task.id;
      if (node.state === "running") node.state = "ready";
    } else if (task.state === "running") {
      Object.assign(node, { task: task.id, device: task.device, started: task.started, ended: null, error: null, state: "running" });
    } else if (node.task === task.id) {
      Object.assign(node, { device: task.device, started: task.started, error: cut(task.error) });
      if (ENDED.has(node.state)) node.ended = task.ended;
      else if (node.state === "running") {
        // Its graph decides whether it has ended, or is tried again.
        node.state = "ready";
        node.attempts += 1;
      }
    }
    return [node.id];
  }
}

const fingerprint = (node, model) => JSON.stringify([node.state, node.task, node.device, node.error, node.attempts, node.out.map((edge) => model.holds(edge))]);

function makeNode({ id, name, request, device, os, capabilities, priority, retries }) {
  return { id, title: name?.trim() ? name.slice(0, MAX_TEXT) : id, request: cut(request), wants: cut([device, os, ...(capabilities ?? [])].filter(Boolean).join(", ")), priority: priority ?? 0, retries: retries ?? 0, in: [], out: [], state: "waiting" };
}

function makeEdge({ id, source, target, when = "success", condition }) {
  return { id, source, target, when, label: when === "condition" ? conditionText(condition) : WORDS[when], decided: null };
}

function conditionText(condition) {
  if (typeof condition !== "object" || condition === null) return "condition";
  const place = condition.at ? condition.at : "result";
  const value = SIGNS[condition.is] ? ` ${SIGNS[condition.is]} ${JSON.stringify(condition.value ?? null)}` : ` ${condition.is === "truthy" ? "is true" : condition.is}`;
  return cut(`if ${place}${value}`);
}
