// The dead letters: which there are, and what is to become of them.
//
// To list them the host looks through their queue, which is work: it is asked when somebody asks, or when it has said
// that more have died, and then not often.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { get, lostSince, post, query, told } from "./api.js";
import { cell, seen, useCell } from "./cell.js";
import { Confirm } from "./dialog.js";
import { ago, clock, count, counted, shown } from "./format.js";
import { Letter } from "./letter.js";
import { More } from "./more.js";
import { complain, say } from "./notice.js";
import { usePluginNames } from "./plugins.js";
import { deadSeen } from "./stats.js";

const LISTED_MAX = 200;
const SHOWN_FIRST = 25;
const INTERVAL_MILLIS = 5_000;
/** The queue of many letters is looked through for at most this part of the time. */
const SHARE = 20;
const TYPING_MILLIS = 300;
const COLUMNS = ["Died", "Event", "Event ID", "Plugin", "Why", "Attempts"];

/** How many there are, whatever is looked for; null while that is not known. */
export const letterCount = cell(null);

export function Letters() {
  const [plugin, setPlugin] = useState("");
  const [reason, setReason] = useState("");
  const { list, problem, busy, look } = useLetters(plugin, reason.trim());
  const [open, setOpen] = useState(null);
  const [asking, setAsking] = useState(null);
  const [most, setMost] = useState(SHOWN_FIRST);
  const names = usePluginNames();
  const filter = filterOf(plugin, reason.trim());
  const total = list?.total ?? 0;
  const change = async (act, done) => {
    const answer = await post(`dead-letters/${act}`, filter ?? { all: true });
    setAsking(null);
    const { count: settled, stayed } = answer;
    if (stayed.length === 0) say(`${counted(settled, "dead letter")} ${done}`);
    else complain(`${counted(stayed.length, "dead letter")} could not be ${done}: ${stayed[0].reason} (${counted(settled, "other")} ${done})`);
    look();
  };
  const which = filter
    ? `${counted(total, "dead letter")} that match${total === 1 ? "es" : ""} the filter`
    : total === 1 ? "the only dead letter" : `all ${counted(total, "dead letter")}`;
  return html`<section class="panel" aria-labelledby="letters" id="letters-section">
    <div class="title">
      <h2 id="letters" tabindex="-1">Dead letters</h2>
      ${list && html`<span class=${total > 0 ? "state bad" : "aside"}>${count(total)}${filter ? " match" : ""}</span>`}
      <div class="end buttons">
        <button type="button" aria-disabled=${busy ? "true" : "false"} onClick=${look}>${busy ? "Looking…" : "Look again"}</button>
        ${total > 0 && html`<button type="button" onClick=${() => setAsking("replay")}>Replay ${filter ? "these" : "all"}…</button>
        <button type="button" class="danger" onClick=${() => setAsking("purge")}>Purge ${filter ? "these" : "all"}…</button>`}
      </div>
    </div>
    <div class="filters">
      <label>Plugin <select name="plugin" value=${plugin} onChange=${(event) => setPlugin(event.target.value)}>
        <option value="">all</option>${withNamed(names, list, plugin).map((name) => html`<option key=${name} value=${name}>${shown(name)}</option>`)}
      </select></label>
      <label class="grow">Reason <input name="reason" type="search" value=${reason} placeholder="in the code or the reason" autocomplete="off" spellcheck="false" onInput=${(event) => setReason(event.target.value)} /></label>
    </div>
    ${problem && html`<p class="problem">The dead letters cannot be listed: ${shown(problem)}.</p>`}
    ${!list && !problem && html`<p class="empty">Looking through the queue…</p>`}
    ${list && total === 0 && html`<p class="empty">${filter ? "No dead letter matches the filter." : "There are no dead letters: nothing was given up."}</p>`}
    ${list && list.letters.length > 0 && html`<table class="letters" role="table" aria-labelledby="letters">
      <thead role="rowgroup"><tr role="row">${COLUMNS.map((name) => html`<th key=${name} role="columnheader" scope="col">${name}</th>`)}</tr></thead>
      <tbody role="rowgroup">${list.letters.slice(0, most).map((letter) => html`<${Row} key=${letter.id} letter=${letter} open=${() => setOpen(letter.id)} />`)}</tbody>
    </table>`}
    ${list && total > Math.min(most, list.letters.length) && html`<p class="hint more">
      <${More} all=${list.letters.length} first=${SHOWN_FIRST} most=${most} setMost=${setMost} of="dead letters" />
      <span>${count(Math.min(most, list.letters.length))} of ${count(total)} are shown. What is done to ${filter ? "these" : "all"} is done to every one.</span>
    </p>`}
    ${open && html`<${Letter} key=${open} id=${open} closed=${() => setOpen(null)} changed=${look} />`}
    ${asking === "replay" && html`<${Confirm} title=${`Replay ${which}?`} verb=${`Replay ${count(total)}`} home="letters" closed=${() => setAsking(null)} act=${() => change("replay", "replayed")}>
      <${Which} plugin=${plugin} reason=${reason.trim()} />
      <p>Each goes to its plugin again, and to that plugin alone, with new attempts.</p>
    <//>`}
    ${asking === "purge" && html`<${Confirm} title=${`Purge ${which}?`} verb=${`Purge ${count(total)}`} dangerous home="letters" closed=${() => setAsking(null)} act=${() => change("purge", "purged")}>
      <${Which} plugin=${plugin} reason=${reason.trim()} />
      <p>They are deleted for good: no plugin gets these events any more, and nothing brings them back.</p>
    <//>`}
  </section>`;
}

function Which({ plugin, reason }) {
  return html`<p>${plugin || reason ? "Only those" : "Those"} ${plugin ? html`of plugin <b class="wrap">${shown(plugin)}</b>` : "of every plugin"}${reason && html`, with <b class="wrap">${shown(reason)}</b> in their code or reason`}, and also those that have died since you looked.</p>`;
}

/** As the API wants it; null for all. */
function filterOf(plugin, reason) {
  return plugin || reason ? { ...(plugin && { plugin }), ...(reason && { reason }) } : null;
}

/** The letters of a plugin outlive it. */
function withNamed(names, list, chosen) {
  const named = (list?.letters ?? []).map((letter) => letter.plugin);
  return [...new Set([...names, ...named, chosen])].filter(Boolean).sort();
}

function Row({ letter, open }) {
  const why = [letter.code, letter.reason].filter(Boolean).map(shown).join(": ");
  return html`<tr role="row" class="opens" onClick=${() => getSelection().isCollapsed && open()}>
    <td role="cell" class="number left" data-label="Died" title=${letter.last_at ? clock(letter.last_at) : ""}>${letter.last_at ? ago(letter.last_at) : "–"}</td>
    <td role="cell" data-label="Event"><button type="button" class="link" aria-label=${`Open the dead letter of ${shown(letter.event_type ?? "what is no event")} ${shown(letter.event_id ?? letter.id)}`}
      onClick=${(click) => { click.stopPropagation(); open(); }}>${shown(letter.event_type ?? "no event")}</button></td>
    <td role="cell" class="mono cut" data-label="Event ID" title=${shown(letter.event_id ?? letter.id)}>${shown(letter.event_id ?? letter.id)}</td>
    <td role="cell" class="cut" data-label="Plugin">${shown(letter.plugin ?? "–")}</td>
    <td role="cell" class="cut remark" data-label="Why" title=${why}>${why}</td>
    <td role="cell" class="number" data-label="Attempts">${letter.attempts}${letter.round > 1 && html`<span class="below">round ${letter.round}</span>`}</td>
  </tr>`;
}

function useLetters(plugin, reason) {
  const [list, setList] = useState(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const dead = useCell(deadSeen);
  const lost = useCell(lostSince);
  const isSeen = useCell(seen);
  const looks = useRef({ number: 0, ended: 0, took: 0, dead: 0 });

  const look = async () => {
    const number = ++looks.current.number;
    const began = Date.now();
    looks.current.dead = deadSeen.get();
    setBusy(true);
    try {
      const answer = await get("dead-letters" + query({ plugin, reason, limit: LISTED_MAX }));
      if (number !== looks.current.number) return;
      setList(answer);
      setProblem(null);
      if (!plugin && !reason) letterCount.set(answer.total);
    } catch (error) {
      if (number !== looks.current.number) return;
      setProblem(told(error));
    }
    looks.current.ended = Date.now();
    looks.current.took = looks.current.ended - began;
    setBusy(false);
  };

  useEffect(() => {
    if (lost || !isSeen) return undefined;
    const timer = setTimeout(look, list ? TYPING_MILLIS : 0);
    return () => clearTimeout(timer);
  }, [plugin, reason, lost, isSeen]);

  // More have died: soon there is something to see.
  useEffect(() => {
    const { ended, took } = looks.current;
    if (dead === looks.current.dead) return undefined;
    const soon = Math.max(ended + Math.max(INTERVAL_MILLIS, took * SHARE) - Date.now(), 500);
    const timer = setTimeout(() => isSeen && look(), soon);
    return () => clearTimeout(timer);
  }, [dead, list, isSeen]);

  return { list, problem, busy, look };
}
