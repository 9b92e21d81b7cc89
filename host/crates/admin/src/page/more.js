// A list that begins short, and can be had longer.

import { html } from "./vendor/htm-preact.js";
import { count } from "./format.js";

/** `most` of `all` are shown, `first` to begin with. */
export function More({ all, first, most, setMost, of }) {
  if (all <= first) return null;
  const long = most > first;
  return html`<button type="button" aria-expanded=${long ? "true" : "false"} onClick=${() => setMost(long ? first : Infinity)}>
    ${long ? `Fewer ${of}` : `More ${of} (${count(all)})`}
  </button>`;
}
