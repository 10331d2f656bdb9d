import { defineConfig } from 'vitest/config';

/** Files that leave their process as they found it: they share one, and what it has loaded. */
const SHARED = ['test/contract/**/*.test.ts'];

const each = { setupFiles: ['test/support/patience.ts'], testTimeout: 120_000, hookTimeout: 180_000 };

export default defineConfig({
  test: {
    globalSetup: ['test/support/postgres.ts', 'test/support/program.ts'],
    reporters: ['default', './test/support/summary.ts'],
    pool: 'forks',
    maxWorkers: 4,
    projects: [
      { test: { ...each, name: 'shared', include: SHARED, isolate: false } },
      { test: { ...each, name: 'alone', include: ['test/**/*.test.ts'], exclude: SHARED } },
    ],
  },
});
