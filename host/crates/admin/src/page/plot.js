// A plot of the last minutes, one line for each series, with the values at the pointer or of now beside it.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";

const HEIGHT = 150;
const MINUTES = 5;
const dark = matchMedia("(prefers-color-scheme: dark)");

/**
 * `series`: `{ key, name, colour, dash, fill }`, of which `colour` and `fill` name variables of the style sheet.
 * `least` is what the scale reaches at least: next to nothing is not drawn as if it were much.
 */
export function Plot({ label, series, samples, format, least }) {
  const frame = useRef(null);
  const plot = useRef(null);
  const [isDark, setDark] = useState(dark.matches);
  const [at, setAt] = useState(null);

  useEffect(() => {
    const change = (event) => setDark(event.matches);
    dark.addEventListener("change", change);
    return () => dark.removeEventListener("change", change);
  }, []);

  useLayoutEffect(() => {
    const made = new uPlot(options(frame.current, { series, format, least }, setAt), columns(series, samples), frame.current);
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: frame.current.clientWidth, height: HEIGHT }));
    resized.observe(frame.current);
    return () => {
      resized.disconnect();
      made.destroy();
    };
  }, [isDark]);

  useLayoutEffect(() => plot.current?.setData(columns(series, samples)), [samples]);

  const sample = samples[at ?? samples.length - 1] ?? samples[samples.length - 1];
  const value = (line) => (sample ? format(sample[line.key]) : "–");
  const said = `${label}, the last ${MINUTES} minutes. Now: ${series.map((line) => `${line.name} ${value(line)}`).join(", ")}.`;
  return html`<div class="plot">
    <ul class="legend" aria-hidden="true">
      ${series.map((line) => html`<li key=${line.key}>
        <i class=${`key ${line.colour.slice(2)} ${line.dash ? "dashed" : ""}`}></i>${line.name} <b>${value(line)}</b>
      </li>`)}
    </ul>
    <div ref=${frame} class="canvas" role="img" aria-label=${said}></div>
  </div>`;
}

function columns(series, samples) {
  const lines = [samples.map((sample) => Date.parse(sample.at) / 1000)];
  return lines.concat(series.map((line) => samples.map((sample) => sample[line.key] ?? null)));
}

function options(frame, { series, format, least }, pointed) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const font = `11px ${style.fontFamily}`;
  const axis = { stroke: colour("--muted"), font, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const hour = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 5);
  return {
    width: frame.clientWidth,
    height: HEIGHT,
    padding: [8, 4, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { range: (_, __, last) => [last - MINUTES * 60, last] },
      y: { range: (_, __, most) => [0, Math.max(most ?? 0, least) * 1.1] },
    },
    axes: [
      { ...axis, size: 24, space: 48, incrs: [60, 120, 300], values: (_, splits) => splits.map(hour) },
      { ...axis, size: 58, space: 34, values: (_, splits) => splits.map((split) => format(split)) },
    ],
    series: [
      {},
      ...series.map((line) => ({
        stroke: colour(line.colour),
        fill: line.fill && colour(line.fill),
        dash: line.dash,
        width: 1.5,
        points: { show: false },
      })),
    ],
    hooks: { setCursor: [(made) => pointed(made.cursor.idx ?? null)] },
  };
}
