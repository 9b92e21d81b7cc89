// A cell is one value that several parts of the page look at. Whoever uses it is drawn anew when it changes.

import { useEffect, useState } from "./vendor/htm-preact.js";

export function cell(value) {
  const readers = new Set();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const reader of [...readers]) reader(value);
    },
    watch(reader) {
      readers.add(reader);
      return () => readers.delete(reader);
    },
  };
}

export function useCell(source) {
  const [value, set] = useState(source.get());
  useEffect(() => {
    set(source.get());
    return source.watch(set);
  }, [source]);
  return value;
}

/** Whether anybody can see the page. Nothing is asked for what nobody sees. */
export const seen = cell(document.visibilityState !== "hidden");
document.addEventListener("visibilitychange", () => seen.set(document.visibilityState !== "hidden"));
