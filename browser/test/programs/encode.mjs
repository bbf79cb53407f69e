// Encodes values as the shim does: node encode.mjs < VALUES. One JSON value a line in; one JSON object a line out.
import { createInterface } from "node:readline";
import { conventions } from "neatlogs-otel";

function attempt(encode, value) {
  try {
    return encode(value) ?? null;
  } catch (error) {
    if (error instanceof conventions.RefusedError) return { refused: true };
    throw error;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const value = JSON.parse(line);
  const encoded = {
    id: attempt(conventions.encodeId, value),
    metadata: attempt(conventions.encodeMetadata, value),
    tags: attempt(conventions.encodeTags, value),
  };
  console.log(JSON.stringify(encoded));
}
