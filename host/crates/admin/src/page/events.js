// What becomes of events, as it happens: the newest on top.
//
// The list holds still while somebody is in it, by pointer or keyboard: what one wants to open must not move away.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { follow, get, query, told } from "./api.js";
import { useCell } from "./cell.js";
import { asked, explain } from "./explain.js";
import { count, micros, preciseClock, shown } from "./format.js";
import { More } from "./more.js";
import { usePluginNames } from "./plugins.js";
import { OUTCOMES, outcomeOf, remarkOf, toneOf } from "./record.js";

const KEPT_MAX = 2_000;
const SHOWN_FIRST = 25;
const SHOWN_MAX = 200;
const DRAW_MILLIS = 300;
const COLUMNS = ["Time", "Event", "About", "Plugin", "Outcome", "Took", "Remark"];

export function Events() {
  const [plugin, setPlugin] = useState("");
  const [outcome, setOutcome] = useState("");
  const [text, setText] = useState("");
  const [paused, setPaused] = useState(false);
  const [entered, setWithin] = useState(false);
  // Who looks at one comes back to it.
  const within = useCell(asked) !== null || entered;
  const [most, setMost] = useState(SHOWN_FIRST);
  const { events, waiting, leftOut, problem } = useFeed(plugin, outcome, paused || within);
  const names = usePluginNames();
  const wanted = text.trim().toLowerCase();
  const matching = wanted ? events.filter((event) => textOf(event).includes(wanted)) : events;
  const found = matching.slice(0, Math.min(most, SHOWN_MAX));
  return html`<section class="panel" aria-labelledby="events" id="events-section">
    <div class="title">
      <h2 id="events" tabindex="-1">Events</h2>
      <span class="aside feed-state">${paused ? "paused" : within ? "held while you are in it" : "live"}${waiting > 0 && (paused || within) ? ` · ${count(waiting)} new` : ""}${leftOut > 0 ? ` · ${count(leftOut)} more came too fast to be shown` : ""}</span>
      <button class="end" type="button" aria-pressed=${paused ? "true" : "false"} onClick=${() => setPaused(!paused)}>${paused ? "Go on" : "Pause feed"}</button>
    </div>
    <div class="filters">
      <label>Plugin <select name="plugin" value=${plugin} onChange=${(event) => setPlugin(event.target.value)}>
        <option value="">all</option>${names.map((name) => html`<option key=${name} value=${name}>${shown(name)}</option>`)}
      </select></label>
      <label>Outcome <select name="outcome" value=${outcome} onChange=${(event) => setOutcome(event.target.value)}>
        <option value="">all</option>${OUTCOMES.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select></label>
      <label class="grow">Text <input name="text" type="search" value=${text} placeholder="in type, ID, subject, reason" autocomplete="off" spellcheck="false" onInput=${(event) => setText(event.target.value)} /></label>
    </div>
    ${problem && html`<p class="problem">The events cannot be read: ${shown(problem)}.</p>`}
    <div onMouseEnter=${() => setWithin(true)} onMouseLeave=${() => setWithin(false)}
      onfocusin=${() => setWithin(true)} onfocusout=${(event) => event.currentTarget.contains(event.relatedTarget) || setWithin(false)}>
      ${found.length === 0 && !problem && html`<${Nothing} text=${wanted} typed=${text.trim()} filtered=${plugin || outcome} />`}
      ${found.length > 0 && html`<table class="events" role="table" aria-labelledby="events">
        <thead role="rowgroup"><tr role="row">${COLUMNS.map((name) => html`<th key=${name} role="columnheader" scope="col">${name}</th>`)}</tr></thead>
        <tbody role="rowgroup">${found.map((event) => html`<${Row} key=${event.key} event=${event} />`)}</tbody>
      </table>`}
      ${(matching.length > SHOWN_FIRST) && html`<p class="more"><${More} all=${Math.min(matching.length, SHOWN_MAX)} first=${SHOWN_FIRST} most=${most} setMost=${setMost} of="events" /></p>`}
    </div>
  </section>`;
}

