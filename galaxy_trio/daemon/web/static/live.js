// Reads the daemon's events. After a disconnect it resumes, and reloads everything if events were missed.

import { request } from "./api.js";

const SILENCE_TIMEOUT = 40_000;
const RETRY_DELAYS = [500, 1000, 2000, 5000];

/**
 * Reads events for as long as the page is open.
 *
 * `onStatus("live" | "away")` is called when the connection is made or lost, `onReload()` when everything has to be loaded again,
 * `onEvent(kind, data)` with each event.
 */
export async function listen({ onStatus, onReload, onEvent }) {
  let lastId = null;
  for (let failures = 0; ; ) {
    const abort = new AbortController();
    let silence = null;
    const onData = () => {
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE_TIMEOUT);
    };
    try {
      onData();
      const headers = lastId === null ? {} : { "Last-Event-ID": lastId };
      const response = await request("events", { headers, signal: abort.signal });
      // Loaded after the stream has begun, so that no change in between is missed.
      if (lastId === null) await onReload();
      failures = 0;
      onStatus("live");
      for await (const event of events(response.body, onData)) {
        lastId = event.id ?? lastId;
        if (event.kind === "reset") await onReload();
        else onEvent(event.kind, JSON.parse(event.data));
      }
    } catch {
      abort.abort();
    } finally {
      clearTimeout(silence);
    }
    onStatus("away");
    await new Promise((resolve) => setTimeout(resolve, RETRY_DELAYS[Math.min(failures++, RETRY_DELAYS.length - 1)]));
  }
}

async function* events(body, onData) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onData();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { id: null, kind: "message", data: "" };
      for (const line of block.split("\n")) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("event: ")) event.kind = line.slice(7);
        else if (line.startsWith("data: ")) event.data = line.slice(6);
      }
      if (event.data) yield event;
    }
  }
}
