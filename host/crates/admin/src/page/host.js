// The host itself: whether it is ready and why not, what it is connected to.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, lostSince, poll, tokenWanted, wake } from "./api.js";
import { cell, useCell } from "./cell.js";
import { clock, shown, span } from "./format.js";

const INTERVAL_MILLIS = 3_000;

/** What it said of itself last. */
export const host = cell(null);

export function useHost() {
  useEffect(() => poll(async () => {
    try {
      host.set(await get("host"));
    } catch {
      // The banner, or the question for the token, says it.
    }
  }, INTERVAL_MILLIS), []);
}

export function Header() {
  const now = useCell(host);
  const lost = useCell(lostSince);
  const locked = useCell(tokenWanted);
  const word = lost ? "unreachable" : locked ? "locked" : !now ? "connecting" : now.ready ? "ready" : "not ready";
  useEffect(() => {
    document.title = word === "ready" ? "notify-host" : `${word} · notify-host`;
  }, [word]);
  return html`<header class="top">
    <div class="name">
      <h1>notify-host</h1>
      <span class=${`state ${tone(word)}`}>${word}</span>
      ${now && html`<span class="aside">${shown(now.version)}</span>`}
    </div>
    ${now && html`<${Facts} host=${now} />`}
  </header>`;
}

const tone = (word) => ({ ready: "good", connecting: "idle", locked: "warn" })[word] ?? "bad";

function Facts({ host }) {
  const { broker, source } = host;
  return html`<dl class="facts">
    <div><dt>Broker</dt><dd class="wrap"><span class=${broker.connected ? "dot good" : "dot bad"}></span>${shown(broker.url)}
      <span class="aside"> ${broker.connected ? "connected" : "away"}${broker.since ? ` since ${clock(broker.since)}` : ""}</span></dd></div>
    <div><dt>Source</dt><dd class="wrap">${shown(source.exchange)} → ${shown(source.queue)}</dd></div>
    <div><dt>Up</dt><dd title=${shown(host.started_at)}>${span((Date.now() - Date.parse(host.started_at)) / 1000)}</dd></div>
    <div><dt>Process</dt><dd>${host.process}</dd></div>
  </dl>`;
}

/** What keeps it from working, where nobody can overlook it. */
export function Banners() {
  const now = useCell(host);
  const lost = useCell(lostSince);
  const reasons = !lost && now && !now.ready ? now.reasons : [];
  return html`<div class="banners">
    <div role="alert">${lost && html`<div class="banner bad">
      <p><strong>The host does not answer</strong> since ${clock(lost)}. What you see is from before that; it is tried again every few seconds.</p>
      <button onClick=${wake}>Try now</button>
    </div>`}</div>
    <div role="status">${reasons.length > 0 && html`<div class="banner warn">
      <p><strong>Not ready.</strong></p>
      <ul>${reasons.map((reason) => html`<li key=${reason}>${shown(reason)}</li>`)}</ul>
    </div>`}</div>
  </div>`;
}
