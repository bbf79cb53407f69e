/** `wrap()`: each outermost call on a client becomes a trace of its own. */

import { context as contextApi, type Span, trace as traceApi } from "@opentelemetry/api";
import { isTracingSuppressed } from "@opentelemetry/core";
import { OPENINFERENCE_SPAN_KIND, SPAN_KIND } from "../identity/conventions.js";
import { errorName } from "../identity/refused.js";
import { warnOnce } from "../identity/warnings.js";
import { validContext } from "./declaring.js";
import type { Ending } from "./following.js";
import { live } from "./live.js";
import { recordError } from "./open-span.js";
import { tracer } from "./tracer.js";

// biome-ignore lint/suspicious/noExplicitAny: any function at all
type AnyFunction = (...args: any[]) => unknown;

/** Methods that do no work worth a trace: they return a changed copy of the client, or look after its connections. */
const WITHOUT_ROOT = /^(with[A-Z].*|copy|clone|close|destroy|on|off|once|emit)$/;
/** Everybody's methods: they say something about an object rather than do its work. */
const OF_EVERY_OBJECT: ReadonlySet<PropertyKey> = new Set([
  "constructor",
  ...Object.getOwnPropertyNames(Object.prototype),
  "toJSON",
  "then",
]);
/** Levels of parts without methods of their own; parts may refer back to their client. */
const MAX_DEPTH = 3;

/** What is wrapped already, by the proxy. */
const wrapped = new WeakSet<object>();

/**
 * Gives every outermost call on a client, or of a function, a root span, so that it can have an end user.
 *
 *     const client = wrap(new OpenAI());
 *     await identify({ endUserId: user.id }, () =>
 *       client.chat.completions.create({ ... }));      // one trace, whose root names the user
 *
 * A call gets a root only where no span is active; inside `trace()` or an instrumented request it runs as it always did.
 * The end user comes from `identify()` or `init()`. The root is named after the call (`OpenAI.chat.completions.create`),
 * records an error that the call throws or rejects with, and stays open while a returned stream is in use: until it is
 * exhausted, closed or dropped. What runs on behalf of the call, wherever the stream is read, lands below the root.
 *
 * The result behaves as the client does: `instanceof`, properties, nested resources, `withOptions()` and its like.
 *
 * @param client A client (of OpenAI, Anthropic, ...; or any object with methods), a function, or a class, whose
 *   instances are then wrapped.
 * @returns A proxy of it. What cannot be wrapped (a number, say) is returned as it is, with a warning. It never throws.
 */
export function wrap<T>(client: T): T {
  if (typeof client === "function")
    return ofFunction(client as AnyFunction, client.name || "anonymous", undefined) as T;
  if (typeof client === "object" && client !== null && !Array.isArray(client)) {
    return ofObject(client, nameOf(client)) as T;
  }
  const kind = client === null ? "null" : typeof client;
  warnOnce("wrap_unusable", kind, `wrap() needs a client or a function, not a ${kind}; it is returned as it is.`);
  return client;
}

function ofObject<T extends object>(target: T, name: string): T {
  if (wrapped.has(target)) return target;
  // Handed out again, so that `client.chat === client.chat` stays true.
  const parts = new Map<PropertyKey, { value: unknown; part: unknown }>();
  const proxy: T = new Proxy(target, {
    get(_, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof key === "symbol" || key.startsWith("_") || OF_EVERY_OBJECT.has(key) || mustStay(target, key)) {
        return value;
      }
      const known = parts.get(key);
      if (known !== undefined && known.value === value) return known.part;
      const part = partOf(target, value, `${name}.${key}`, key, () => proxy);
      if (part !== value) parts.set(key, { value, part });
      return part;
    },
    // A setter or a private member belongs to the object itself.
    set: (_, key, value) => Reflect.set(target, key, value, target),
  });
  wrapped.add(proxy);
  return proxy;
}

function partOf(target: object, value: unknown, name: string, key: string, proxy: () => object): unknown {
  if (typeof value === "function") return ofFunction(value as AnyFunction, name, { self: target, key, proxy });
  return isResource(value) ? ofObject(value, name) : value;
}

/** A method's object, its own key there, and what stands for the object. */
interface Owner {
  readonly self: object;
  readonly key: string;
  readonly proxy: () => object;
}

