/** Content on spans: what `captureInput` and `captureOutput` write, and what a mask leaves of it. */

import type { Attributes } from "@opentelemetry/api";
import {
  encodeJson,
  INPUT_MIME_TYPE,
  INPUT_VALUE,
  JSON_MIME_TYPE,
  OUTPUT_MIME_TYPE,
  OUTPUT_VALUE,
  TEXT_MIME_TYPE,
} from "../identity/conventions.js";
import { errorName, reason } from "../identity/refused.js";
import { warnOnce } from "../identity/warnings.js";

/** Gets attributes by key, returns those that may stay; it may change, add and leave out. */
export type Mask = (attributes: Attributes) => Attributes | null | undefined;

/** How many items of a generator `captureOutput` keeps: a stream without an end must not fill the memory. */
const MAX_CAPTURED_ITEMS = 10_000;

/** The attributes after the masks, the first mask first. A mask that fails leaves nothing. Never throws. */
export function masked(attributes: Readonly<Attributes>, masks: readonly Mask[], place: string): Attributes {
  let content: Attributes = { ...attributes };
  if (Object.keys(content).length === 0) return content;
  for (const mask of masks) {
    try {
      content = { ...mask(content) };
    } catch (error) {
      // What it did not mask must not get out.
      warnOnce(
        "mask_failed",
        place,
        `The mask of ${place} threw ${errorName(error)}; the content is dropped, the end user stays.`,
      );
      return {};
    }
  }
  return content;
}

/** `input.value` with its media type: the argument of a call with one, the array of them otherwise. */
export function inputAttributes(args: readonly unknown[], place: string): Attributes {
  return content(INPUT_VALUE, INPUT_MIME_TYPE, args.length === 1 ? args[0] : args, place);
}

/** `output.value` with its media type. */
export function outputAttributes(value: unknown, place: string): Attributes {
  return content(OUTPUT_VALUE, OUTPUT_MIME_TYPE, value, place);
}

function content(valueKey: string, typeKey: string, value: unknown, place: string): Attributes {
  if (typeof value === "string") return { [valueKey]: value, [typeKey]: TEXT_MIME_TYPE };
  try {
    return { [valueKey]: encodeJson(value), [typeKey]: JSON_MIME_TYPE };
  } catch (error) {
    warnOnce(
      "content_refused",
      `${place} ${valueKey}`,
      `${valueKey} of ${place} is not captured, because ${reason(error)}.`,
    );
    return {};
  }
}

/** What a generator has yielded so far. */
export class CapturedItems {
  readonly #items: unknown[] = [];
  #more = false;

  /** Keeps one item, up to `MAX_CAPTURED_ITEMS`. */
  add(item: unknown): void {
    if (this.#items.length < MAX_CAPTURED_ITEMS) this.#items.push(item);
    else this.#more = true;
  }

  /** Text joined where every item is text (a streamed answer), else the list of items. */
  value(place: string): unknown {
    if (this.#more) {
      warnOnce("content_cut", place, `Only the first ${MAX_CAPTURED_ITEMS} items of ${place} are captured.`);
    }
    const isText = this.#items.length > 0 && this.#items.every((item) => typeof item === "string");
    return isText ? this.#items.join("") : this.#items;
  }
}
