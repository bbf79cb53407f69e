/** A value that cannot be used. The message says why, without the value. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
}

/** Why a value was refused, for a warning: only our own messages are known to hold no value. */
export function reason(error: unknown): string {
  return error instanceof RefusedError ? error.message : `it threw ${errorName(error)}`;
}

/** The kind of what was thrown, which may be anything. */
export function errorName(error: unknown): string {
  try {
    if (error instanceof Error) return String(error.constructor.name || "Error");
  } catch {
    // A foreign object whose constructor cannot be read.
  }
  return `a ${typeof error}`;
}
