// Places the nodes of a graph in layers, from left to right or from top to bottom, and routes its edges. Pure: indices and numbers, no
// elements. Inside, layers go from left to right (`x`), and `y` is the place in a layer.
//
// A node's layer is the longest path to it; a layer with many nodes becomes several. An edge that spans several layers has a lane in each layer between, which is ordered like a
// node, so that the edge passes between nodes. Sweeps over the layers order them by the mean of their neighbours, which removes most
// crossings; the best order of all sweeps is used.

export const WIDTH = 184;
export const HEIGHT = 46;
const GAP = 18;
const LANE_GAP = 10;
const COLUMN_GAP = 64;
const MAX_LANES = 20_000;
const MAX_POINTS = 200_000;
// Edges of a node with more of them share lanes.
const MANY = 8;
const LEAST_ROWS = 12;
const ORDERINGS = 12;
const ALIGNMENTS = 8;

/** The layer of each node. `edges` are pairs of indices, without a cycle. */
export function layersOf(count, edges) {
  const layers = new Int32Array(count);
  const open = new Int32Array(count);
  const targets = Array.from({ length: count }, () => []);
  for (const [source, target] of edges) {
    targets[source].push(target);
    open[target] += 1;
  }
  const ready = [];
  for (let node = 0; node < count; node += 1) if (!open[node]) ready.push(node);
  for (let at = 0; at < ready.length; at += 1) {
    for (const target of targets[ready[at]]) {
      layers[target] = Math.max(layers[target], layers[ready[at]] + 1);
      if (!--open[target]) ready.push(target);
    }
  }
  return layers;
}

/** Splits layers with many more than `most` nodes into several, so that a picture is about as wide as high. */
function fold(layers, most) {
  const sizes = [];
  for (const layer of layers) sizes[layer] = (sizes[layer] ?? 0) + 1;
  const parts = sizes.map((size) => (size > 1.5 * most ? Math.ceil(size / most) : 1));
  const first = parts.map(() => 0);
  for (let layer = 1; layer < parts.length; layer += 1) first[layer] = first[layer - 1] + parts[layer - 1];
  const met = sizes.map(() => 0);
  return layers.map((layer) => first[layer] + Math.floor((met[layer]++ * parts[layer]) / sizes[layer]));
}

/**
 * Places a graph.
 *
 * `roomOf(edge)` is the width that the label of an edge needs. Returns the `places` of the nodes, each with its left upper corner and its
 * layer, the `routes` of the edges as lists of points, the numbers of the nodes of each layer in their order, and the size.
 */
export function place(count, edges, { isVertical = false, roomOf = () => 0 } = {}) {
  const size = isVertical ? { long: HEIGHT, wide: WIDTH } : { long: WIDTH, wide: HEIGHT };
  const layerOf = fold(layersOf(count, edges), Math.max(LEAST_ROWS, Math.ceil(Math.sqrt(isVertical ? count : 2.2 * count))));
  const isTied = new Uint8Array(count);
  for (const [source, target] of edges) isTied[source] = isTied[target] = 1;
  const items = Array.from({ length: count }, (_, node) => ({ node, layer: layerOf[node], left: [], right: [], y: 0, index: 0 }));
  const chains = makeChains(items, edges);
  const tied = items.filter((item) => item.node < 0 || isTied[item.node]);
  const layers = [];
  for (const item of tied) (layers[item.layer] ??= []).push(item);
  order(layers);
  align(layers, size);
  const top = tied.reduce((least, item) => Math.min(least, item.y - size.wide / 2), Infinity);
  for (const item of tied) item.y -= top;
  const columns = columnsOf(layers, chains, size, isVertical ? () => 0 : roomOf);
  const wide = tied.reduce((most, item) => Math.max(most, item.y + size.wide / 2), 0);
  const long = columns.length ? columns.at(-1) + size.long : 0;
  const turned = ([x, y]) => (isVertical ? [y, x] : [x, y]);
  const places = items.slice(0, count).map((item) => {
    const [x, y] = turned([columns[item.layer] ?? 0, item.y - size.wide / 2]);
    return { x, y, layer: item.layer };
  });
  const routes = chains.map((chain) => routeOf(chain, columns, size).map(turned));
  const rows = layers.map((layer) => layer.filter((item) => item.node >= 0).map((item) => item.node));
  const [width, height] = turned([long, wide]);
  const alone = items.filter((item) => item.node >= 0 && !isTied[item.node]).map((item) => item.node);
  rows[0] = [...(rows[0] ?? []), ...alone];
  return { places, routes, layers: rows, ...placeAlone(alone, places, width, height) };
}

