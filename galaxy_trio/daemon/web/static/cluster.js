// The card with the daemons that share a database. It is hidden while the daemon is the only one, which has no lease.

import { requestJson } from "./api.js";
import { $, ago, el, number, setText, shown, throttled } from "./dom.js";

const INTERVAL = 10_000;

export async function load() {
  const cluster = await requestJson("cluster");
  // The database's clock, by which leases are counted, not the browser's.
  const now = Date.parse(cluster.now);
  const living = cluster.daemons.filter((daemon) => daemon.died === null);
  $("cluster").hidden = living.every((daemon) => daemon.expires === null);
  $("daemon-rows").replaceChildren(...latestLives(cluster.daemons).map((daemon) => row(daemon, now)));
  setText($("unowned"), cluster.unowned ? `${number.format(cluster.unowned)} of ${number.format(cluster.devices)} devices have no owner at the moment.` : "");
}

/** After an event: several arrive together when a daemon comes or goes. */
export const loadSoon = throttled(() => load().catch(() => {}), 500);

/** The daemons without the earlier lives of those that were restarted. They are sorted: first the living, then the dead, the latest first. */
function latestLives(daemons) {
  const names = new Set();
  return daemons.filter((daemon) => {
    const isEarlier = daemon.died !== null && names.has(daemon.name);
    names.add(daemon.name);
    return !isEarlier;
  });
}

function row(daemon, now) {
  const [status, words, lease] = state(daemon, now);
  const count = (label, value) => {
    const cell = el("td", { className: "count" }, number.format(value));
    cell.dataset.label = label;
    return cell;
  };
  const about = [daemon.answers && "shows this page", daemon.url].filter(Boolean).join(" · ");
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, shown(daemon.name), el("small", {}, shown(about))),
    el("td", {}, el("span", { className: `state ${status}` }, words)),
    el("td", { className: "time" }, lease),
    count("devices", daemon.devices),
    count("running", daemon.running),
  );
}

/** The class, the name and the time of a daemon's state. */
function state(daemon, now) {
  if (daemon.died !== null) return ["gone", "gone", ago(daemon.died, now)];
  if (daemon.expires === null) return ["alive", "alive", "–"];
  const left = Math.round((Date.parse(daemon.expires) - now) / 1000);
  if (left < 0) return ["late", "late", `over ${ago(daemon.expires, now)}`];
  return [daemon.draining ? "late" : "alive", daemon.draining ? "draining" : "alive", `${number.format(left)} s left`];
}

export function start() {
  setInterval(() => {
    if (!document.hidden) load().catch(() => {});
  }, INTERVAL);
}
