import { randomUUID } from 'node:crypto';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, type afterEach, beforeAll, type beforeEach } from 'vitest';
import type { Config } from '../../src/config.ts';
import { createDatabase, type TestDatabase } from './postgres.ts';
import { startTestSidecar, type TestSidecar } from './sidecar.ts';

/**
 * What the tests of a file or a block share: started before them, ended after them, in the reverse order. Whoever asks
 * it for something earlier is told so.
 */
export const useStarted = <T extends object>(start: () => Promise<T>, end: (started: T) => unknown): T => {
  let started: T | undefined;
  beforeAll(async () => {
    started = await start();
  });
  afterAll(() => started && end(started));
  const asked = (key: PropertyKey): T => {
    if (started) return started;
    throw new Error(`${String(key)} is asked for before the start, which only hooks and tests come after`);
  };
  return new Proxy({} as T, {
    get: (_, key) => {
      const value = Reflect.get(asked(key), key);
      return typeof value === 'function' ? value.bind(started) : value;
    },
    set: (_, key, value) => Reflect.set(asked(key), key, value),
  });
};

/** A server on a fresh, migrated database, with settings of its own or started in another way. */
export const useSidecar = (as: Partial<Config> | (() => Promise<TestSidecar>) = {}): TestSidecar =>
  useStarted(typeof as === 'function' ? as : () => startTestSidecar(as), ({ stop }) => stop());

/** A fresh, migrated database, or one that is made in another way. */
export const useDatabase = (create = createDatabase): TestDatabase => useStarted(create, ({ drop }) => drop());

/** A connection of its own to a database that is there by then. */
export const useClient = (url: () => string): pg.Client =>
  useStarted(
    async () => {
      const client = new pg.Client({ connectionString: url() });
      await client.connect();
      return client;
    },
    (client) => client.end(),
  );

/** An empty folder that every account may read, made before the tests, or before each of them, and gone after. */
export const useFolder = (before: typeof beforeEach = beforeAll, after: typeof afterEach = afterAll): string => {
  const folder = join(tmpdir(), `policy-sidecar-${randomUUID().slice(0, 8)}`);
  before(async () => {
    await mkdir(folder);
    await chmod(folder, 0o755);
  });
  after(() => rm(folder, { recursive: true, force: true }));
  return folder;
};
