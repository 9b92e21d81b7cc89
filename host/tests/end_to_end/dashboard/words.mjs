// How the page writes values, without a browser.

import assert from "node:assert/strict";

import { ago, brief, bytes, counted, indented, micros, shown, span } from "../../../crates/admin/src/page/format.js";
import { outcomeOf, remarkOf, sentencesOf, standingOf } from "../../../crates/admin/src/page/record.js";

// JSON keeps its digits and its order; what is none stays as it is.
for (const [text, expected] of [
  ['{"n":1.00000000000000000001,"a":[],"b":{},"c":[1,{"d":"x:{,}\\""}]}', '{\n  "n": 1.00000000000000000001,\n  "a": [],\n  "b": {},\n  "c": [\n    1,\n    {\n      "d": "x:{,}\\""\n    }\n  ]\n}'],
  ['  12345678901234567890 ', "12345678901234567890"],
  ['"é\\u0000 "', '"é\\u0000 "'],
  ["{", "{"],
  ["", ""],
  ["<b>", "<b>"],
]) assert.equal(indented(text), expected);

// Nothing that would change how the text around it is read.
assert.equal(shown("a\u202eb\u0007c\u009bd\te\nf"), "a\\u202eb\\u0007c\\u009bd\te\nf");
assert.equal(shown("👩‍👩‍👧 déjà"), "👩‍👩‍👧 déjà");
assert.equal(shown(null), "");

for (const [written, expected] of [
  [micros(null), "–"], [micros(0), "0 µs"], [micros(999), "999 µs"], [micros(1_500), "1.5 ms"], [micros(48_000), "48 ms"], [micros(2_500_000), "2.5 s"],
  [span(null), "–"], [span(-3), "0 s"], [span(59), "59 s"], [span(61), "1 min"], [span(3_700), "1 h 1 min"], [span(90_000), "1 d 1 h"],
  [brief(9_999), "9,999"], [brief(12_345), "12.3k"], [brief(4_560_000), "4.56M"],
  [bytes(1), "1 byte"], [bytes(1_536), "1.5 KiB"], [counted(1, "letter"), "1 letter"], [counted(0, "letter"), "0 letters"],
  [ago("nonsense"), "–"],
]) assert.equal(written, expected);

const attempted = { what: "attempted", plugin: "mail", attempt: 2, max_attempts: 8, round: 2, microseconds: 1_500, outcome: "reject", code: "bounced", reason: "no such mailbox", next_at: null, given_up: "rejected", log: [] };
assert.equal(outcomeOf(attempted), "dead-letter");
assert.equal(outcomeOf({ ...attempted, given_up: null }), "reject");
assert.equal(outcomeOf({ what: "received" }), "unmatched");
assert.equal(remarkOf(attempted), "attempt 2 of 8 · bounced · no such mailbox");
assert.equal(sentencesOf(attempted).text, "mail: attempt 2 of 8 after replay 1, 1.5 ms: reject: no such mailbox; dead-lettered (rejected)");
const received = { what: "received", exchange: "orders", routing_key: "a", redelivered: true, bytes: 3, routed: [{ plugin: "vip", gets: false, rule: "data.total > 100 is false" }], not_subscribed: 1 };
assert.deepEqual(sentencesOf(received), {
  text: "Received again from exchange “orders” with routing key “a”, 3 bytes",
  below: ["vip: does not get it, data.total > 100 is false", "1 plugin not subscribed to it", "no plugin wanted it, so it is settled"],
});
for (const state of ["done", "skipped", "waits", "elsewhere", "queued", "held", "dead-letter", "unsettled", "filtered", "begun"]) {
  const written = standingOf({ state, attempts: 1, why: "w", at: "2026-01-01T00:00:00Z", due_at: "2026-01-01T00:00:00Z" });
  assert.ok(written && !written.includes("undefined") && written !== state, written);
}
