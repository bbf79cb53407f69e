/** `span()`: a span around each call of a function, synchronous, asynchronous or a generator. */

import {
  type EndUser,
  type EndUserId,
  type EndUserMetadata,
  encodeSession,
  endUserFrom,
} from "../identity/end-user.js";
import { shown, warnOnce } from "../identity/warnings.js";
import { CapturedItems, inputAttributes, type Mask, outputAttributes } from "./content.js";
import { noteNamed, othersNamed } from "./declaring.js";
import { follow } from "./following.js";
import { type Steps, stepping, steppingAsync } from "./generators.js";
import type { Declaration } from "./open-root.js";
import { checkedKind, checkedMask, checkedName, type OpenSpan, openSpan } from "./open-span.js";
import { warnUnknownOptions } from "./options.js";

// biome-ignore lint/suspicious/noExplicitAny: any function at all
type AnyFunction = (...args: any[]) => unknown;

/** What `span()` takes, for a function with the arguments `A`. */
export interface SpanOptions<A extends readonly unknown[] = readonly unknown[]> {
  /** The span's name; by default the function's. */
  readonly name?: string | undefined;
  /** `"CHAIN"` (the default), `"WORKFLOW"`, `"AGENT"`, `"TOOL"`, `"LLM"`, ... */
  readonly kind?: string;
  /**
   * A function, called for each call with its arguments. Or a constant, which then serves every call: right for a
   * process with one end user.
   */
  readonly endUserId?: EndUserId | ((...args: A) => EndUserId);
  /** A JSON object or such a function. */
  readonly endUserMetadata?: EndUserMetadata | ((...args: A) => EndUserMetadata);
  /** An id or such a function. */
  readonly sessionId?: EndUserId | ((...args: A) => EndUserId);
  /** Put the arguments on the span as `input.value`: the one argument, or the array of several. */
  readonly captureInput?: boolean;
  /** Put the result on the span as `output.value`; of a generator, what it yielded. */
  readonly captureOutput?: boolean;
  /** Covers what is captured here and inside, see `TraceOptions`. */
  readonly mask?: Mask | undefined;
}

const OPTIONS = ["name", "kind", "endUserId", "endUserMetadata", "sessionId", "captureInput", "captureOutput", "mask"];

/**
 * Opens a span around each call of a function, and says which end user the call serves.
 *
 *     const chat = span({ kind: "WORKFLOW", endUserId: (request) => request.user.id }, async (request) => { ... });
 *
 * On functions, asynchronous functions, generators and asynchronous generators; `span(fn)` alone will do too. Where the
 * end user goes is decided as for `trace()`. The span ends when the function returns, or when the promise that it
 * returns is settled. A generator's span starts at its first step and ends with it; each step runs with it as the
 * active span.
 *
 * @returns A function of the same type, with the same name and properties.
 */
export function span<F extends AnyFunction>(options: SpanOptions<Parameters<F>>, fn: F): F;
export function span<F extends AnyFunction>(fn: F): F;
export function span<F extends AnyFunction>(first: SpanOptions<Parameters<F>> | F, second?: F): F {
  const options = (typeof first === "function" ? {} : (first ?? {})) as SpanOptions<Parameters<F>>;
  const fn = (typeof first === "function" ? first : second) as F;
  if (typeof fn !== "function") {
    const place = `span(${shown(options.name ?? "")})`;
    warnOnce("bad_argument", place, `${place} needs a function, not a ${typeof fn}; it is left as it is.`);
    return fn;
  }
  const calls = new Calls(fn, options as SpanOptions);
  return new Proxy(fn, {
    apply: (target, self: unknown, args: Parameters<F>) => calls.call(() => Reflect.apply(target, self, args), args),
  });
}

/** What each call of one function needs. */
class Calls {
  readonly #name: string;
  readonly #place: string;
  readonly #kind: string;
  readonly #options: SpanOptions;
  readonly #mask: Mask | undefined;
  readonly #around: "call" | "generator" | "async generator";
  readonly #constant: EndUser | undefined;
  readonly #isConstant: boolean;
  #served = 0;

  constructor(fn: AnyFunction, options: SpanOptions) {
    const own = fn.name || "anonymous";
    this.#name = options.name === undefined ? own : checkedName(options.name, `span() on ${shown(own)}`);
    this.#place = `span ${shown(this.#name)}`;
    this.#kind = checkedKind(options.kind, "CHAIN", this.#place);
    this.#options = options;
    this.#mask = checkedMask(options.mask, this.#place);
    this.#around = kindOf(fn);
    this.#isConstant = typeof options.endUserId !== "function" && typeof options.endUserMetadata !== "function";
    if (this.#isConstant) {
      this.#constant = endUserFrom("span", options.endUserId, options.endUserMetadata, this.#place);
    }
    warnUnknownOptions(options, OPTIONS, this.#place);
  }

  call(work: () => unknown, args: readonly unknown[]): unknown {
    if (this.#around === "generator") {
      return stepping(work() as Generator, () => this.#steps(args));
    }
    if (this.#around === "async generator") {
      return steppingAsync(work() as AsyncGenerator, () => this.#steps(args));
    }
    const opened = this.#open(args);
    return follow(opened, work, (value) => this.#output(opened, () => value));
  }

  #open(args: readonly unknown[]): OpenSpan {
    const opened = openSpan(this.#name, {
      kind: this.#kind,
      place: this.#place,
      declared: this.#declared(args),
      mask: this.#mask,
    });
    if (this.#options.captureInput) opened.put(() => inputAttributes(args, this.#place));
    return opened;
  }

  #output(opened: OpenSpan, value: () => unknown): void {
    if (this.#options.captureOutput) opened.put(() => outputAttributes(value(), this.#place));
  }

  #steps(args: readonly unknown[]): Steps {
    const opened = this.#open(args);
    const items = this.#options.captureOutput && opened.span.isRecording() ? new CapturedItems() : undefined;
    return {
      run: (work) => opened.run(work),
      yielded: (item) => items?.add(item),
      fail: (error) => opened.fail(error),
      end: () => {
        if (items !== undefined) this.#output(opened, () => items.value(this.#place));
        opened.end();
      },
    };
  }

  #declared(args: readonly unknown[]): Declaration {
    const { endUserId, endUserMetadata, sessionId } = this.#options;
    let endUser = this.#constant;
    if (!this.#isConstant) {
      endUser = endUserFrom("span", endUserId, endUserMetadata, this.#place, args);
      if (typeof endUserId === "function") noteNamed(endUser);
    } else if (endUser?.id !== undefined) {
      this.#served += 1;
      if (this.#served > 1 && othersNamed(endUser.id)) this.#warnConstant();
    }
    return { endUser, sessionId: encodeSession(sessionId, this.#place, args) };
  }

  #warnConstant(): void {
    warnOnce(
      "constant_end_user",
      this.#place,
      `${this.#place} gives one constant end user to every call, in a process that serves others too. Pass a function, ` +
        "which gets the call's arguments: endUserId: (request) => request.user.id",
    );
  }
}

function kindOf(fn: AnyFunction): "call" | "generator" | "async generator" {
  const tag = Object.prototype.toString.call(fn);
  if (tag === "[object GeneratorFunction]") return "generator";
  return tag === "[object AsyncGeneratorFunction]" ? "async generator" : "call";
}
