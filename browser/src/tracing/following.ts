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
 * @returns What `work` returns: the same object. Only a thenable of another make than `Promise` itself, which may do
 *   nothing until somebody calls its `then` (a query builder, the answer of a model's client), comes back inside a
 *   proxy, so that it can be followed.
 */
export function follow<T>(ending: Ending, work: () => T, ready?: (value: unknown) => void): T {
  const settled = (value: unknown) => {
    ready?.(value);
    ending.end();
    return value;
  };
  const result = attempt(ending, work);
  if (!isPlainPromise(result))
    return isThenable(result) ? lazily(result as T & object, ending, settled) : (settled(result) as T);
  // On the side: the application gets its own promise, with its own rejection.
  result.then(settled, (error) => failed(ending, error));
  return result;
}

/** Does some work under `ending`, and ends it if that throws. */
export function attempt<T>(ending: Ending, work: () => T): T {
  try {
    return ending.run(work);
  } catch (error) {
    failed(ending, error);
    throw error;
  }
}

/** Records an error and ends. */
export function failed(ending: Ending, error: unknown): void {
  ending.fail(error);
  ending.end();
}

/** Whether a value is a promise of the language, whose `then` does no work of its own. */
export function isPlainPromise(value: unknown): value is Promise<unknown> {
  return value instanceof Promise && Object.getPrototypeOf(value) === Promise.prototype;
}

/**
 * A thenable inside a proxy: whatever is asked of it runs under `ending`, and what it comes to goes through `settled`.
 *
 * @param settled Gets what the thenable comes to, ends what is over, and returns what the application is to get.
 */
export function lazily<T extends object>(thenable: T, ending: Ending, settled: (value: unknown) => unknown): T {
  const then = (onFulfilled?: Callback, onRejected?: Callback): unknown =>
    ending.run(() =>
      (thenable as unknown as PromiseLike<unknown>).then(
        (value) => {
          const found = settled(value);
          return onFulfilled ? onFulfilled(found) : found;
        },
        (error: unknown) => {
          failed(ending, error);
          if (onRejected) return onRejected(error);
          throw error;
        },
      ),
    );
  const own: Readonly<Record<PropertyKey, unknown>> = {
    then,
    catch: (onRejected?: Callback) => then(undefined, onRejected),
    finally: (after?: () => unknown) =>
      Promise.resolve({ then } as PromiseLike<unknown>).finally(after as (() => void) | undefined),
  };
  const proxy = new Proxy(thenable, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      if (Object.hasOwn(own, key)) return own[key];
      return (...args: unknown[]) => followed(ending, () => value.apply(target, args), target, proxy, settled);
    },
  });
  whenDropped(proxy, ending);
  return proxy;
}

type Callback = (value: unknown) => unknown;

/** The result of another method: `withResponse()` of a model's client, or `where()` of a query builder. */
function followed(
  ending: Ending,
  work: () => unknown,
  target: object,
  proxy: object,
  settled: (value: unknown) => unknown,
): unknown {
  const result = attempt(ending, work);
  if (result === target) return proxy;
  if (!isThenable(result)) return result;
  if (!isPlainPromise(result)) return lazily(result, ending, settled);
  return result.then(settled, (error) => {
    failed(ending, error);
    throw error;
  });
}

const dropped = new FinalizationRegistry<Ending>((ending) => ending.end());

/** Ends when nobody holds `holder` any more, if that was not done before. `ending` must not hold it. */
export function whenDropped(holder: object, ending: Ending): void {
  dropped.register(holder, ending);
}
