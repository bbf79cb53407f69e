/** The data file of the shim's behaviour, which the Python shim runs too. */

import { readFileSync } from "node:fs";

export interface ValueCase {
  readonly about: string;
  readonly value: unknown;
  readonly text?: unknown;
  readonly json?: string | null;
  readonly bytes?: number;
  readonly refused?: boolean;
}

export type Step = Readonly<Record<string, unknown>> & { readonly inside?: readonly Step[] };

export interface Scenario {
  readonly name: string;
  readonly about: string;
  readonly steps: readonly Step[];
  readonly spans: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly warnings?: Readonly<Record<string, number>>;
  readonly lines?: number;
  readonly throws?: string;
  readonly roots?: "trace" | "entry";
  readonly span_processor?: boolean;
  readonly sampled?: boolean;
  readonly value_length_limit?: number;
  readonly resource?: Record<string, string>;
  readonly init?: Readonly<Record<string, unknown>>;
}

interface Cases {
  readonly ids: readonly ValueCase[];
  readonly metadata: readonly ValueCase[];
  readonly tags: readonly ValueCase[];
  readonly identity_keys: readonly [string, boolean][];
  readonly ranks: readonly string[];
  readonly endpoints: readonly {
    readonly about: string;
    readonly argument: string | null;
    readonly environment: Readonly<Record<string, string>>;
    readonly url: string;
    readonly protocol: string;
    readonly source: string;
  }[];
  readonly unusable_endpoints: readonly string[];
  readonly scenarios: readonly Scenario[];
}

export const DATA = new URL("../../../tests/data/", import.meta.url);

export const CASES: Cases = JSON.parse(readFileSync(new URL("shim_cases.json", DATA), "utf-8"));

/** The value that the data file means. What it writes as `null` is what JavaScript leaves undefined or null: both. */
export function meaningOf(written: unknown): unknown {
  if (Array.isArray(written)) return written.map(meaningOf);
  if (typeof written !== "object" || written === null) return written;
  if ("$" in written) return specialValue(written as Record<string, unknown>);
  return Object.fromEntries(Object.entries(written).map(([key, value]) => [key, meaningOf(value)]));
}

function specialValue(written: Readonly<Record<string, unknown>>): unknown {
  switch (written.$) {
    case "nan":
      return Number.NaN;
    case "integer":
      return BigInt(String(meaningOf(written.digits)));
    case "repeat":
      return String(written.text).repeat(Number(written.times));
    case "lone surrogate":
      return "\ud800";
    case "in itself": {
      const circle: Record<string, unknown> = {};
      circle.self = circle;
      return circle;
    }
    case "returns":
      return () => meaningOf(written.value);
    case "throws":
      return () => {
        throw new Error("as asked");
      };
    case "later":
      return async () => meaningOf(written.value);
    default:
      throw new Error(`what is ${written.$}?`);
  }
}
