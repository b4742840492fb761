// The daemon's events, as they happen. When they break off they are taken up again, and all is read anew if something was missed.

import { request } from "./api.js";

const SILENCE = 40_000;
const WAITS = [500, 1000, 2000, 5000];

/**
 * Listens for as long as the page is open.
 *
 * `onStatus("live" | "away")` is told whether what is shown is what is so; `onFresh()` loads all anew; `onEvent(kind, data)` gets each event.
 */
export async function listen({ onStatus, onFresh, onEvent }) {
  let lastId = null;
  for (let failures = 0; ; ) {
    const abort = new AbortController();
    let silence = null;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE);
    };
    try {
      heard();
      const headers = lastId === null ? {} : { "Last-Event-ID": lastId };
      const response = await request("events", { headers, signal: abort.signal });
      // What happens from here on is told; what was before is read now.
      if (lastId === null) await onFresh();
      failures = 0;
      onStatus("live");
      for await (const event of events(response.body, heard)) {
        lastId = event.id ?? lastId;
        if (event.kind === "reset") await onFresh();
        else onEvent(event.kind, JSON.parse(event.data));
      }
    } catch {
      abort.abort();
    } finally {
      clearTimeout(silence);
    }
    onStatus("away");
    await new Promise((resolve) => setTimeout(resolve, WAITS[Math.min(failures++, WAITS.length - 1)]));
  }
}

async function* events(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
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