function Nothing({ text, typed, filtered }) {
  if (text) {
    return html`<div class="empty"><p>No recent event has “${shown(typed)}” in it.</p>
      <p><button type="button" onClick=${() => explain(typed)}>Look for it in the journal</button></p></div>`;
  }
  return html`<div class="empty"><p>${filtered ? "Nothing of that kind has happened yet." : "No event has come yet."}</p>
    ${!filtered && html`<p>Publish one: <code>order-cli demo</code></p>`}</div>`;
}

function Row({ event }) {
  const outcome = outcomeOf(event);
  // The button does it for the keyboard; with a pointer all of the row does.
  const open = () => getSelection().isCollapsed && explain(event.id);
  return html`<tr role="row" class=${`opens ${toneOf(outcome)}`} onClick=${open}>
    <td role="cell" class="number left" data-label="Time"><time datetime=${event.at}>${preciseClock(event.at)}</time></td>
    <td role="cell" data-label="Event"><button type="button" class="link" aria-label=${`Explain ${shown(event.type)} ${shown(event.id)}`}
      onClick=${(click) => { click.stopPropagation(); explain(event.id); }}>${shown(event.type) || "no event"}</button></td>
    <td role="cell" class="mono cut" data-label="About" title=${shown(event.subject ?? event.id)}>${shown(event.subject ?? event.id)}</td>
    <td role="cell" class="cut" data-label="Plugin">${shown(event.plugin ?? "–")}</td>
    <td role="cell" data-label="Outcome"><span class=${`state ${toneOf(outcome)}`}>${outcome}</span></td>
    <td role="cell" class="number" data-label="Took">${event.microseconds === undefined ? "–" : micros(event.microseconds)}</td>
    <td role="cell" class="cut remark" data-label="Remark" title=${remarkOf(event)}>${remarkOf(event)}</td>
  </tr>`;
}

const textOf = (event) => event.text ??= [event.type, event.id, event.subject, event.plugin, event.code, event.reason, event.source]
  .filter(Boolean).join("\n").toLowerCase();

/** The events of this kind, drawn a few times a second, however many come. While it is held they only wait. */
function useFeed(plugin, outcome, held) {
  const [events, setEvents] = useState([]);
  const [waiting, setWaiting] = useState(0);
  const [problem, setProblem] = useState(null);
  const [leftOut, setLeftOut] = useState(0);
  const missed = useRef(0);
  const arrived = useRef([]);
  const holds = useRef(held);
  holds.current = held;

  useEffect(() => {
    setEvents([]);
    setWaiting(0);
    setLeftOut(0);
    arrived.current = [];
    missed.current = 0;
    let left = false;
    const kind = query({ plugin, outcome });
    const unfollow = follow(`events/stream${kind}`, {
      async opened() {
        try {
          const answer = await get("events" + query({ plugin, outcome, limit: SHOWN_MAX }));
          if (left) return;
          arrived.current = merged(arrived.current, answer.events.map(named));
          setProblem(null);
        } catch (error) {
          if (!left) setProblem(told(error));
        }
      },
      message(event, name) {
        if (left) return;
        // More came at once than anybody could read.
        if (name === "gap") {
          missed.current += event.left_out;
          return;
        }
        arrived.current.unshift(named(event));
        if (arrived.current.length > 2 * KEPT_MAX) arrived.current.length = KEPT_MAX;
      },
      failed: (error) => left || setProblem(told(error)),
    });
    const timer = setInterval(() => {
      if (holds.current) {
        setWaiting(arrived.current.length);
      } else if (arrived.current.length) {
        const more = arrived.current;
        arrived.current = [];
        setWaiting(0);
        setLeftOut(missed.current);
        setEvents((now) => merged(more, now).slice(0, KEPT_MAX));
      }
    }, DRAW_MILLIS);
    return () => {
      left = true;
      unfollow();
      clearInterval(timer);
    };
  }, [plugin, outcome]);
  return { events, waiting, leftOut, problem };
}

/** With what tells it from all others. */
function named(event) {
  event.key = [event.at, event.id, event.source, event.what, event.plugin, event.round, event.attempt].join(" ");
  return event;
}

/** The newest first, each once. */
function merged(some, more) {
  const known = new Set();
  const all = [...some, ...more].filter((event) => !known.has(event.key) && known.add(event.key));
  return all.sort((one, other) => (one.at > other.at ? -1 : one.at < other.at ? 1 : 0));
}
