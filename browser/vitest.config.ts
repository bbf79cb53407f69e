import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // The shim keeps state that belongs to a process (the registry, the default): each file gets one of its own.
    pool: "forks",
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
