// One dead letter: why it died, what is in it, and a new life for it, as it is or corrected.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { get, post, remove } from "./api.js";
import { Confirm, Dialog, Problem } from "./dialog.js";
import { explain } from "./explain.js";
import { bytes, clock, indented, shown } from "./format.js";
import { say } from "./notice.js";

export function Letter({ id, closed, changed }) {
  const [letter, setLetter] = useState(null);
  const [problem, setProblem] = useState(null);
  const [draft, setDraft] = useState(null);
  const [busy, setBusy] = useState(false);
  const [deleting, setDeleting] = useState(false);
  const path = `dead-letters/${encodeURIComponent(id)}`;
  useEffect(() => {
    get(path).then(setLetter, (error) => setProblem(error.message));
  }, []);

  const settle = async (act, done) => {
    await act();
    closed();
    say(done);
    changed();
  };
  const replay = async () => {
    if (busy) return;
    setBusy(true);
    setProblem(null);
    try {
      await settle(
        () => post(`${path}/replay`, draft === null ? undefined : { body: draft }),
        `dead letter ${id} replayed${draft === null ? "" : " with what you wrote"}`,
      );
    } catch (error) {
      setProblem(error.message);
      setBusy(false);
    }
  };
  if (deleting) {
    return html`<${Confirm} title="Delete this dead letter?" verb="Delete" dangerous home="letters" closed=${() => setDeleting(false)}
      act=${() => settle(() => remove(path), `dead letter ${id} deleted`)}>
      <p>The event is gone for good then: ${shown(letter.event_type ?? "no event")} <b class="mono wrap">${shown(letter.event_id ?? id)}</b>.</p>
    <//>`;
  }
  const editable = letter && textToEdit(letter) !== null;
  return html`<${Dialog} title=${letter ? `Dead letter: ${shown(letter.event_type ?? "no event")}` : "Dead letter"} closed=${closed} home="letters">
    <div class="body" aria-busy=${letter || problem ? "false" : "true"}>
      ${!letter && !problem && html`<p class="hint">Looking for it in the queue…</p>`}
      ${letter && html`<${About} letter=${letter} />`}
      ${letter && (draft === null ? html`<${Body} letter=${letter} />` : html`<${Editor} draft=${draft} setDraft=${(text) => { setDraft(text); setProblem(null); }} />`)}
      <${Problem} text=${problem} />
    </div>
    <footer>
      ${letter?.event_id && html`<button type="button" onClick=${() => { closed(); explain(letter.event_id); }}>Explain</button>`}
      <span class="gap"></span>
      ${letter && draft === null && html`<button type="button" class="danger" onClick=${() => setDeleting(true)}>Delete…</button>`}
      ${editable && draft === null && html`<button type="button" onClick=${() => setDraft(textToEdit(letter))}>Edit…</button>`}
      ${draft !== null && html`<button type="button" onClick=${() => { setDraft(null); setProblem(null); }}>Leave as it was</button>`}
      ${letter && html`<button type="button" class="primary" aria-disabled=${busy ? "true" : "false"} onClick=${replay}>${busy ? "Replaying…" : draft === null ? "Replay" : "Replay edited"}</button>`}
    </footer>
  <//>`;
}

function About({ letter }) {
  const facts = [
    ["Why", `${letter.code}: ${letter.reason}`],
    ["Given up", letter.given_up],
    ["Plugin", letter.plugin ?? "none: it is no event"],
    ["Attempts", `${letter.attempts} in round ${letter.round}`],
    ["Event ID", letter.event_id],
    ["Replaces", letter.replaces],
    ["First seen", letter.first_at && clock(letter.first_at)],
    ["Last tried", letter.last_at && clock(letter.last_at)],
    ["Came by", `exchange “${letter.exchange}”, routing key “${letter.routing_key}”`],
    ...(letter.history ?? []).map((round) => ["Earlier", round]),
    ...Object.entries(letter.headers ?? {}).map(([name, value]) => ["Header", `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`]),
  ].filter(([, value]) => value);
  return html`<dl class="facts wide">${facts.map(([name, value], at) => html`<div key=${at}><dt>${name}</dt><dd class="wrap">${shown(value)}</dd></div>`)}</dl>`;
}

function Body({ letter }) {
  const text = letter.body ?? letter.body_base64 ?? "";
  const form = letter.body === undefined || letter.body === null ? "in base64, for it is no text, " : "";
  return html`<h3 id="payload">Payload <span class="aside">${form}${bytes(letter.bytes)}</span></h3>
    <pre class="payload" tabindex="0" role="region" aria-labelledby="payload">${shown(indented(text))}</pre>`;
}

function Editor({ draft, setDraft }) {
  const area = useRef(null);
  useEffect(() => area.current.focus(), []);
  const problem = problemOf(draft);
  return html`<h3><label for="draft">Payload, to be edited</label></h3>
    <textarea id="draft" ref=${area} class="payload" spellcheck="false" autocapitalize="off" aria-describedby="draft-hint"
      aria-invalid=${problem ? "true" : "false"} value=${draft} onInput=${(event) => setDraft(event.target.value)}></textarea>
    <p id="draft-hint" class="hint">${problem ?? "It is JSON. It is replayed as a new event, with an id of its own, in place of this letter."}</p>`;
}

function problemOf(draft) {
  try {
    JSON.parse(draft);
    return null;
  } catch (error) {
    return `This is not JSON yet: ${error.message}`;
  }
}

/** What there is to edit: of an event in the structured form its data, else all of the body. Null if it is no text. */
function textToEdit(letter) {
  return letter.editable?.trimEnd() ?? null;
}
