// Compiles the package: `npm run build`.

import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
// A file that was renamed must not live on in what is published.
rmSync(new URL("../dist", import.meta.url), { recursive: true, force: true });
const compiled = spawnSync("node_modules/.bin/tsc", ["-p", "tsconfig.build.json"], { cwd: here, stdio: "inherit" });
process.exit(compiled.status ?? 1);
