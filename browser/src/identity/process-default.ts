/** What `init()` gives to roots that nobody else claims. */

import type { EndUser } from "./end-user.js";

/** The default of a process. */
export interface ProcessDefault {
  /** The end user of a process that serves one. */
  readonly endUser?: EndUser | undefined;
  /** An explicit session of the process, already encoded. */
  readonly sessionId?: string | undefined;
  /** Give each trace whose identity comes from `endUser` the one generated session of this process. */
  readonly autoSession?: boolean;
}

let current: ProcessDefault = {};
let autoSession: string | undefined;

/** Sets the process default; `undefined` takes it away. Returns what it was before. */
export function setProcessDefault(wanted: ProcessDefault | undefined): ProcessDefault {
  const before = current;
  current = wanted ?? {};
  return before;
}

/** The process default; an empty one before `init()`. */
export function processDefault(): ProcessDefault {
  return current;
}

/** The generated session id of this process: made at first use. */
export function autoSessionId(): string {
  autoSession ??= crypto.randomUUID();
  return autoSession;
}
