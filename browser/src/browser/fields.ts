/**
 * The fields of a span as an application writes them, and the attributes that they become.
 *
 * They are those of the plain trace that `POST /v1/trace` of the processor takes; the table in the processor's README
 * describes both, and a test compares. A value of the wrong type is left out with a warning: the span is worth more.
 */

import {
  INPUT_MIME_TYPE,
  INPUT_VALUE,
  JSON_MIME_TYPE,
  OPENINFERENCE_SPAN_KIND,
  OUTPUT_MIME_TYPE,
  OUTPUT_VALUE,
  SPAN_KIND,
  TEXT_MIME_TYPE,
} from "../identity/conventions.js";
import { encodeJson } from "../identity/json.js";
import { type Attributes, Double, ERROR, OK } from "./otlp.js";

/** A point in time: a `Date`, milliseconds since the epoch, or ISO 8601 (UTC unless it says otherwise). */
export type Time = Date | number | string;

/** What a model call used. */
export interface Tokens {
  prompt?: number | undefined;
  completion?: number | undefined;
  total?: number | undefined;
}

/** Something that was written while a span was open. */
export interface LogInput {
  message: unknown;
  level?: string | undefined;
  timestamp?: Time | undefined;
}

/** One span. */
export interface SpanInput {
  name: string;
  /** `llm`, `tool`, `agent`, `retriever`, ...; without it the other fields tell. */
  kind?: string | undefined;
  input?: unknown;
  output?: unknown;
  model?: string | undefined;
  tokens?: Tokens | undefined;
  query?: unknown;
  /** What a retriever found: text, or objects with `content`, `id`, `score`, `metadata`. */
  documents?: readonly unknown[] | undefined;
  tool_name?: string | undefined;
  passed?: boolean | undefined;
  score?: number | undefined;
  /** Of this span. Of the end user: `endUserMetadata`. */
  metadata?: unknown;
  /** `ok` or `error`. */
  status?: string | undefined;
  /** What went wrong; the span's status is then an error. */
  error?: unknown;
  start?: Time | undefined;
  end?: Time | undefined;
  /** Milliseconds, where `start` or `end` is not known. */
  duration_ms?: number | undefined;
  /** Attributes by their own keys; they win over all other fields. */
  attributes?: Record<string, unknown> | undefined;
  logs?: readonly LogInput[] | undefined;
  children?: readonly SpanInput[] | undefined;
}

/** Called with the name of a field that cannot be used. */
export type Unusable = (field: string) => void;

/** The attributes of a span, without its identity. */
export function attributesOf(span: SpanInput, isRoot: boolean, unusable: Unusable): Attributes {
  const kind = kindOf(span, isRoot, unusable);
  return {
    [SPAN_KIND]: kind.toLowerCase(),
    [OPENINFERENCE_SPAN_KIND]: kind.toUpperCase(),
    ...captured(span.input ?? span.query, "input", unusable),
    ...captured(span.output, "output", unusable),
    ...both(of(span.model, "string", "model", unusable), "gen_ai.request.model", "llm.model_name"),
    ...tokensOf(span.tokens, unusable),
    "gen_ai.retrieval.query.text": content(span.query, "query", unusable),
    ...documentsOf(span.documents, unusable),
    ...both(of(span.tool_name, "string", "tool_name", unusable), "gen_ai.tool.name", "tool.name"),
    "gen_ai.evaluation.score.label": label(of(span.passed, "boolean", "passed", unusable)),
    "gen_ai.evaluation.score.value": double(of(span.score, "number", "score", unusable)),
    metadata: json(span.metadata, "metadata", unusable),
    "neatlogs.status": otherStatus(of(span.status, "string", "status", unusable)),
    ...(of(span.attributes, "object", "attributes", unusable) as Attributes | undefined),
  };
}

/** The status of a span. */
export function statusOf(span: SpanInput, unusable: Unusable): { code?: number; message?: string } {
  const message = content(span.error, "error", unusable);
  // `error: false` says that there was none.
  if (present(span.error) && message !== "" && message !== "false") return { code: ERROR, message: message ?? "" };
  const code = typeof span.status === "string" ? codeOf(span.status) : 0;
  return code ? { code } : {};
}

/** Milliseconds since the epoch, or `undefined` where there is none. */
export function milliseconds(time: unknown, field: string, unusable: Unusable): number | undefined {
  if (!present(time)) return undefined;
  const found = typeof time === "string" ? Date.parse(inUtc(time)) : Number(time);
  const isTime = typeof time === "string" || typeof time === "number" || time instanceof Date;
  // OTLP has no time before 1970, and stores have none after 2262.
  if (isTime && found >= 0 && found < 9.2e12) return found;
  unusable(field);
  return undefined;
}

