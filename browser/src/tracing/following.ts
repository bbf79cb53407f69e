/** Ending a span when what it stands for is over, which may be long after the function has returned. */

import { isThenable } from "../identity/end-user.js";

/** A span, or whatever else is to be ended. */
export interface Ending {
  /** Does some work under the span. */
  run<T>(work: () => T): T;
  /** Records an error. */
  fail(error: unknown): void;
  /** Ends it. Calling it again does nothing. */
  end(): void;
}

/**
 * Does `work` under `ending` and ends it: at once, where `work` returns something, or when a promise that it returns is
 * settled.
 *
 * @param ready Gets the result, or what the promise resolves to, before the end.
 * @returns What `work` returns: the same object. Only a thenable that is not a promise, which may do nothing until
 *   somebody calls its `then` (a query builder), comes back inside a proxy, so that it can be followed.
 */
export function follow<T>(ending: Ending, work: () => T, ready?: (value: unknown) => void): T {
  let result: T;
  try {
    result = ending.run(work);
  } catch (error) {
    ending.fail(error);
    ending.end();
    throw error;
  }
  const fulfilled = (value: unknown) => {
    ready?.(value);
    ending.end();
  };
  const rejected = (error: unknown) => {
    ending.fail(error);
    ending.end();
  };
  if (result instanceof Promise) {
    // Of the base class: the `then` of a derived one may do work of its own.
    Promise.prototype.then.call(result, fulfilled, rejected);
    return result;
  }
  if (isThenable(result)) return lazily(result as T & object, ending, fulfilled, rejected);
  fulfilled(result);
  return result;
}

function lazily<T extends object>(
  thenable: T,
  ending: Ending,
  fulfilled: (value: unknown) => void,
  rejected: (error: unknown) => void,
): T {
  return new Proxy(thenable, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      if (key !== "then") return value.bind(target);
      return (onFulfilled?: (value: unknown) => unknown, onRejected?: (error: unknown) => unknown) =>
        ending.run(() =>
          value.call(
            target,
            (found: unknown) => {
              fulfilled(found);
              return onFulfilled ? onFulfilled(found) : found;
            },
            (error: unknown) => {
              rejected(error);
              if (onRejected) return onRejected(error);
              throw error;
            },
          ),
        );
    },
  });
}