/** The items that each edge passes: its source, a lane in each layer between, its target. Adds the lanes to the items. */
function makeChains(items, edges) {
  const outs = new Int32Array(items.length);
  const ins = new Int32Array(items.length);
  for (const [source, target] of edges) {
    outs[source] += 1;
    ins[target] += 1;
  }
  const sharedBy = ([source, target]) => (Math.max(outs[source], ins[target]) <= MANY ? null : outs[source] >= ins[target] ? `from ${source}` : `to ${target}`);
  const shared = new Map();
  const most = items.length + MAX_LANES;
  let left = MAX_POINTS;
  return edges.map((edge) => {
    const [source, target] = edge.map((end) => items[end]);
    // With too many lanes, long edges pass behind nodes instead.
    if (target.layer - source.layer > left) return [source, target];
    left -= target.layer - source.layer;
    const name = sharedBy(edge);
    const chain = [source];
    let last = { item: source, isNew: true };
    for (let layer = source.layer + 1; layer < target.layer; layer += 1) {
      const known = name && shared.get(`${name} ${layer}`);
      if (!known && items.length >= most) return [source, target];
      const item = known || { node: -1, layer, left: [], right: [], y: 0, index: 0, isShared: name !== null };
      if (!known) items.push(item);
      if (name && !known) shared.set(`${name} ${layer}`, item);
      if (!known || last.isNew) connect(last.item, item);
      last = { item, isNew: !known };
      chain.push(item);
    }
    if (target.layer === last.item.layer + 1) connect(last.item, target);
    chain.push(target);
    return chain;
  });
}

function connect(one, other) {
  one.right.push(other);
  other.left.push(one);
}

const number = (layer) => layer.forEach((item, index) => (item.index = index));

function order(layers) {
  layers.forEach(number);
  let best = null;
  let fewest = Infinity;
  for (let sweep = 0; sweep < ORDERINGS; sweep += 1) {
    const crossings = countCrossings(layers);
    if (crossings < fewest) {
      fewest = crossings;
      best = layers.map((layer) => [...layer]);
    }
    if (!crossings) break;
    const toRight = sweep % 2 === 0;
    for (const layer of toRight ? layers : [...layers].reverse()) {
      const side = toRight ? "left" : "right";
      for (const item of layer) {
        const near = item[side];
        item.wish = near.length ? near.reduce((sum, other) => sum + other.index, 0) / near.length : item.index;
      }
      layer.sort((one, other) => one.wish - other.wish || one.index - other.index);
      number(layer);
    }
  }
  best?.forEach((layer, at) => {
    layers[at] = layer;
    number(layer);
  });
}

/** The number of pairs of edges between neighbouring layers that cross. */
export function countCrossings(layers) {
  let crossings = 0;
  for (let at = 1; at < layers.length; at += 1) {
    const size = layers[at].length;
    // A Fenwick tree of the ends that were met.
    const tree = new Int32Array(size + 1);
    let met = 0;
    for (const item of layers[at - 1]) {
      const ends = item.right.map((other) => other.index).sort((one, other) => one - other);
      for (const end of ends) {
        let atMost = 0;
        for (let index = end + 1; index > 0; index -= index & -index) atMost += tree[index];
        crossings += met - atMost;
      }
      for (const end of ends) {
        met += 1;
        for (let index = end + 1; index <= size; index += index & -index) tree[index] += 1;
      }
    }
  }
  return crossings;
}

