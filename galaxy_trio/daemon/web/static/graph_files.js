// Imports graphs from files, dropped on the page or chosen, and exports them.

import { errorText, request, requestJson } from "./api.js";
import { $, el, number, setText, shown } from "./dom.js";
import { nameOf } from "./graphs.js";
import { go, GRAPHS, graphPath, here } from "./router.js";

const MAX_NAME = 80;
const TEXT_FORMS = /\.(ya?ml|toml)$/i;
const RESERVED = /^(con|prn|aux|nul|com\d|lpt\d)$/i;

const newKey = () => `page-${[...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
// A file whose answer was lost keeps its idempotency key, so that importing it again does not submit a second graph.
let last = { text: null, key: null };

/** Submits the graph in a file, and shows it. */
async function importFile(file) {
  const name = shown(file.name, 100);
  if (TEXT_FORMS.test(file.name)) {
    refuse(name, ["The page imports JSON only. The command line reads YAML and TOML as well: galaxy-trio graph submit."]);
    return;
  }
  const most = Number($("import-file").dataset.maxBytes);
  if (file.size > most) {
    refuse(name, [`The file has ${number.format(file.size)} bytes, and the daemon accepts at most ${number.format(most)}.`]);
    return;
  }
  let text;
  try {
    // Refuses what is not UTF-8.
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    JSON.parse(text);
  } catch (error) {
    const why = error instanceof SyntaxError ? shown(error.message, 300) : "it is no text in UTF-8, or it cannot be read.";
    refuse(name, [`The file is not JSON: ${why}`]);
    return;
  }
  if (text !== last.text) last = { text, key: newKey() };
  clear();
  setText($("graphs-outcome"), `Submitting ${name}…`);
  try {
    const graph = await requestJson("graphs", { method: "POST", text, headers: { "Idempotency-Key": last.key }, signal: AbortSignal.timeout(60_000) });
    last = { text: null, key: null };
    // The user may have gone elsewhere.
    const isAwaited = here().view === "graphs";
    setText($("graphs-outcome"), isAwaited ? "" : `Imported ${name} as ${nameOf(graph)}.`);
    if (isAwaited) go(graphPath(graph.id));
  } catch (error) {
    if (error.status !== undefined && error.status < 500) last = { text: null, key: null };
    refuse(name, error.problems ?? [errorText(error)]);
  }
}

/** Shows why a file was not accepted, with all problems. */
function refuse(name, problems) {
  clear();
  $("import-problems").hidden = false;
  setText($("import-title"), `${name}: not imported, ${problems.length === 1 ? "1 problem" : `${number.format(problems.length)} problems`}`);
  $("import-list").replaceChildren(...problems.map(problemItem));
  $("import-title").focus();
}

/** A problem begins with its path in the document, if it has one. */
function problemItem(problem) {
  const text = shown(problem, 2000);
  const path = /^[\w$[\]."'-]+(?=: )/.exec(text)?.[0];
  return path ? el("li", {}, el("bdi", {}, el("code", {}, path)), text.slice(path.length)) : el("li", {}, el("bdi", {}, text));
}

function clear() {
  $("graphs-outcome").className = "outcome";
  setText($("graphs-outcome"), "");
  $("import-problems").hidden = true;
}

function importAll(files) {
  if (!files.length) return;
  if (here().view !== "graphs") go(GRAPHS);
  if (files.length > 1) refuse(`${number.format(files.length)} files`, ["One file is one graph: import them one after the other."]);
  else importFile(files[0]);
}

/** A name that any file system accepts. */
export function fileName(graph) {
  const name = nameOf(graph).normalize("NFC").replace(/[^\p{L}\p{N} ._-]+/gu, "-").slice(0, MAX_NAME).replace(/[\ud800-\udbff]$/, "").replace(/^[ .-]+|[ .-]+$/g, "");
  return name && !RESERVED.test(name.split(".")[0]) ? name : `graph-${graph.id.slice(0, 8)}`;
}

/** Downloads a graph in one of the two forms. */
async function exportGraph(form, { current, sayOf }) {
  const graph = current();
  try {
    const response = await request(`graphs/${encodeURIComponent(graph.id)}?format=${form}`, { signal: AbortSignal.timeout(600_000) });
    const url = URL.createObjectURL(await response.blob());
    el("a", { href: url, download: `${fileName(graph)}${form === "original" ? ".original" : ""}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    sayOf(graph, shown(errorText(error), 400), "bad");
  }
}

/** `view` has the graph that is shown, and says things about it. */
export function start(view) {
  $("import").onclick = () => $("import-file").click();
  $("import-file").onchange = () => {
    importAll($("import-file").files);
    $("import-file").value = "";
  };
  $("close-problems").onclick = () => {
    clear();
    $("import").focus();
  };
  // Without this, the browser leaves the page and shows the file.
  const isFile = (event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    event.dataTransfer.dropEffect = isFile(event) ? "copy" : "none";
    document.body.classList.toggle("dropping", isFile(event));
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (isFile(event)) importAll([...event.dataTransfer.files]);
  });
  for (const form of ["ours", "original"]) $(`export-${form}`).onclick = () => exportGraph(form, view);
}
