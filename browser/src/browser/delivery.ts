/**
 * From finished traces to accepted requests.
 *
 * One request is in flight at a time; what comes meanwhile shares the next one, so a page that is busy sends few
 * requests and a page that is not sends at once. A request that fits outlives the page from the start (`keepalive`).
 * When the page goes, what does not is taken back and sent again as far as there is room; span ids stay the same, so
 * a store counts it once.
 */

import { type Outcome, readAnswer, unreachable } from "./answers.js";
import { NeatlogsError } from "./errors.js";
import { keepaliveRoom, takeKeepaliveRoom } from "./keepalive.js";

/** What became of a trace. The names are those of the answer to `POST /v1/trace`. */
export interface TrackResult {
  /** Whether the processor has all of it. */
  ok: boolean;
  trace_id?: string;
  /** How many spans the processor has. */
  spans?: number;
  /** Why it has not, or not all. */
  error?: string;
}

/** One trace, its spans as JSON text, the root first. */
export interface Finished {
  traceId: string;
  spans: readonly string[];
}

/** Times in milliseconds. */
export interface Pace {
  /** Before the second try; each further one waits twice as long, up to `longestPause`. */
  firstPause: number;
  longestPause: number;
  /** For an answer. */
  timeout: number;
}

interface Parcel extends Finished {
  bytes: number;
  tries: number;
  /** Whether it goes in a request of its own, because one with others was refused. */
  alone: boolean;
  settle(result: TrackResult): void;
}

interface Flight {
  parcels: Parcel[];
  keepalive: boolean;
  controller: AbortController;
  /** Whether its parcels were taken back: then its outcome is nobody's. */
  takenBack: boolean;
}

/** How the page is being left. */
export type Leaving =
  /** It is not seen, and may be ended without a further word. */
  | "hidden"
  /** It is put aside, and may come back. */
  | "aside"
  /** It ends. */
  | "ended";

const PACE: Pace = { firstPause: 1000, longestPause: 5000, timeout: 30_000 };
const TRIES = 5;

/** A processor that asks for a longer pause is not waited for. */
const LONGEST_RETRY_AFTER = 300_000;

/** Bytes of one request, unless one trace alone has more. */
const REQUEST_BYTES = 1024 * 1024;

/** Bytes that may wait. */
const WAITING_BYTES = 16 * 1024 * 1024;

const encoder = new TextEncoder();

/** See the module. */
export class Delivery {
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #envelope: readonly [string, string];
  readonly #report: (error: NeatlogsError) => void;
  readonly #pace: Pace;
  readonly #origin: string;
  readonly #flights = new Set<Flight>();
  #waiting: Parcel[] = [];
  #waitingBytes = 0;
  #failures = 0;
  #pause: ReturnType<typeof setTimeout> | undefined;
  #unreachableReported = false;
  #ended = false;
  #idle: (() => void)[] = [];

  /**
   * @param url Where OTLP/HTTP requests for traces go.
   * @param headers Sent with each.
   * @param envelope The text of a request before its first span and after its last.
   * @param report Called with what a developer should know. Does not throw.
   * @param pace Other times than the usual ones.
   */
  constructor(
    url: string,
    headers: Record<string, string>,
    envelope: readonly [string, string],
    report: (error: NeatlogsError) => void,
    pace: Partial<Pace> = {},
  ) {
    this.#url = url;
    this.#headers = headers;
    this.#envelope = envelope;
    this.#report = report;
    this.#pace = { ...PACE, ...pace };
    this.#origin = globalThis.location?.origin ?? "this program";
  }

