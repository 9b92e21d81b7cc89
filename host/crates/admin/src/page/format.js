// How values are written. All text from outside goes through `shown`, and reaches the page as text only.

// What would change how the text around it is read: controls, and marks of the direction of writing.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

export function shown(text) {
  return String(text ?? "").replace(UNSEEN, (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0"));
}

const whole = new Intl.NumberFormat("en");
export const count = (number) => whole.format(number ?? 0);
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Short, for a column: 1,234 and 12.3k and 4.56M. */
export function brief(number) {
  if (number < 10_000) return count(number);
  return number < 1_000_000 ? `${(number / 1e3).toFixed(1)}k` : `${(number / 1e6).toFixed(2)}M`;
}

export function micros(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1_000) return `${Math.round(value)} µs`;
  if (value < 10_000) return `${(value / 1e3).toFixed(1)} ms`;
  if (value < 1_000_000) return `${Math.round(value / 1e3)} ms`;
  return `${(value / 1e6).toFixed(1)} s`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86_400) return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3_600)} h`;
}

export function bytes(number) {
  if (number < 1_024) return counted(number, "byte");
  return number < 1 << 20 ? `${(number / 1_024).toFixed(1)} KiB` : `${(number / (1 << 20)).toFixed(1)} MiB`;
}

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const isToday = (date) => date.toDateString() === new Date().toDateString();

/** Local time of day; with the day before it, if that is another. */
export function clock(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return shown(at);
  return isToday(date) ? time.format(date) : `${day.format(date)} ${time.format(date)}`;
}

export function preciseClock(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return shown(at);
  return `${clock(at)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export function ago(at) {
  const seconds = (Date.now() - new Date(at).getTime()) / 1000;
  return Number.isNaN(seconds) ? "–" : `${span(seconds)} ago`;
}

/** JSON with line breaks, otherwise as it is: a number keeps its digits. What is no JSON stays all as it is. */
export function indented(text) {
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  const pieces = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  let out = "";
  let depth = 0;
  const line = () => "\n" + "  ".repeat(depth);
  pieces.forEach((piece, at) => {
    if (piece === "{" || piece === "[") {
      depth++;
      out += piece + (closes(pieces[at + 1]) ? "" : line());
    } else if (closes(piece)) {
      depth--;
      out += (pieces[at - 1] === "{" || pieces[at - 1] === "[" ? "" : line()) + piece;
    } else if (piece === ",") {
      out += piece + line();
    } else {
      out += piece === ":" ? ": " : piece;
    }
  });
  return out;
}

const closes = (piece) => piece === "}" || piece === "]";
