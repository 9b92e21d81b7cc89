// What the host does at the moment, a sample for each second.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { follow, get, told } from "./api.js";
import { cell } from "./cell.js";
import { brief, count, micros } from "./format.js";
import { Plot } from "./plot.js";

const SAMPLES_MAX = 300;

const THROUGHPUT = [
  { key: "received", name: "received", colour: "--series-received", fill: "--series-ground" },
  { key: "done", name: "done", colour: "--series-done", dash: [6, 3] },
  { key: "failed", name: "failed", colour: "--series-failed" },
  { key: "dead", name: "dead-lettered", colour: "--series-dead" },
];
const LATENCY = [
  { key: "p50_micros", name: "p50", colour: "--series-half", fill: "--series-ground" },
  { key: "p99_micros", name: "p99", colour: "--series-most" },
];
const perSecond = (value) => (value === null || value === undefined ? "–" : brief(Math.round(value)));

/** Counts the dead letters that have come since the page was opened, so that their list knows when to look. */
export const deadSeen = cell(0);

export function Stats() {
  const [samples, setSamples] = useState([]);
  const [problem, setProblem] = useState(null);
  useEffect(() => follow("stats/stream", {
    async opened() {
      try {
        const answer = await get("stats");
        setSamples((now) => merged(answer.samples, now));
        setProblem(null);
      } catch (error) {
        setProblem(told(error));
      }
    },
    message(sample) {
      setSamples((now) => merged(now, [sample]));
      setProblem(null);
      if (sample.dead > 0) deadSeen.set(deadSeen.get() + sample.dead);
    },
    failed: (error) => setProblem(told(error)),
  }), []);
  const last = samples[samples.length - 1];
  return html`<section aria-labelledby="now">
    <h2 id="now" class="unseen">Now</h2>
    ${problem && html`<p class="problem">There are no figures: ${problem}.</p>`}
    <div class="plots">
      <div class="panel">
        <div class="title"><h3>Events per second</h3><span class="figure">${last ? count(Math.round(last.received)) : "–"}</span></div>
        <${Plot} label="Events per second" series=${THROUGHPUT} samples=${samples} format=${perSecond} least=${10} />
      </div>
      <div class="panel">
        <div class="title"><h3>Time to settle</h3><span class="aside">${last ? `${count(last.in_flight)} in flight` : ""}</span><span class="figure">${micros(last?.p50_micros)}</span></div>
        <${Plot} label="Time to settle" series=${LATENCY} samples=${samples} format=${micros} least=${1_000} />
      </div>
    </div>
  </section>`;
}

/** In the order of time, each second once. */
function merged(some, more) {
  const known = new Set(some.map((sample) => sample.at));
  const all = [...some, ...more.filter((sample) => !known.has(sample.at))];
  all.sort((one, other) => (one.at < other.at ? -1 : 1));
  return all.slice(-SAMPLES_MAX);
}
