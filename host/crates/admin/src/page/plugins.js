// The plugins: how each stands, what it may do, what waits for it, and what can be done about it.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, poll, post, told, wake } from "./api.js";
import { cell, useCell } from "./cell.js";
import { brief, clock, count, counted, micros, shown, span } from "./format.js";
import { host } from "./host.js";
import { complain, say } from "./notice.js";

const INTERVAL_MILLIS = 2_000;
const COLUMNS = ["Plugin", "State", "Waiting", "Done", "Failed", "Dead", "Call time", "Actions"];

/** How they stood when they were asked last; null before that. */
export const plugins = cell(null);

export const usePluginNames = () => (useCell(plugins) ?? []).map((plugin) => plugin.name);

export function Plugins() {
  const all = useCell(plugins);
  const [problem, setProblem] = useState(null);
  useEffect(() => poll(async () => {
    try {
      plugins.set((await get("plugins")).plugins);
      setProblem(null);
    } catch (error) {
      setProblem(told(error));
    }
  }, INTERVAL_MILLIS), []);
  const unwell = (all ?? []).filter((plugin) => tone(plugin.state) === "bad").length;
  return html`<section class="panel" aria-labelledby="plugins" id="plugins-section">
    <div class="title">
      <h2 id="plugins" tabindex="-1">Plugins</h2>
      ${all && html`<span class="aside">${count(all.length)}</span>`}
      ${unwell > 0 && html`<span class="state bad">${counted(unwell, "plugin")} in trouble</span>`}
    </div>
    ${problem && html`<p class="problem">The plugins cannot be listed: ${problem}.</p>`}
    ${!all && !problem && html`<p class="empty">Asking the host…</p>`}
    ${all?.length === 0 && html`<${NoPlugin} />`}
    ${all?.length > 0 && html`<table class="plugins" role="table" aria-labelledby="plugins">
      <thead role="rowgroup"><tr role="row">${COLUMNS.map((name) => html`<th key=${name} role="columnheader" scope="col">${name}</th>`)}</tr></thead>
      <tbody role="rowgroup">${all.map((plugin) => html`<${Row} key=${plugin.name} plugin=${plugin} />`)}</tbody>
    </table>`}
  </section>`;
}

function NoPlugin() {
  const folder = useCell(host)?.plugins_folder;
  return html`<div class="empty">
    <p><strong>There is no plugin yet.</strong></p>
    <p>Drop <code>NAME.wasm</code> into <code class="wrap">${folder ? shown(folder) : "the plugin folder"}</code>: it gets the next event. What it
      may do beyond logging you grant in <code>NAME.toml</code> beside it.</p>
  </div>`;
}

function tone(state) {
  switch (state) {
    case "running": return "good";
    case "paused": case "quiet": case "rate-limited": case "waiting": return "warn";
    case "failing": case "misconfigured": case "broken": case "not-loaded": return "bad";
    default: return "idle";
  }
}

function Row({ plugin }) {
  const { counts, queue } = plugin;
  const failed = counts.retry + counts.reject + counts.misconfigured;
  return html`<tr role="row" class=${tone(plugin.state)} data-plugin=${plugin.name}>
    <th role="rowheader" scope="row">
      <div class="plugin-name"><b class="wrap">${shown(plugin.name)}</b> ${plugin.version && html`<span class="aside">${shown(plugin.version)}</span>`}</div>
      ${plugin.description && html`<p class="hint wrap">${shown(plugin.description)}</p>`}
      ${plugin.sha256 && html`<${Grants} grants=${plugin.grants} />`}
      <${Trouble} plugin=${plugin} />
    </th>
    <td role="cell" data-label="State"><span class=${`state ${tone(plugin.state)}`}>${shown(plugin.state)}</span></td>
    <td role="cell" data-label="Waiting" class="number"><b class="queue">${queue.messages === null ? "–" : brief(queue.messages)}</b>
      ${queue.messages > 0 && queue.oldest_age_seconds !== null && html`<span class="below">oldest ${span(queue.oldest_age_seconds)}</span>`}</td>
    <td role="cell" data-label="Done" class="number" title=${`${count(counts.done)} done, ${count(counts.skipped)} skipped`}>${brief(counts.done)}
      ${counts.skipped > 0 && html`<span class="below">${brief(counts.skipped)} skipped</span>`}</td>
    <td role="cell" data-label="Failed" class="number" title=${`${count(counts.retry)} retry, ${count(counts.reject)} reject, ${count(counts.misconfigured)} misconfigured`}>${brief(failed)}
      ${counts.spilled > 0 && html`<span class="below">${brief(counts.spilled)} spilled</span>`}</td>
    <td role="cell" data-label="Dead" class=${`number ${counts.dead > 0 ? "bad" : ""}`}>${brief(counts.dead)}</td>
    <td role="cell" data-label="Call time" class="number">${micros(plugin.p50_micros)}
      ${plugin.p99_micros !== null && html`<span class="below">99 % ${micros(plugin.p99_micros)}</span>`}</td>
    <td role="cell" class="actions"><${Actions} plugin=${plugin} /></td>
  </tr>`;
}

/** What the operator allows it. Of a secret the name. */
function Grants({ grants }) {
  const kinds = [["http", "HTTP to"], ["mail", "mail to"], ["networks", "network"], ["secrets", "secret"]];
  const all = kinds.flatMap(([kind, words]) => grants[kind].map((scope) => [words, scope]));
  return html`<ul class="grants" aria-label="Grants">
    ${all.length === 0 && html`<li class="none">may log only</li>`}
    ${all.map(([words, scope]) => html`<li key=${words + scope}>${words} <b class="wrap">${shown(scope)}</b></li>`)}
  </ul>`;
}

function Trouble({ plugin }) {
  const waits = plugin.waits_for && `${shown(plugin.waits_for)}${plugin.waits_until ? `, until ${clock(plugin.waits_until)}` : ""}`;
  return html`
    ${plugin.problem && html`<p class="trouble bad wrap"><b>${problemOf(plugin)}: </b>${shown(plugin.problem)}${plugin.tried_again_at && `. Tried again at ${clock(plugin.tried_again_at)}`}</p>`}
    ${plugin.last_failure && html`<p class=${`trouble wrap ${tone(plugin.state)}`}><b>Last failure: </b>${shown(plugin.last_failure)}</p>`}
    ${waits && html`<p class="trouble wrap">${waits}</p>`}`;
}

/** What a problem with its files means for its events. */
function problemOf({ state, version }) {
  if (state === "not-loaded") return "This machine could not load it, and its events wait in its queue";
  return version ? "What is in the folder does not load, the version before it goes on" : "Does not load";
}

function Actions({ plugin }) {
  const [busy, setBusy] = useState(false);
  const { name, state } = plugin;
  const tell = async (act) => {
    if (busy) return;
    setBusy(true);
    try {
      const { done } = await post(`plugins/${encodeURIComponent(name)}/${act}`);
      say(done);
    } catch (error) {
      complain(`${name}: ${error.message}`);
    }
    setBusy(false);
    wake();
  };
  const button = (act, words) => html`<button type="button" aria-disabled=${busy ? "true" : "false"} onClick=${() => tell(act)}>${words}<span class="unseen"> ${shown(name)}</span></button>`;
  const runs = !["disabled", "broken", "loading"].includes(state);
  // Pause and resume are one button, in one place, which so keeps the focus.
  return html`
    ${["failing", "misconfigured"].includes(state) && button("resume", "Try again")}
    ${state === "paused" ? button("resume", "Resume") : runs && button("pause", "Pause")}
    ${button("reload", "Reload")}`;
}
