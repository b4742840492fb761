// The daemon's HTTP interface, with the token if it wants one.

import { $, say } from "./dom.js";

const KEY = "galaxy-trio-token";
const TIMEOUT = 30_000;

/** What the daemon refused; the message is its own sentence. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let asking = null;

/** Asks for a token, once for all who need it at the same time. */
function askForToken(problem) {
  asking ??= new Promise((resolve) => {
    say($("token-problem"), problem);
    $("token").value = "";
    const dialog = $("token-dialog");
    // Without a token there is nothing to see: it is not left by Escape.
    dialog.oncancel = (event) => event.preventDefault();
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, $("token").value.trim());
      dialog.close();
      asking = null;
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}

/** A response that is no error. Asks for the token when that is what is missing. */
export async function request(path, { method = "GET", body, headers = {}, signal } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    let response;
    try {
      response = await fetch(path, {
        method,
        signal: signal ?? AbortSignal.timeout(TIMEOUT),
        headers: {
          ...headers,
          ...(token ? { Authorization: `Bearer ${token}` } : {}),
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      // A token that no header can carry is a wrong one.
      if (!(error instanceof TypeError) || !token || /^[\x21-\x7e]+$/.test(token)) throw error;
      sessionStorage.removeItem(KEY);
      await askForToken("The token is not right.");
      continue;
    }
    if (response.ok) return response;
    if (response.status === 401) {
      // It may have been given meanwhile, by who asked at the same time.
      if (sessionStorage.getItem(KEY) === token) {
        sessionStorage.removeItem(KEY);
        await askForToken(token ? "The token is not right." : "");
      }
      continue;
    }
    let message = `The daemon answered with status ${response.status}.`;
    try {
      message = (await response.json()).error ?? message;
    } catch {
      // It is no JSON: the status has to do.
    }
    throw new Refused(response.status, message);
  }
}

/** A JSON object. */
export async function ask(path, options) {
  return (await request(path, options)).json();
}

/** What went wrong, as a sentence for people. */
export function sentence(error) {
  const text = error instanceof Refused ? error.message : "The daemon does not answer: is it running?";
  return text.charAt(0).toUpperCase() + text.slice(1);
}
