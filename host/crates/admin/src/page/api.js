// The host's API: one way to ask, one way to follow a stream, and whether the host answers at all.

import { cell, seen } from "./cell.js";

const ROOT = "/api/v1/";
const TOKEN = "notify-admin-token";
const ANSWER_TIMEOUT_MILLIS = 30_000;
const RETRY_MILLIS = [500, 1_000, 2_000, 5_000, 10_000];
// The host says something at least every fifteen seconds.
const SILENCE_MAX_MILLIS = 45_000;
// Of one message of a stream: more than the host ever sends.
const MESSAGE_CHARACTERS_MAX = 4 << 20;

/** Since when nothing answers; null while something does. */
export const lostSince = cell(null);
/** Whether the host wants a token, and why: null, or a sentence. */
export const tokenWanted = cell(null);

/** What the host said instead of an answer, with its status; or, without one, why it said nothing. */
export class Failure extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/** What there is to say of a failure where nothing is shown for it. That the host is away is said once for all. */
export const told = (error) => (lostSince.get() ? null : error.message);

export function query(fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? "?" + new URLSearchParams(given) : "";
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);
export const remove = (path) => ask("DELETE", path);

async function ask(method, path, body) {
  const response = await reach(path, {
    method,
    headers: headers(method !== "GET", body),
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MILLIS),
  });
  try {
    return await response.json();
  } catch {
    throw new Failure("the host's answer was cut off, or is not JSON", response.status);
  }
}

/** Only a good answer comes back. */
async function reach(path, options) {
  let response;
  try {
    response = await fetch(ROOT + path, { ...options, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lostSince.set(lostSince.get() ?? new Date());
    throw new Failure(error.name === "TimeoutError" ? "the host did not answer in time" : "the host cannot be reached");
  }
  lostSince.set(null);
  if (response.ok) return response;
  const sentence = await sentenceOf(response);
  if (response.status === 401) tokenWanted.set(sentence);
  throw new Failure(sentence, response.status);
}

async function sentenceOf(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string" && error) return error;
  } catch {
    // It is said below.
  }
  return `the host answered ${response.status}${response.statusText ? " " + response.statusText : ""}`;
}

function headers(changes, body) {
  const token = sessionStorage.getItem(TOKEN);
  return {
    ...(token && { Authorization: `Bearer ${token}` }),
    ...(changes && { "X-Notify-Request": "1" }),
    ...(body !== undefined && { "Content-Type": "application/json" }),
  };
}

export function giveToken(token) {
  sessionStorage.setItem(TOKEN, token);
  tokenWanted.set(null);
  wake();
}

let sleepers = new Set();

/** Those that wait before they try again need not wait any longer. */
export function wake() {
  const awake = sleepers;
  sleepers = new Set();
  for (const sleeper of awake) sleeper();
}

seen.watch(wake);

function rest(milliseconds, signal) {
  return new Promise((resolve) => {
    sleepers.add(resolve);
    signal?.addEventListener("abort", resolve, { once: true });
    setTimeout(resolve, milliseconds);
  });
}

/**
 * Loads again and again until it is stopped, at these intervals, while somebody looks.
 * `again()` loads at once.
 */
export function poll(load, milliseconds) {
  const ended = new AbortController();
  (async () => {
    while (!ended.signal.aborted) {
      if (seen.get() && !tokenWanted.get()) await load();
      await rest(milliseconds, ended.signal);
    }
  })();
  return () => ended.abort();
}

/**
 * Follows a stream of server-sent events until it is stopped. A lost stream is opened again; `opened` is
 * called each time, before anything of it comes; `message` is
 * called with the JSON and the name of each event. `EventSource` would do, but it cannot carry a token.
 *
 * A page that nobody sees holds no stream: a browser opens only six connections to one host.
 */
export function follow(path, { opened, message, failed }) {
  const ended = new AbortController();
  (async () => {
    let failures = 0;
    while (!ended.signal.aborted) {
      if (!seen.get() || tokenWanted.get()) {
        await rest(60_000, ended.signal);
        continue;
      }
      try {
        await readStream(path, ended.signal, () => { failures = 0; opened?.(); }, message);
      } catch (error) {
        if (ended.signal.aborted) return;
        if (error.name !== "AbortError") failed?.(error);
      }
      await rest(seen.get() ? RETRY_MILLIS[Math.min(failures++, RETRY_MILLIS.length - 1)] : 0, ended.signal);
    }
  })();
  return () => ended.abort();
}

async function readStream(path, ended, opened, message) {
  const quit = new AbortController();
  const stop = () => quit.abort();
  ended.addEventListener("abort", stop, { once: true });
  const unwatch = seen.watch(stop);
  let silence;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(stop, SILENCE_MAX_MILLIS);
  };
  try {
    heard();
    const response = await reach(path, { headers: headers(false), signal: quit.signal });
    opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (error.name !== "AbortError") lostSince.set(lostSince.get() ?? new Date());
        throw error;
      }
      if (piece.done) return;
      heard();
      const blocks = (rest + piece.value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      if (rest.length > MESSAGE_CHARACTERS_MAX) throw new Failure("the host's stream has no end of a message");
      for (const block of blocks) {
        const said = messageOf(block);
        if (said) message(said.data, said.name);
      }
    }
  } finally {
    clearTimeout(silence);
    unwatch();
    ended.removeEventListener("abort", stop);
    quit.abort();
  }
}

/** One server-sent event: its name, and the JSON that it carries. Null for a comment. */
function messageOf(block) {
  const fields = block.split("\n").map((line) => /^(event|data):\s?(.*)$/.exec(line)).filter(Boolean);
  const of = (name) => fields.filter((field) => field[1] === name).map((field) => field[2]).join("\n");
  try {
    return of("data") ? { name: of("event"), data: JSON.parse(of("data")) } : null;
  } catch {
    return null;
  }
}
