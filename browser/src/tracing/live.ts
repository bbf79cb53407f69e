/**
 * Results that outlive the call that returned them: streams, and iterators of any kind.
 *
 * Such a result is returned inside a proxy that looks like it. Each step on the proxy (the next item, any method) runs
 * under the span of the call, wherever it is taken. The call ends when the stream is exhausted, closed, or nobody holds
 * it any more.
 */

import { isThenable } from "../identity/end-user.js";
import { attempt, type Ending, failed, isPlainPromise, lazily, whenDropped } from "./following.js";

const CLOSING: ReadonlySet<PropertyKey> = new Set(["return", "close", "cancel", "abort", "destroy"]);

/** The result of a call as the application gets it: as it is, with the call ended, or one that keeps the call open. */
export function live(ending: Ending, work: () => unknown): unknown {
  return settled(ending, attempt(ending, work));
}

function settled(ending: Ending, result: unknown): unknown {
  if (isPlainPromise(result)) {
    return result.then(
      (value) => settled(ending, value),
      (error) => {
        failed(ending, error);
        throw error;
      },
    );
  }
  if (isThenable(result)) return lazily(result, ending, (value) => settled(ending, value));
  if (outlives(result)) return stream(result, ending);
  const inner = streamIn(result);
  if (inner !== undefined) {
    const { holder, key } = inner;
    return { ...holder, [key]: stream(holder[key] as object, ending) };
  }
  ending.end();
  return result;
}

/** Whether a result goes on after the call: something to iterate over that is not a collection. */
function outlives(result: unknown): result is object {
  if (typeof result !== "object" || result === null) return false;
  return Symbol.asyncIterator in result || ("next" in result && typeof result.next === "function");
}

/** The clients of models answer `withResponse()` with an object that holds the stream beside the response. */
function streamIn(result: unknown): { holder: Record<string, unknown>; key: string } | undefined {
  if (typeof result !== "object" || result === null || Object.getPrototypeOf(result) !== Object.prototype)
    return undefined;
  const holder = result as Record<string, unknown>;
  const key = Object.keys(holder).find((name) => outlives(holder[name]));
  return key === undefined ? undefined : { holder, key };
}

function stream(target: object, ending: Ending): object {
  const proxy: object = new Proxy(target, {
    get(_, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function" || key === "constructor") return value;
      return (...args: unknown[]) => step(ending, key, () => value.apply(target, args), target, proxy);
    },
  });
  whenDropped(proxy, ending);
  if ("once" in target && typeof target.once === "function") {
    // It may be read by events alone. (Listening for errors would change what an error does.)
    target.once("end", () => ending.end());
    target.once("close", () => ending.end());
  }
  return proxy;
}

/** One step on a stream or iterator. */
function step(ending: Ending, key: PropertyKey, work: () => unknown, target: object, proxy: object): unknown {
  const result = attempt(ending, work);
  if (isThenable(result)) {
    const isItem = key === "next" || key === "throw";
    const arrived = (value: unknown) => {
      // A method that answers later (finalMessage(), done()) answers when the stream is over.
      if (!isItem || isLast(value)) ending.end();
      return value;
    };
    if (isPlainPromise(result)) {
      result.then(arrived, (error) => failed(ending, error));
      return result;
    }
    return lazily(result, ending, arrived);
  }
  if (result === target) return proxy;
  if (CLOSING.has(key) || isLast(result)) ending.end();
  return outlives(result) ? stream(result, ending) : result;
}

function isLast(result: unknown): boolean {
  return typeof result === "object" && result !== null && "done" in result && result.done === true;
}