/** Gives the items of each layer heights near those of their neighbours, in their order and without an overlap. */
function align(layers, size) {
  for (const layer of layers) {
    let y = 0;
    for (const [index, item] of layer.entries()) item.y = y += index ? between(layer[index - 1], item, size) : 0;
    for (const item of layer) item.y -= y / 2;
  }
  for (let sweep = 0; sweep < ALIGNMENTS; sweep += 1) {
    const toRight = sweep % 2 === 0;
    for (const layer of toRight ? layers : [...layers].reverse()) spread(layer, size, toRight ? "left" : "right", sweep >= ALIGNMENTS - 2);
  }
}

/** The distance of the middles of two neighbours in a layer. */
function between(one, other, { wide }) {
  const lanes = (one.node < 0) + (other.node < 0);
  return lanes === 2 ? LANE_GAP : lanes ? LANE_GAP + wide / 2 : wide + GAP;
}

/** The heights nearest to the wishes that keep the distances: isotonic regression by pooling neighbours that would overlap. */
function spread(layer, size, side, isLast) {
  const blocks = [];
  let offset = 0;
  for (const [index, item] of layer.entries()) {
    offset += index ? between(layer[index - 1], item, size) : 0;
    // A lane of many edges is at the side of its layer: nodes that followed it would drift away, layer after layer.
    const near = (isLast ? [...item.left, ...item.right] : item[side]).filter((other) => !other.isShared || item.isShared);
    const wish = near.length ? near.reduce((sum, other) => sum + other.y, 0) / near.length : item.y;
    const weight = item.node < 0 ? 4 : 1;
    item.offset = offset;
    let block = { sum: (wish - offset) * weight, weight, items: [item] };
    while (blocks.length && blocks.at(-1).sum / blocks.at(-1).weight >= block.sum / block.weight) {
      const above = blocks.pop();
      for (const one of block.items) above.items.push(one);
      block = { sum: above.sum + block.sum, weight: above.weight + block.weight, items: above.items };
    }
    blocks.push(block);
  }
  for (const block of blocks) for (const item of block.items) item.y = block.sum / block.weight + item.offset;
}

/** Where each layer begins. A gap is wider if its edges are steep or have labels. */
function columnsOf(layers, chains, { long }, roomOf) {
  const gaps = layers.map(() => COLUMN_GAP);
  for (const [edge, chain] of chains.entries()) {
    for (let at = 1; at < chain.length; at += 1) {
      const { layer } = chain[at];
      const room = at === chain.length - 1 ? roomOf(edge) : 0;
      const steep = Math.min(160, Math.abs(chain[at].y - chain[at - 1].y) * 0.12);
      gaps[layer] = Math.max(gaps[layer], COLUMN_GAP + steep, room && room + COLUMN_GAP / 2);
    }
  }
  let x = 0;
  return layers.map((_, layer) => (x += layer ? long + gaps[layer] : 0));
}

/** Nodes without edges stand in a grid below the others. Returns the size of all. */
function placeAlone(alone, places, width, height) {
  if (!alone.length) return { width, height };
  const across = Math.max(Math.floor((width + GAP) / (WIDTH + GAP)), Math.ceil(Math.sqrt((alone.length * HEIGHT) / WIDTH)), 1);
  const top = height ? height + 2 * GAP : 0;
  for (const [index, node] of alone.entries()) {
    places[node].x = (index % across) * (WIDTH + GAP);
    places[node].y = top + Math.floor(index / across) * (HEIGHT + GAP);
  }
  const rows = Math.ceil(alone.length / across);
  return { width: Math.max(width, Math.min(across, alone.length) * (WIDTH + GAP) - GAP), height: top + rows * (HEIGHT + GAP) - GAP };
}

function routeOf(chain, columns, { long }) {
  const points = [];
  for (const [index, item] of chain.entries()) {
    const x = columns[item.layer];
    if (index) points.push([x, item.y]);
    if (index < chain.length - 1) points.push([x + long, item.y]);
  }
  return points;
}
