// What became of one event, or of all about one order: the answer for who asks at night.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, query } from "./api.js";
import { cell, useCell } from "./cell.js";
import { Dialog, Problem } from "./dialog.js";
import { clock, preciseClock, shown } from "./format.js";
import { sentencesOf, standingOf, toneOf } from "./record.js";

const HASH = "#explain=";

/** What is asked about; null while nothing is. It is in the address, so that it can be handed on. */
export const asked = cell(null);

export function explain(id) {
  history.replaceState(null, "", HASH + encodeURIComponent(id));
  asked.set(id);
}

function forget() {
  history.replaceState(null, "", location.pathname);
  asked.set(null);
}

function readAddress() {
  if (!location.hash.startsWith(HASH)) return;
  try {
    asked.set(decodeURIComponent(location.hash.slice(HASH.length)) || null);
  } catch {
    asked.set(null);
  }
}
readAddress();
addEventListener("hashchange", readAddress);

/** Where one asks. */
export function Ask() {
  const submit = (event) => {
    event.preventDefault();
    const text = new FormData(event.target).get("id").trim();
    if (text) explain(text);
  };
  return html`<form class="ask" role="search" onSubmit=${submit}>
    <label for="ask">What happened to</label>
    <input id="ask" name="id" type="search" placeholder="event ID, or an order’s" autocomplete="off" spellcheck="false" required />
    <button>Explain</button>
  </form>`;
}

export function Explanation() {
  const id = useCell(asked);
  return id === null ? null : html`<${Answer} key=${id} id=${id} />`;
}

function Answer({ id }) {
  const [events, setEvents] = useState(null);
  const [problem, setProblem] = useState(null);
  const [loads, setLoads] = useState(0);
  useEffect(() => {
    let left = false;
    find(id).then(
      (found) => left || (setEvents(found), setProblem(null)),
      (error) => left || setProblem(error.message),
    );
    return () => { left = true; };
  }, [id, loads]);
  return html`<${Dialog} title=${`What happened to ${shown(id)}`} closed=${forget} home="events">
    <div class="body" tabindex="0" aria-busy=${events || problem ? "false" : "true"}>
      <${Problem} text=${problem} />
      ${!events && !problem && html`<p class="hint">Looking through the journal…</p>`}
      ${events?.map((event) => html`<${OneEvent} key=${event.source + event.id} event=${event} />`)}
    </div>
    <footer>
      <button type="button" onClick=${() => setLoads(loads + 1)}>Look again</button>
      <button type="button" class="primary" onClick=${forget}>Close</button>
    </footer>
  <//>`;
}

/** By the event's id; if there is no such event, by the subject of several. */
async function find(id) {
  try {
    const { events } = await get("explain" + query({ id }));
    if (events.length) return events;
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  const { events } = await get("explain" + query({ subject: id }));
  if (!events.length) throw new Error("this host's journal knows nothing of it: another host may have handled it, it may wait in the queue still, or be older than the journal");
  return events;
}

function OneEvent({ event }) {
  const standings = Object.entries(event.plugins);
  return html`<article class="timeline">
    <h3>${shown(event.type)}</h3>
    <dl class="facts">
      <div><dt>Event ID</dt><dd class="mono wrap">${shown(event.id)}</dd></div>
      ${event.subject && html`<div><dt>Subject</dt><dd class="mono wrap">${shown(event.subject)}</dd></div>`}
      <div><dt>Source</dt><dd class="mono wrap">${shown(event.source)}</dd></div>
    </dl>
    ${standings.length > 0 && html`<h4>How it stands</h4>
    <ul class="standings">${standings.map(([plugin, standing]) => html`<li key=${plugin}>
      <b class="wrap">${shown(plugin)}</b> <span class=${`state ${toneOf(standing.state)}`}>${shown(standing.state)}</span>
      <span>${standingOf(standing)}</span>
    </li>`)}</ul>`}
    <h4>What happened</h4>
    ${!event.received_here && html`<p class="hint">How it came is not in this journal: another host received it, or it was long ago.</p>`}
    <ol>${event.records.map((record, at) => html`<${Step} key=${at} record=${record} />`)}</ol>
  </article>`;
}

function Step({ record }) {
  const { text, below, log } = sentencesOf(record);
  const tone = toneOf(record.outcome ?? record.what);
  return html`<li class=${tone}>
    <time datetime=${record.at} title=${clock(record.at)}>${preciseClock(record.at)}</time>
    <div>
      <p class="wrap">${text}</p>
      ${below.length > 0 && html`<ul>${below.map((line) => html`<li key=${line} class="wrap">${line}</li>`)}</ul>`}
      ${log?.length > 0 && html`<ul class="log" aria-label="What the plugin logged">${log.map((line, at) => html`<li key=${at} class="wrap"><span class="level">${shown(line.level)}</span> ${shown(line.message)}</li>`)}</ul>`}
    </div>
  </li>`;
}
