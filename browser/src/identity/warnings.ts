/**
 * What the package says when something has no effect: once per place, bounded in number, never a value.
 *
 * A server that makes the same mistake on every request must not fill a log, and nothing that goes wrong while warning
 * may reach the application. Every occurrence is counted, also where the log stays silent.
 */

/** How many places are remembered; beyond it new places are only counted. */
const MAX_PLACES = 1_000;
/** How many places may speak up within a minute; the others are counted and speak up at their next occasion. */
const MAX_PER_MINUTE = 30;
/** Characters of a span or service name that a message shows. */
const MAX_SHOWN_NAME = 100;
const MAX_KEPT_PLACE = 300;

/** Gets each message. */
export type WarningHandler = (message: string) => void;

class Said {
  readonly places = new Set<string>();
  readonly counts = new Map<string, number>();
  windowStarted = 0;
  inWindow = 0;
  heldBack = 0;
}

let said = new Said();
let handler: WarningHandler | undefined;

/**
 * Sends the warnings of this package to a logger of the application, instead of to `console.warn`.
 *
 * @param to Gets each message; `undefined` restores `console.warn`. What it throws is ignored.
 */
export function onWarning(to: WarningHandler | undefined): void {
  handler = to;
}

/**
 * Counts an occurrence of `topic` and says it, if this place has not spoken yet. Never throws.
 *
 * @param topic A short fixed name under which occurrences are counted: `id_refused`, `override_ignored`, ...
 * @param place What tells one place from another, besides the topic: a span's name, mostly.
 * @param message What had no effect, and what to do instead. Names in it went through `shown()`; values of end users
 *   never appear.
 */
export function warnOnce(topic: string, place: string, message: string): void {
  try {
    const heldBack = maySpeak(topic, place);
    if (heldBack === undefined) return;
    const more = heldBack ? ` (${heldBack} other warnings were held back to keep this log short.)` : "";
    if (handler !== undefined) handler(message + more);
    else console.warn(`neatlogs-otel: ${message}${more}`);
  } catch {
    // A handler that throws is no reason to fail.
  }
}

/** How often each topic occurred in this process. */
export function counts(): Record<string, number> {
  return Object.fromEntries(said.counts);
}

/** Forgets everything that was said and counted; for tests. */
export function reset(): void {
  said = new Said();
}

/** A span or service name as a message shows it: quoted, escaped, cut to 100 characters. */
export function shown(name: unknown): string {
  const characters = [...(typeof name === "string" ? name.slice(0, 2 * MAX_SHOWN_NAME + 2) : `<${typeof name}>`)];
  const cut = characters.length > MAX_SHOWN_NAME;
  const text = JSON.stringify(characters.slice(0, MAX_SHOWN_NAME).join(""));
  const printable = text.replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return cut ? `${printable}...` : printable;
}

/** `undefined`: stay silent. Otherwise speak, and say how many places had to stay silent since. */
function maySpeak(topic: string, place: string): number | undefined {
  said.counts.set(topic, (said.counts.get(topic) ?? 0) + 1);
  // A place may hold a span's name, which has no bound.
  const key = `${topic} ${place.length > MAX_KEPT_PLACE ? `${place.slice(0, MAX_KEPT_PLACE)} ${place.length}` : place}`;
  if (said.places.has(key) || said.places.size >= MAX_PLACES) return undefined;
  const now = performance.now();
  if (now - said.windowStarted >= 60_000 || said.inWindow === 0) {
    said.windowStarted = now;
    said.inWindow = 0;
  }
  if (said.inWindow >= MAX_PER_MINUTE) {
    said.heldBack += 1;
    return undefined;
  }
  said.inWindow += 1;
  said.places.add(key);
  const heldBack = said.heldBack;
  said.heldBack = 0;
  return heldBack;
}
