// Moves and scales an SVG in its frame: with the pointer, with two fingers, the wheel and the keyboard.
//
// The browser has the SVG as a layer, which it moves and scales without drawing it again. When the scale has been the same for a moment,
// the SVG is drawn in that size, so that it is sharp.

const MOST = 3;
const STEP = 1.3;
const KEY_PAN = 60;
// Below this scale, texts cannot be read.
const FAR = 0.45;
const READABLE = 0.65;

const SETTLED = 150;

export class Viewport {
  constructor(element, svg) {
    this._element = element;
    this._svg = svg;
    this._drawnScale = 1;
    this._timer = null;
    this._pointers = new Map();
    this._frame = null;
    this._size = [1, 1];
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    element.addEventListener("wheel", (event) => this._onWheel(event), { passive: false });
    element.addEventListener("pointerdown", (event) => this._onDown(event));
    element.addEventListener("pointermove", (event) => this._onMove(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(name, (event) => this._pointers.delete(event.pointerId));
  }

  /** Sets the size of the content. */
  setSize(width, height) {
    this._size = [Math.max(width, 1), Math.max(height, 1)];
    this._svg.setAttribute("viewBox", `0 0 ${this._size.join(" ")}`);
    this._settle();
  }

  /** Shows all of the content. */
  fit() {
    const { width, height } = this._box();
    const margin = 24;
    this.scale = Math.min((width - 2 * margin) / this._size[0], (height - 2 * margin) / this._size[1], 1.25);
    this.scale = Math.max(this.scale, 0.005);
    this.x = (width - this._size[0] * this.scale) / 2;
    this.y = (height - this._size[1] * this.scale) / 2;
    this._settle();
  }

  /** Shows all of the content, or its beginning if all would be too small to read and `isReadable` is wanted. */
  begin({ isReadable }) {
    this.fit();
    if (!isReadable || this.scale >= READABLE) return;
    const { width, height } = this._box();
    this.scale = READABLE;
    const start = (room, size) => (size * READABLE > room - 48 ? 24 : (room - size * READABLE) / 2);
    this.x = start(width, this._size[0]);
    this.y = start(height, this._size[1]);
    this._settle();
  }

  pan(dx, dy) {
    // Some of the content always stays visible.
    const { width, height } = this._box();
    const edge = 60;
    this.x = Math.min(width - edge, Math.max(edge - this._size[0] * this.scale, this.x + dx));
    this.y = Math.min(height - edge, Math.max(edge - this._size[1] * this.scale, this.y + dy));
    this._drawSoon();
  }

  /** Scales around a point of the element, its middle if none is given. */
  zoom(factor, point) {
    const box = this._box();
    const [x, y] = point ?? [box.width / 2, box.height / 2];
    const least = Math.min(0.1, ((box.width / this._size[0]) * 0.8), (box.height / this._size[1]) * 0.8);
    const scale = Math.min(MOST, Math.max(least, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.pan(0, 0);
  }

  zoomIn() {
    this.zoom(STEP);
  }

  zoomOut() {
    this.zoom(1 / STEP);
  }

  /** Moves as little as needed to show a part of the content, on request so large that its texts are readable. */
  reveal(x, y, width, height, { isReadable = false } = {}) {
    if (isReadable && this.scale < FAR) this.zoom(0.8 / this.scale, [this.x + (x + width / 2) * this.scale, this.y + (y + height / 2) * this.scale]);
    const box = this._box();
    const margin = 16;
    const shift = (start, size, room) => Math.max(margin - start, 0) + Math.min(room - margin - (start + size), 0);
    this.pan(shift(this.x + x * this.scale, width * this.scale, box.width), shift(this.y + y * this.scale, height * this.scale, box.height));
  }

  /** Handles a key. Returns whether it did. */
  onKey(key, { canPan }) {
    const pans = { ArrowLeft: [KEY_PAN, 0], ArrowRight: [-KEY_PAN, 0], ArrowUp: [0, KEY_PAN], ArrowDown: [0, -KEY_PAN] };
    if (key === "+" || key === "=") this.zoomIn();
    else if (key === "-") this.zoomOut();
    else if (key === "0") this.fit();
    else if (canPan && pans[key]) this.pan(...pans[key]);
    else return false;
    return true;
  }

  _box() {
    return this._element.getBoundingClientRect();
  }

  _drawSoon() {
    this._frame ??= requestAnimationFrame(() => {
      this._frame = null;
      this._svg.style.transform = `translate(${this.x.toFixed(2)}px, ${this.y.toFixed(2)}px) scale(${(this.scale / this._drawnScale).toFixed(5)})`;
      this._element.classList.toggle("far", this.scale < FAR);
      if (this.scale === this._drawnScale) return;
      clearTimeout(this._timer);
      this._timer = setTimeout(() => this._settle(), SETTLED);
    });
  }

  /** Draws in the size that is shown. */
  _settle() {
    this._drawnScale = this.scale;
    this._svg.setAttribute("width", this._size[0] * this.scale);
    this._svg.setAttribute("height", this._size[1] * this.scale);
    this._drawSoon();
  }

  // The wheel alone scrolls the page.
  _onWheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = this._box();
    this.zoom(Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) / 300), [event.clientX - box.left, event.clientY - box.top]);
  }

  _onDown(event) {
    if (event.button === 0) this._pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, moved: 0 });
  }

  _onMove(event) {
    const last = this._pointers.get(event.pointerId);
    if (!last) return;
    const [dx, dy] = [event.clientX - last.x, event.clientY - last.y];
    last.moved += Math.abs(dx) + Math.abs(dy);
    // A click may move a little; what is dragged is no click on a node.
    if (last.moved < 5) return;
    if (!this._element.hasPointerCapture(event.pointerId)) this._element.setPointerCapture(event.pointerId);
    const other = [...this._pointers.entries()].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const box = this._box();
      const before = Math.hypot(last.x - other.x, last.y - other.y);
      const after = Math.hypot(event.clientX - other.x, event.clientY - other.y);
      if (before > 0) this.zoom(after / before, [(event.clientX + other.x) / 2 - box.left, (event.clientY + other.y) / 2 - box.top]);
      this.pan(dx / 2, dy / 2);
    } else this.pan(dx, dy);
    last.x = event.clientX;
    last.y = event.clientY;
  }
}
