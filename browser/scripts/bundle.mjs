// Makes one file of the browser entry, for pages without a bundler, and holds it to its size: part of `npm run build`.
// An argument says where else to put it.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const MAX_GZIPPED = 10 * 1024;
const bundle = process.argv[2] ?? fileURLToPath(new URL("../dist/browser/neatlogs.min.js", import.meta.url));

await build({
  entryPoints: [fileURLToPath(new URL("../src/browser/index.ts", import.meta.url))],
  outfile: bundle,
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  logLevel: "warning",
});

const gzipped = gzipSync(readFileSync(bundle), { level: 9 }).length;
console.log(`The browser entry has ${gzipped} bytes gzipped, of at most ${MAX_GZIPPED}.`);
if (gzipped > MAX_GZIPPED) {
  console.error("It is too large for a page: see what it pulls in.");
  process.exit(1);
}
