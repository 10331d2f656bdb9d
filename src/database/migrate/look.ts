import type pg from 'pg';
import { Client } from '../client.ts';
import { problemOf } from '../sqlstate.ts';
import { readTarget } from '../target.ts';

/** A database that lets nobody in; the message is one line for the user. */
export class UnreachableError extends Error {
  /** Whether that may pass by itself: the server is starting, or its name is not known yet. */
  get mayPass(): boolean {
    const { code, message } = (this.cause ?? {}) as { code?: string; message?: string };
    return code === undefined ? /terminated|timeout/i.test(message ?? '') : MAY_PASS.test(code);
  }
}

const MAY_PASS =
  /^(?:E(?:CONN(?:REFUSED|RESET)|NOENT|NOTFOUND|AI_AGAIN|TIMEDOUT|PIPE|(?:HOST|NET)UNREACH)|57P0[123]|53300|08\w{3})$/;

/** One open transaction; rows are PostgreSQL's text. */
export interface Tx {
  rows(text: string, values?: readonly unknown[]): Promise<Record<string, string | null>[]>;
  run(text: string): Promise<void>;
}

const CONNECT_MS = 10_000;

const TEXT = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;

/** Connects for one piece of work. */
export const withClient = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const target = readTarget(url);
  const client = new Client({
    target,
    pooler: 'auto',
    connectMs: CONNECT_MS,
    lockMs: undefined,
    applicationName: 'policy-sidecar migrate',
    types: TEXT,
    bare: true,
  });
  await client.connect().catch((error: unknown) => {
    throw new UnreachableError(`${target.description} cannot be used: ${problemOf(error)}`, { cause: error });
  });
  try {
    return await work(client);
  } finally {
    await client.end();
  }
};

export const txOf = (client: pg.Client): Tx => ({
  rows: async (text, values) => (await client.query(text, values as unknown[])).rows,
  run: async (text) => {
    await client.query(text);
  },
});

/** As {@link withTurn}, for who only looks: nothing is waited for. */
export const withLook = <T>(url: string, work: (look: <R>(task: (tx: Tx) => Promise<R>) => Promise<R>) => Promise<T>) =>
  withClient(url, (client) =>
    work(async (task) => {
      await client.query(
        `begin; set local search_path = pg_catalog; set local timezone = 'UTC'; set local lock_timeout = 5000`,
      );
      try {
        return await task(txOf(client));
      } finally {
        await client.query('rollback');
      }
    }),
  );
