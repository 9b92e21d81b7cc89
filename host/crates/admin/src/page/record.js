// A record of the journal in words, as `notify-host events` and `notify-host explain` have it.

import { bytes, clock, counted, micros, shown } from "./format.js";

/** What may be asked for, as the API calls it. */
export const OUTCOMES = [
  "done", "skipped", "retry", "reject", "misconfigured", "dead-letter", "unmatched", "duplicate", "undecodable",
  "quarantined",
];

/** In one word. */
export function outcomeOf(record) {
  if (record.what === "attempted") return record.given_up ? "dead-letter" : record.outcome;
  return { received: "unmatched" }[record.what] ?? record.what;
}

export function toneOf(outcome) {
  switch (outcome) {
    case "done": return "good";
    case "retry": case "misconfigured": case "waits": case "held": case "unsettled": case "queued": return "warn";
    case "reject": case "dead-letter": case "undecodable": case "quarantined": case "inexpressible": return "bad";
    default: return "idle";
  }
}

/** What there is to say beyond the outcome. */
export function remarkOf(record) {
  switch (record.what) {
    case "attempted": {
      const number = record.attempt > 1 || record.outcome !== "done" ? `attempt ${record.attempt} of ${record.max_attempts}` : "";
      const code = record.code && record.code !== record.outcome ? record.code : "";
      return [number, code, record.reason].filter(Boolean).map(shown).join(" · ");
    }
    case "received": return "no plugin wanted it";
    case "duplicate": return "came again, and was not delivered a second time";
    case "undecodable": return `no event: ${shown(record.reason)}`;
    case "declined": return `did not want it: ${shown(record.why)}`;
    case "quarantined": case "inexpressible": return shown(record.reason);
    default: return "";
  }
}

/** For a timeline, with the lines that belong below it. */
export function sentencesOf(record) {
  switch (record.what) {
    case "received": return {
      text: `Received${record.redelivered ? " again" : ""} from exchange “${shown(record.exchange)}” with routing key “${shown(record.routing_key)}”, ${bytes(record.bytes)}`,
      below: [
        ...record.routed.map(({ plugin, gets, rule }) => `${shown(plugin)}: ${routed(gets, rule)}`),
        ...(record.not_subscribed ? [`${counted(record.not_subscribed, "plugin")} not subscribed to it`] : []),
        ...(record.routed.some(({ gets }) => gets !== false) ? [] : ["no plugin wanted it, so it is settled"]),
      ],
    };
    case "duplicate": return { text: "Came again within the duplicates window: not delivered a second time", below: [] };
    case "spilled": return { text: `${shown(record.plugin)}: waits in its queue, ${shown(record.why)}`, below: [] };
    case "declined": return { text: `${shown(record.plugin)}: does not get it, now that it has loaded: ${shown(record.why)}`, below: [] };
    case "undecodable": return {
      text: `Received from exchange “${shown(record.exchange)}” with routing key “${shown(record.routing_key)}”, ${bytes(record.bytes)}, and dead-lettered as it came, for it is no event (${shown(record.code)}): ${shown(record.reason)}`,
      below: [],
    };
    case "quarantined": case "inexpressible": return {
      text: `Received from exchange “${shown(record.exchange)}” with routing key “${shown(record.routing_key)}”, ${bytes(record.bytes)}, and dead-lettered (${shown(record.code)}): ${shown(record.reason)}`,
      below: [],
    };
    case "attempted": return { text: attempt(record), below: [], log: record.log };
    default: return { text: shown(record.what), below: [] };
  }
}

/** `gets` is null where nobody knows yet. */
function routed(gets, rule) {
  if (gets === null) return "not yet routed, for it has not been loaded";
  return `${gets ? "matched" : "does not get it"}, ${rule ? shown(rule) : gets ? "it gets every event" : "for it tells of its own health"}`;
}

function attempt(record) {
  const replay = record.round > 1 ? ` after replay ${record.round - 1}` : "";
  const reason = record.reason ? `: ${shown(record.reason)}` : "";
  const next = record.given_up
    ? `; dead-lettered (${shown(record.given_up)})`
    : record.next_at ? `; next not before ${clock(record.next_at)}` : "";
  return `${shown(record.plugin)}: attempt ${record.attempt} of ${record.max_attempts}${replay}, ${micros(record.microseconds)}: ${shown(record.outcome)}${reason}${next}`;
}

/** How an event stands with one plugin. */
export function standingOf(standing) {
  const at = standing.at && clock(standing.at);
  const due = standing.due_at && clock(standing.due_at);
  switch (standing.state) {
    case "done": return `done at ${at}, after ${counted(standing.attempts, "attempt")}`;
    case "skipped": return `skipped it at ${at}, after ${counted(standing.attempts, "attempt")}`;
    case "waits": return `waits for its next attempt, at ${due} or soon after`;
    case "elsewhere": return `its next attempt was due at ${due}, and this journal has none: another host made it, or it still waits in its queue`;
    case "queued": return `waits in its queue since ${at}, or another host has taken it`;
    case "held": return `waits since ${at} until the plugin goes on`;
    case "dead-letter": return `a dead letter since ${at} (${shown(standing.why)}), unless it was replayed`;
    case "unsettled": return `comes again: the broker was lost at ${at} before the outcome was settled`;
    case "filtered": return "does not get it";
    case "begun": return `its attempt began at ${at} and has not ended; if the host died, it is made anew`;
    default: return shown(standing.state);
  }
}
