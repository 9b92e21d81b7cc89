// The page: what is where. It only knows the API, like any other of its clients.

import { html, render } from "./vendor/htm-preact.js";
import { lostSince, tokenWanted } from "./api.js";
import { useCell } from "./cell.js";
import { Events } from "./events.js";
import { Ask, Explanation } from "./explain.js";
import { count } from "./format.js";
import { Banners, Header, useHost } from "./host.js";
import { Letters, letterCount } from "./letters.js";
import { Notice } from "./notice.js";
import { Plugins } from "./plugins.js";
import { Stats } from "./stats.js";
import { Token } from "./token.js";

function App() {
  useHost();
  const lost = useCell(lostSince);
  const locked = useCell(tokenWanted);
  const letters = useCell(letterCount);
  return html`
    <a class="skip" href="#content" onClick=${skip}>Skip to the content</a>
    <${Header} />
    ${locked ? html`<${Token} />` : html`
      <nav class="bar" aria-label="Sections">
        <ul>
          <li><a href="#plugins" onClick=${jump}>Plugins</a></li>
          <li><a href="#events" onClick=${jump}>Events</a></li>
          <li><a href="#letters" onClick=${jump}>Dead letters${letters > 0 && html` <span class="state bad">${count(letters)}</span>`}</a></li>
        </ul>
        <${Ask} />
      </nav>
      <main id="content" tabindex="-1" class=${lost ? "stale" : ""}>
        <${Banners} />
        <${Stats} />
        <${Plugins} />
        <${Events} />
        <${Letters} />
      </main>
      <${Explanation} />`}
    <${Notice} />`;
}

/** To a section, without the address: that is for what is explained. */
function jump(event) {
  event.preventDefault();
  const heading = document.querySelector(event.currentTarget.getAttribute("href"));
  heading?.scrollIntoView({ block: "start" });
  heading?.focus({ preventScroll: true });
}

function skip(event) {
  event.preventDefault();
  document.getElementById("content").focus();
}

render(html`<${App} />`, document.body);
