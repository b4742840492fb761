// Requests to the daemon's HTTP interface, with its token if it requires one.

import { $, setText } from "./dom.js";

const KEY = "galaxy-trio-token";
const TIMEOUT = 30_000;

/** The daemon refused a request; the message is the daemon's. */
export class Refused extends Error {
  constructor(status, message, problems) {
    super(message);
    this.status = status;
    /** All problems of a document, if the daemon has listed them. */
    this.problems = problems;
  }
}

let pendingToken = null;

/** Asks the user for a token. Concurrent requests share one dialog. */
function askForToken(problem) {
  pendingToken ??= new Promise((resolve) => {
    setText($("token-problem"), problem);
    $("token").value = "";
    const dialog = $("token-dialog");
    // Without a token the page can show nothing, so Escape does not close the dialog.
    dialog.oncancel = (event) => event.preventDefault();
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, $("token").value.trim());
      dialog.close();
      pendingToken = null;
      resolve();
    };
    dialog.showModal();
  });
  return pendingToken;
}

/**
 * Sends a request and returns its response. Asks for a token if one is required, and throws other errors.
 *
 * The body is `body` as JSON, or `text`, which is JSON already.
 */
export async function request(path, { method = "GET", body, text = body === undefined ? undefined : JSON.stringify(body), headers = {}, signal } = {}) {
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
          ...(text === undefined ? {} : { "Content-Type": "application/json" }),
        },
        body: text,
      });
    } catch (error) {
      // `fetch` throws a TypeError if the token has characters that a header must not have.
      if (!(error instanceof TypeError) || !token || /^[\x21-\x7e]+$/.test(token)) throw error;
      sessionStorage.removeItem(KEY);
      await askForToken("The token is wrong.");
      continue;
    }
    if (response.ok) return response;
    if (response.status === 401) {
      // A concurrent request may have asked for the token already.
      if (sessionStorage.getItem(KEY) === token) {
        sessionStorage.removeItem(KEY);
        await askForToken(token ? "The token is wrong." : "");
      }
      continue;
    }
    let answer = {};
    try {
      answer = await response.json();
    } catch {
      // The body is not JSON: the message shows the status.
    }
    throw new Refused(response.status, answer.error ?? `The daemon answered with status ${response.status}.`, answer.problems ?? null);
  }
}

/** Sends a request and returns the JSON of its response. */
export async function requestJson(path, options) {
  return (await request(path, options)).json();
}

/** An error as a sentence for the user. */
export function errorText(error) {
  const text = error instanceof Refused ? error.message : "The daemon does not respond: is it running?";
  return text.charAt(0).toUpperCase() + text.slice(1);
}
