// The address of what the page shows is the fragment of its URL, so that the history, a reload and a shared link show the same again.
// A fragment is not sent to the daemon, and works behind a proxy with any prefix. It never has the token.

let onRoute = () => {};

export const OVERVIEW = "#/";
export const GRAPHS = "#/graphs";
export const taskPath = (id) => `#/tasks/${encodeURIComponent(id)}`;
export const graphPath = (id) => `#/graphs/${encodeURIComponent(id)}`;
export const listPath = (id) => `${graphPath(id)}/list`;

/** What a fragment shows: a `view`, the `id` of a task or a graph, and for a graph whether it `isList`. */
export function parse(fragment) {
  const route = { view: "unknown", path: fragment || OVERVIEW };
  let parts;
  try {
    parts = fragment.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  } catch {
    return route;
  }
  const [kind, id, part, ...more] = parts;
  if (more.length || id === "") return route;
  if (kind === "" && id === undefined) return { ...route, view: "overview" };
  if (kind === "tasks" && id !== undefined && part === undefined) return { ...route, view: "task", id };
  if (kind === "graphs" && id === undefined) return { ...route, view: "graphs" };
  if (kind === "graphs" && (part === undefined || part === "list")) return { ...route, view: "graph", id, isList: part === "list" };
  return route;
}

export const here = () => parse(location.hash);

/** Shows another address. The history knows how many tasks are above a view, because closing their dialog goes back to the view. */
export function go(path) {
  if (path === location.hash) return;
  const isAboveTask = here().view === "task";
  const above = parse(path).view !== "task" ? 0 : !isAboveTask ? 1 : history.state?.above ? history.state.above + 1 : 0;
  history.pushState({ above }, "", path);
  onRoute(here());
}

/** Goes back from a task to the view beneath it; to `path` if the task was opened by a link from elsewhere. */
export function leaveTask(path) {
  if (history.state?.above) history.go(-history.state.above);
  else {
    history.replaceState(null, "", path);
    onRoute(here());
  }
}

/** The title of the document names what is shown. */
export function setTitle(...names) {
  document.title = [...names, "galaxy_trio"].join(" · ");
}

/** Calls `show(route)` now, and with each change of the address. */
export function start(show) {
  onRoute = show;
  addEventListener("popstate", () => show(here()));
  addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#/']");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
  show(here());
}
