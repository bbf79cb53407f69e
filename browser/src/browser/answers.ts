/** What an answer of the processor means (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response). */

/** What became of a request. */
export type Outcome =
  /** The processor has it. `rejected` spans of it were refused; `warning` is what it says beside. */
  | { kind: "accepted"; rejected: number; warning: string }
  /** It may be sent again, not before `retryAfter` milliseconds. */
  | { kind: "again"; why: string; retryAfter: number; unreachable: boolean }
  /** It must not be sent again. `alone` tells whether a part of it may still be accepted. */
  | { kind: "refused"; why: string; alone: boolean };

const RETRYABLE = new Set([429, 502, 503, 504]);

/** Statuses that may be about one trace among others. */
const ABOUT_CONTENT = new Set([400, 413]);

/** Read the answer to a request. Never rejects. */
export async function readAnswer(response: Response, origin: string): Promise<Outcome> {
  const { message, partialSuccess } = await bodyOf(response);
  if (response.ok) {
    const { rejectedSpans, errorMessage } = partialSuccess ?? {};
    return { kind: "accepted", rejected: Number(rejectedSpans) || 0, warning: String(errorMessage ?? "") };
  }
  const why = `${response.status}${message ? `: ${message}` : ""}`;
  if (RETRYABLE.has(response.status)) {
    return { kind: "again", why, retryAfter: retryAfter(response.headers.get("retry-after")), unreachable: false };
  }
  return { kind: "refused", why: why + advice(response.status, origin), alone: ABOUT_CONTENT.has(response.status) };
}

/** What to say where there is no answer. A browser does not tell a page why. */
export function unreachable(url: string, origin: string): Outcome {
  return {
    kind: "again",
    why:
      `${url} cannot be reached from ${origin}: no processor runs there, or it does not let pages of this origin send ` +
      `(start it with --cors-origins ${origin}), or the page's Content-Security-Policy does not ` +
      `(its connect-src has to name ${new URL(url).origin}).`,
    retryAfter: 0,
    unreachable: true,
  };
}

function advice(status: number, origin: string): string {
  switch (status) {
    case 401:
      return " (apiKey has to be a key of --browser-keys-file)";
    case 403:
      return ` (the line of this key in --browser-keys-file has to name ${origin}, and so has --cors-origins)`;
    case 404:
    case 405:
      return " (endpoint has to be where a processor receives OTLP/HTTP, such as http://localhost:4318)";
    default:
      return "";
  }
}

/** Milliseconds, from seconds or a date (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after). */
function retryAfter(value: string | null): number {
  if (!value) return 0;
  const milliseconds = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(milliseconds) ? Math.max(0, milliseconds) : 0;
}

/** What an answer's body may say; nothing of it is certain. */
interface Body {
  message?: unknown;
  partialSuccess?: { rejectedSpans?: unknown; errorMessage?: unknown };
}

async function bodyOf(response: Response): Promise<Body> {
  try {
    return JSON.parse(await response.text()) ?? {};
  } catch {
    // An answer of something between, or none that can be read: the status alone counts.
    return {};
  }
}
