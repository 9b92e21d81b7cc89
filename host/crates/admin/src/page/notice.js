// The notice says what has just been done, to eyes and to screen readers: the page's one live region for that.

import { html, useEffect } from "./vendor/htm-preact.js";
import { cell, useCell } from "./cell.js";
import { shown } from "./format.js";

const SHOWN_MILLIS = 12_000;
const notice = cell(null);

export const say = (text) => notice.set({ text });
export const complain = (text) => notice.set({ text, failed: true });

export function Notice() {
  const now = useCell(notice);
  useEffect(() => {
    // What failed stays until it is put away: nobody should miss it for having looked elsewhere.
    if (!now || now.failed) return undefined;
    const timer = setTimeout(() => notice.set(null), SHOWN_MILLIS);
    return () => clearTimeout(timer);
  }, [now]);
  return html`<div class="notices">
    <div role="status" aria-live="polite">${now && html`<p key=${now} class=${now.failed ? "notice bad" : "notice"}>${shown(now.text)}</p>`}</div>
    ${now && html`<button class="quiet" aria-label="Put the notice away" onClick=${() => notice.set(null)}>✕</button>`}
  </div>`;
}
