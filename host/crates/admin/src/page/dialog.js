// A dialog over the page. The browser keeps the focus in it, and closes it with Escape.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { shown } from "./format.js";

let dialogs = 0;

/** `home` is the id of what gets the focus if what opened the dialog is not there any more. */
export function Dialog({ title, closed, home, kind, children }) {
  const element = useRef(null);
  const [id] = useState(() => `dialog-${++dialogs}`);
  useLayoutEffect(() => {
    const dialog = element.current;
    const opener = document.activeElement;
    dialog.showModal();
    return () => {
      dialog.close();
      if (opener?.isConnected && opener !== document.body) opener.focus();
      else document.getElementById(home)?.focus();
    };
  }, []);
  // One that was closed by the browser itself, by Escape for example.
  useEffect(() => {
    const dialog = element.current;
    const cancel = (event) => {
      event.preventDefault();
      closed();
    };
    dialog.addEventListener("cancel", cancel);
    dialog.addEventListener("close", closed);
    return () => {
      dialog.removeEventListener("cancel", cancel);
      dialog.removeEventListener("close", closed);
    };
  }, [closed]);
  return html`<dialog ref=${element} class=${kind ?? ""} aria-labelledby=${id}>
    <header>
      <h2 id=${id} tabindex="-1" autofocus=${kind !== "small"}>${title}</h2>
      <button type="button" class="quiet" aria-label="Close" onClick=${closed}>✕</button>
    </header>
    ${children}
  </dialog>`;
}

/** Asks before something is done that cannot be undone. `act` is a promise; what it throws is shown. */
export function Confirm({ title, children, verb, dangerous, act, closed, home }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const go = async () => {
    if (busy) return;
    setBusy(true);
    setProblem(null);
    try {
      await act();
    } catch (error) {
      setProblem(error.message);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${title} closed=${closed} home=${home} kind="small">
    <div class="body">${children}<${Problem} text=${problem} /></div>
    <footer>
      <button type="button" autofocus onClick=${closed}>Cancel</button>
      <button type="button" class=${dangerous ? "danger" : "primary"} aria-disabled=${busy ? "true" : "false"} onClick=${go}>${busy ? "Working…" : verb}</button>
    </footer>
  <//>`;
}

/** Says what went wrong, where it went wrong. */
export function Problem({ text }) {
  return html`<div role="alert">${text && html`<p class="problem">${shown(text)}</p>`}</div>`;
}