function ofFunction(target: AnyFunction, name: string, owner: Owner | undefined): AnyFunction {
  if (wrapped.has(target)) return target;
  const builds = owner !== undefined && WITHOUT_ROOT.test(owner.key);
  const proxy: AnyFunction = new Proxy(target, {
    apply(_, self: unknown, args: unknown[]) {
      // A method gets the object itself: a proxy has no access to private members.
      const receiver = owner !== undefined && self === owner.proxy() ? owner.self : self;
      const result = builds
        ? Reflect.apply(target, receiver, args)
        : call(name, () => Reflect.apply(target, receiver, args));
      if (owner === undefined) return result;
      if (result === owner.self) return owner.proxy();
      // Named as the client, not as the method: a copy is as good as its original.
      return builds && isResource(result) ? ofObject(result, name.slice(0, name.lastIndexOf("."))) : result;
    },
    construct: (_, args: unknown[], newTarget): object =>
      ofObject(Reflect.construct(target, args, newTarget === proxy ? target : newTarget), name),
  });
  wrapped.add(proxy);
  return proxy;
}

/** One call of a function or method, with a root of its own where no span is active. */
function call(name: string, work: () => unknown): unknown {
  const ending = startCall(name);
  return ending === undefined ? work() : live(ending, work);
}

/** Opens a root span; `undefined` where the call needs none, or it cannot be started. */
function startCall(name: string): Ending | undefined {
  const active = contextApi.active();
  if (validContext(traceApi.getSpan(active)) !== undefined || isTracingSuppressed(active)) return undefined;
  try {
    const attributes = { [SPAN_KIND]: "workflow", [OPENINFERENCE_SPAN_KIND]: "WORKFLOW" };
    const span = tracer().startSpan(name, { attributes });
    return validContext(span) === undefined ? undefined : new OpenCall(span);
  } catch (error) {
    // A sampler or span processor of the application; its call must go on.
    warnOnce("wrap_root", name, `No root span for the wrapped call ${name}: ${errorName(error)}.`);
    return undefined;
  }
}

/** One wrapped call: its root span, and the context in which everything of the call runs. */
class OpenCall implements Ending {
  readonly #span: Span;
  readonly #context = contextApi.active();
  #open = true;

  constructor(span: Span) {
    this.#span = span;
    this.#context = traceApi.setSpan(this.#context, span);
  }

  run<T>(work: () => T): T {
    return contextApi.with(this.#context, work);
  }

  fail(error: unknown): void {
    if (this.#open) recordError(this.#span, error);
  }

  end(): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      this.#span.end();
    } catch (error) {
      warnOnce("wrap_end", errorName(error), `${errorName(error)} while ending the span of a wrapped call.`);
    }
  }
}

/**
 * Whether a value is a part of the client that has methods of its own, or parts that have, rather than data or something
 * of the language.
 */
function isResource(value: unknown, depth = 0): value is object {
  if (typeof value !== "object" || value === null || depth > MAX_DEPTH) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (typeof prototype !== "object" || prototype === null || prototype === Object.prototype) return false;
  if (/\[native code\]/.test(Function.prototype.toString.call(prototype.constructor))) return false;
  let level: object | null = prototype;
  while (level !== null && level !== Object.prototype) {
    const methods: object = level;
    if (Object.getOwnPropertyNames(level).some((name) => name !== "constructor" && isMethod(methods, name)))
      return true;
    level = Object.getPrototypeOf(level);
  }
  return Object.values(Object.getOwnPropertyDescriptors(value)).some((own) => isResource(own.value, depth + 1));
}

function isMethod(prototype: object, name: string): boolean {
  // Not by reading it: a getter would run.
  return typeof Object.getOwnPropertyDescriptor(prototype, name)?.value === "function";
}

/** A proxy must show what its object holds fixed. */
function mustStay(target: object, key: PropertyKey): boolean {
  const own = Object.getOwnPropertyDescriptor(target, key);
  return own !== undefined && own.configurable === false && own.writable !== true;
}

function nameOf(client: object): string {
  const name: unknown = client.constructor?.name;
  return typeof name === "string" && name !== "" && name !== "Object" ? name : "client";
}