/** A value if it has the wanted type. */
export function of<T>(value: T, type: string, field: string, unusable: Unusable): T | undefined {
  if (!present(value)) return undefined;
  if (typeof value === type && !Number.isNaN(value)) return value;
  unusable(field);
  return undefined;
}

/** Text as it is, anything else as JSON. An `Error` is its message. */
export function content(value: unknown, field: string, unusable: Unusable): string | undefined {
  if (!present(value)) return undefined;
  if (value instanceof Error) return value.message || value.name;
  return typeof value === "string" ? value : json(value, field, unusable);
}

/** What contains itself has no JSON. */
function json(value: unknown, field: string, unusable: Unusable): string | undefined {
  try {
    return present(value) ? encodeJson(value) : undefined;
  } catch {
    unusable(field);
    return undefined;
  }
}

function kindOf(span: SpanInput, isRoot: boolean, unusable: Unusable): string {
  const given = of(span.kind, "string", "kind", unusable);
  if (given) return given;
  if (present(span.tool_name)) return "tool";
  if (present(span.query) || present(span.documents)) return "retriever";
  if (present(span.model) || present(span.tokens)) return "llm";
  if (present(span.passed)) return "guardrail";
  if (present(span.score)) return "evaluator";
  return isRoot ? "workflow" : "chain";
}

function captured(value: unknown, direction: "input" | "output", unusable: Unusable): Attributes {
  const text = content(value, direction, unusable);
  if (text === undefined) return {};
  const type = typeof value === "string" ? TEXT_MIME_TYPE : JSON_MIME_TYPE;
  return direction === "input"
    ? { [INPUT_VALUE]: text, [INPUT_MIME_TYPE]: type }
    : { [OUTPUT_VALUE]: text, [OUTPUT_MIME_TYPE]: type };
}

function both(value: unknown, first: string, second: string): Attributes {
  return { [first]: value, [second]: value };
}

function tokensOf(given: unknown, unusable: Unusable): Attributes {
  const tokens = (of(given, "object", "tokens", unusable) ?? {}) as Tokens;
  const count = (name: keyof Tokens): number | undefined => {
    const value = tokens[name];
    if (!present(value)) return undefined;
    if (Number.isSafeInteger(value) && Number(value) >= 0) return value;
    unusable(`tokens.${name}`);
    return undefined;
  };
  return {
    ...both(count("prompt"), "gen_ai.usage.input_tokens", "llm.token_count.prompt"),
    ...both(count("completion"), "gen_ai.usage.output_tokens", "llm.token_count.completion"),
    "llm.token_count.total": count("total"),
  };
}

function documentsOf(given: unknown, unusable: Unusable): Attributes {
  if (!present(given)) return {};
  if (!Array.isArray(given)) {
    unusable("documents");
    return {};
  }
  const found: Attributes = {};
  given.forEach((document, number) => {
    if (!present(document)) return;
    for (const [part, value] of Object.entries(documentOf(document, unusable))) {
      if (present(value)) found[`retrieval.documents.${number}.document.${part}`] = value;
    }
  });
  return found;
}

const DOCUMENT = new Set(["content", "text", "page_content", "pageContent", "id", "score", "metadata"]);

function documentOf(document: unknown, unusable: Unusable): Attributes {
  const text = (value: unknown) => content(value, "documents", unusable);
  if (typeof document !== "object" || document === null) return { content: text(document) };
  const { content: plain, text: other, page_content, pageContent, id, score, metadata } = document as Attributes;
  const found = plain ?? other ?? page_content ?? pageContent;
  const hasMore = present(found) && Object.keys(document).some((key) => !DOCUMENT.has(key));
  return {
    content: text(found ?? document),
    id: text(id),
    score: typeof score === "number" ? new Double(score) : undefined,
    metadata: json(metadata ?? (hasMore ? document : undefined), "documents", unusable),
  };
}

function double(value: number | undefined): Double | undefined {
  return value === undefined ? undefined : new Double(value);
}

function label(passed: boolean | undefined): string | undefined {
  if (passed === undefined) return undefined;
  return passed ? "pass" : "fail";
}

/** The code that a word stands for; `undefined` where it stands for none. */
function codeOf(status: string): number | undefined {
  const word = status.trim();
  if (/^(ok|success)$/i.test(word)) return OK;
  if (/^(error|fail|failed|failure)$/i.test(word)) return ERROR;
  return /^(unset)?$/i.test(word) ? 0 : undefined;
}

function otherStatus(status: string | undefined): string | undefined {
  return status === undefined || codeOf(status) !== undefined ? undefined : status;
}

function inUtc(time: string): string {
  const text = time.trim().replace(" ", "T");
  return /T[\d:.]+$/.test(text) ? `${text}Z` : text;
}

function present<T>(value: T): value is NonNullable<T> {
  return value !== undefined && value !== null;
}
