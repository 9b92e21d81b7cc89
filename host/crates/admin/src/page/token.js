// The question for the token, where the host wants one.

import { html, useRef } from "./vendor/htm-preact.js";
import { giveToken, tokenWanted } from "./api.js";
import { useCell } from "./cell.js";
import { shown } from "./format.js";

export function Token() {
  const why = useCell(tokenWanted);
  const input = useRef(null);
  if (!why) return null;
  const submit = (event) => {
    event.preventDefault();
    const token = input.current.value.trim();
    if (token) giveToken(token);
  };
  return html`<main class="alone" id="content">
    <form class="panel token" onSubmit=${submit}>
      <h2>This host wants a token</h2>
      <p role="alert">${shown(why)}</p>
      <label for="token">Token</label>
      <input id="token" ref=${input} type="password" autocomplete="current-password" spellcheck="false" required autofocus />
      <p class="hint">It is what is in the host's admin-token-file. This tab keeps it until it is closed.</p>
      <button class="primary">Open</button>
    </form>
  </main>`;
}
