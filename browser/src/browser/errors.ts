/** What reaches `onError`. */

/** Why `onError` was called. */
export type Reason =
  /** The processor cannot be reached from this page; what waits is tried again. */
  | "unreachable"
  /** The processor refused a request for good. */
  | "refused"
  /** Spans were given up. */
  | "lost"
  /** An argument cannot be used. */
  | "usage"
  /** The processor accepted the spans, and says something beside. */
  | "warning";

/** What reaches `onError`. Its message never holds an end user's id, metadata, or what a span captured. */
export class NeatlogsError extends Error {
  override readonly name = "NeatlogsError";
  /** Why. */
  readonly reason: Reason;
  /** How many spans will not arrive because of it. */
  readonly spansLost: number;

  constructor(message: string, reason: Reason, spansLost = 0) {
    super(message);
    this.reason = reason;
    this.spansLost = spansLost;
  }
}
