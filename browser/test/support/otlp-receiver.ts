/** A real HTTP server on a free loopback port that takes OTLP/JSON and answers what a test wants. */

import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import type { OtlpSpan } from "../../src/browser/otlp.js";

export interface Answer {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

export class OtlpReceiver {
  readonly requests: { headers: IncomingHttpHeaders; url: string; body: string; spans: OtlpSpan[] }[] = [];
  /** What it answers next; 200 when there is no more. `"reset"` closes the connection without an answer. */
  readonly answers: (Answer | "reset")[] = [];
  readonly #server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => {
      const body = Buffer.concat(pieces).toString("utf8");
      const spans = JSON.parse(body).resourceSpans[0].scopeSpans[0].spans;
      this.requests.push({ headers: request.headers, url: request.url ?? "", body, spans });
      const answer = this.answers.shift() ?? { status: 200 };
      if (answer === "reset") request.socket.destroy();
      else response.writeHead(answer.status, answer.headers).end(answer.body ?? "{}");
    });
  });

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get spans(): OtlpSpan[] {
    return this.requests.flatMap((request) => request.spans);
  }

  static start(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver();
    return new Promise((resolve) => receiver.#server.listen(0, "127.0.0.1", () => resolve(receiver)));
  }

  stop(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

/** The attributes of a span as a plain object. */
export function attributesOf(span: OtlpSpan | undefined): Record<string, unknown> {
  return Object.fromEntries((span?.attributes ?? []).map(({ key, value }) => [key, Object.values(value)[0]]));
}