  /** Send a trace. The promise never rejects; it resolves when the trace has arrived or was given up. */
  send(finished: Finished): Promise<TrackResult> {
    return new Promise((settle) => {
      const bytes = finished.spans.reduce((sum, span) => sum + size(span) + 1, 0);
      const parcel: Parcel = { ...finished, bytes, tries: 0, alone: false, settle };
      if (this.#waitingBytes + bytes > WAITING_BYTES) {
        this.#lose([parcel], "too much waits to be sent already");
        return;
      }
      this.#waiting.push(parcel);
      this.#waitingBytes += bytes;
      // Calls of one moment share a request.
      queueMicrotask(() => this.#next());
    });
  }

  /** Resolves when nothing waits and nothing is in flight. */
  flush(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle.push(resolve);
      this.#tellIdle();
    });
  }

  /** Try again at once: the network, or the page, is back. */
  wake(): void {
    this.#resume();
    this.#next();
  }

  /** Send what can be sent while the page is being left. */
  leave(how: Leaving): void {
    this.#ended = how === "ended";
    if (how !== "hidden") this.#takeBack();
    const whole = this.#fitting(keepaliveRoom() - this.#overhead());
    if (whole.length > 0) void this.#fly(whole, true);
    if (this.#ended) this.#sendBeginnings();
  }

  #next(): void {
    if (this.#ended) {
      this.leave("ended");
      this.#tellIdle();
      return;
    }
    const busy = this.#pause !== undefined || this.#flights.size > 0;
    if (busy || this.#waiting.length === 0) {
      this.#tellIdle();
      return;
    }
    const parcels = this.#firstRequest();
    const bytes = total(parcels) + this.#overhead();
    // A browser may refuse keepalive where it would not refuse the request, so a second try does without.
    void this.#fly(parcels, bytes <= keepaliveRoom() && parcels.every((parcel) => parcel.tries === 0));
  }

  async #fly(parcels: Parcel[], keepalive: boolean): Promise<void> {
    const flight: Flight = { parcels, keepalive, controller: new AbortController(), takenBack: false };
    const body = this.#envelope[0] + parcels.flatMap((parcel) => parcel.spans).join(",") + this.#envelope[1];
    const landed = keepalive ? takeKeepaliveRoom(size(body)) : () => {};
    const timer = setTimeout(() => flight.controller.abort(), this.#pace.timeout);
    this.#flights.add(flight);
    let outcome: Outcome;
    try {
      const response = await fetch(this.#url, {
        method: "POST",
        headers: this.#headers,
        body,
        keepalive,
        credentials: "omit",
        referrerPolicy: "no-referrer",
        signal: flight.controller.signal,
      });
      outcome = await readAnswer(response, this.#origin);
    } catch {
      outcome = flight.controller.signal.aborted
        ? { kind: "again", why: `no answer within ${this.#pace.timeout / 1000} s`, retryAfter: 0, unreachable: false }
        : unreachable(this.#url, this.#origin);
    }
    clearTimeout(timer);
    landed();
    this.#flights.delete(flight);
    if (flight.takenBack) {
      // Its traces wait again, or went another way.
    } else if (this.#ended && keepalive && outcome.kind === "again" && outcome.unreachable) {
      // Of a request that outlives its page the page does not hear any more: the browser goes on with it.
      for (const parcel of parcels)
        parcel.settle({ ok: false, trace_id: parcel.traceId, error: "the page ended before the answer" });
    } else {
      this.#handle(parcels, outcome);
    }
    this.#next();
  }

  #handle(parcels: Parcel[], outcome: Outcome): void {
    if (outcome.kind === "again") {
      this.#again(parcels, outcome);
      return;
    }
    this.#failures = 0;
    this.#unreachableReported = false;
    if (outcome.kind === "accepted") {
      this.#accepted(parcels, outcome.rejected, outcome.warning);
    } else if (outcome.alone && parcels.length > 1) {
      // One trace must not cost the others.
      for (const parcel of parcels) parcel.alone = true;
      this.#waitFirst(parcels);
    } else {
      this.#lose(parcels, outcome.why, "refused");
    }
  }

  #accepted(parcels: Parcel[], rejected: number, warning: string): void {
    if (rejected > 0) {
      this.#report(new NeatlogsError(`The processor rejected ${rejected} spans: ${warning}`, "lost", rejected));
    } else if (warning) {
      this.#report(new NeatlogsError(`The processor says: ${warning}`, "warning"));
    }
    for (const parcel of parcels) {
      const result: TrackResult = { ok: rejected === 0, trace_id: parcel.traceId, spans: parcel.spans.length };
      // Which spans of which trace were rejected is not said.
      if (rejected > 0) Object.assign(result, { error: `${rejected} spans of the request were rejected: ${warning}` });
      parcel.settle(result);
    }
  }

  #again(parcels: Parcel[], outcome: Outcome & { kind: "again" }): void {
    const offline = outcome.unreachable && globalThis.navigator?.onLine === false;
    if (!offline) for (const parcel of parcels) parcel.tries += 1;
    // A page that has ended has no time to try again.
    const noMore = this.#ended || outcome.retryAfter > LONGEST_RETRY_AFTER;
    const tired = parcels.filter((parcel) => noMore || parcel.tries >= TRIES);
    this.#lose(tired, outcome.why);
    this.#waitFirst(parcels.filter((parcel) => !tired.includes(parcel)));
    if (outcome.unreachable && !this.#unreachableReported) {
      this.#unreachableReported = true;
      this.#report(new NeatlogsError(outcome.why, "unreachable"));
    }
    const { firstPause, longestPause } = this.#pace;
    const usual = Math.min(longestPause, firstPause * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.#failures += 1;
    this.#resume();
    this.#pause = setTimeout(() => this.wake(), Math.max(usual, outcome.retryAfter));
  }

  /** Take back what would not outlive the page. */
  #takeBack(): void {
    for (const flight of this.#flights) {
      if (flight.keepalive) continue;
      flight.takenBack = true;
      this.#waitFirst(flight.parcels);
      flight.controller.abort();
    }
  }

  /** Take waiting traces, the oldest first, that fit whole into so many bytes together. */
  #fitting(room: number): Parcel[] {
    const fitting: Parcel[] = [];
    const others: Parcel[] = [];
    let left = room;
    for (const parcel of this.#waiting) {
      const fits = parcel.bytes <= left;
      if (fits) left -= parcel.bytes;
      (fits ? fitting : others).push(parcel);
    }
    this.#keep(others);
    return fitting;
  }

  /** Of traces that do not fit whole, send the first spans: the root, which owns the end user, and what follows. */
  #sendBeginnings(): void {
    let room = keepaliveRoom() - this.#overhead();
    const beginnings: string[] = [];
    const cut = this.#waiting;
    let lost = 0;
    this.#keep([]);
    for (const parcel of cut) {
      let sent = 0;
      for (const span of parcel.spans) {
        const bytes = size(span) + 1;
        if (bytes > room) break;
        room -= bytes;
        beginnings.push(span);
        sent += 1;
      }
      lost += parcel.spans.length - sent;
      const error = `the page ended, and ${parcel.spans.length - sent} spans did not fit into what it may still send`;
      parcel.settle({ ok: false, trace_id: parcel.traceId, spans: sent, error });
    }
    if (beginnings.length > 0) {
      const parcel = { traceId: "", spans: beginnings, bytes: 0, tries: 0, alone: false, settle: () => {} };
      void this.#fly([parcel], true);
    }
    if (lost > 0) {
      const why = `The page ended, and ${lost} spans of ${cut.length} traces did not fit into what it may still send`;
      this.#report(new NeatlogsError(`${why} (64 KiB).`, "lost", lost));
    }
  }

  /** Take from the front what goes into one request. */
  #firstRequest(): Parcel[] {
    let bytes = 0;
    let count = 0;
    for (const parcel of this.#waiting) {
      bytes += parcel.bytes;
      if (count > 0 && (bytes > REQUEST_BYTES || parcel.alone)) break;
      count += 1;
      if (parcel.alone) break;
    }
    const taken = this.#waiting.slice(0, count);
    this.#keep(this.#waiting.slice(count));
    return taken;
  }

  #lose(parcels: Parcel[], why: string, reason: "lost" | "refused" = "lost"): void {
    if (parcels.length === 0) return;
    const spans = parcels.reduce((sum, parcel) => sum + parcel.spans.length, 0);
    const traces = parcels.length === 1 ? "1 trace" : `${parcels.length} traces`;
    this.#report(new NeatlogsError(`${traces} (${spans} spans) not sent: ${why}`, reason, spans));
    for (const parcel of parcels) parcel.settle({ ok: false, trace_id: parcel.traceId, spans: 0, error: why });
  }

  #waitFirst(parcels: Parcel[]): void {
    this.#keep([...parcels, ...this.#waiting]);
  }

  #keep(parcels: Parcel[]): void {
    this.#waiting = parcels;
    this.#waitingBytes = total(parcels);
  }

  #resume(): void {
    clearTimeout(this.#pause);
    this.#pause = undefined;
  }

  #tellIdle(): void {
    if (this.#waiting.length > 0 || this.#flights.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #overhead(): number {
    return size(this.#envelope[0]) + size(this.#envelope[1]);
  }
}

function total(parcels: readonly Parcel[]): number {
  return parcels.reduce((sum, parcel) => sum + parcel.bytes, 0);
}

function size(text: string): number {
  return encoder.encode(text).length;
}
