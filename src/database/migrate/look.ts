import type pg from 'pg';
import { Client } from '../client.ts';
import { problemOf } from '../sqlstate.ts';
import { readTarget } from '../target.ts';

/** A database that lets nobody in; the message is one line for the user. */
export class UnreachableError extends Error {
  /** Whether that may pass by itself: the server is starting, or its name is not known yet. */
  get mayPass(): boolean {
    const { code, message } = (this.cause ?? {}) as { code?: string; message?: string };
    if (code === undefined) return /terminated|timeout/i.test(message ?? '');
    return AWAY.test(code) || NOT_THERE.test(code);
  }
}

/** A server that goes away in the midst of work, or lets in nobody more. */
const AWAY = /^(?:57P0[123]|53300|08\w{3}|ECONNRESET|EPIPE)$/;
/** The same where the connection ends without a word, or between two statements. */
const CUT_OFF = /^(?:Connection terminated|Client has encountered a connection error)/;
const NOT_THERE = /^E(?:CONNREFUSED|NOENT|NOTFOUND|AI_AGAIN|TIMEDOUT|(?:HOST|NET)UNREACH)$/;

/** Whether that is what a server that has gone leaves of work that had begun. */
export const isAway = ({ code = '', message }: NodeJS.ErrnoException): boolean =>
  AWAY.test(code) || CUT_OFF.test(message);

/** A row of what was looked up: its cells by name. To ask for one that is not there, or is NULL where none may be, is a bug. */
export class Found {
  readonly #cells: Readonly<Record<string, string | null>>;

  constructor(cells: Readonly<Record<string, string | null>>) {
    this.#cells = cells;
  }

  /** A text that may be NULL. */
  maybe(name: string): string | null {
    const cell = this.#cells[name];
    if (cell === undefined) throw new Error(`a look has no column ${name}`);
    return cell;
  }

  text(name: string): string {
    const cell = this.maybe(name);
    if (cell === null) throw new Error(`a look found NULL for ${name}`);
    return cell;
  }

  number(name: string): number {
    return Number(this.text(name));
  }

  /** NULL is false. */
  flag(name: string): boolean {
    return this.maybe(name) === 't';
  }
}

/** One open transaction. */
export interface Tx {
  rows(text: string, values?: readonly unknown[]): Promise<Found[]>;
  /** The first row, which there must be. */
  row(text: string, values?: readonly unknown[]): Promise<Found>;
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

export const txOf = (client: pg.Client): Tx => {
  const rows: Tx['rows'] = async (text, values) =>
    (await client.query(text, values as unknown[])).rows.map((cells) => new Found(cells));
  return {
    rows,
    row: async (text, values) => {
      const [found] = await rows(text, values);
      if (!found) throw new Error(`a look found nothing: ${text}`);
      return found;
    },
    run: async (text) => {
      await client.query(text);
    },
  };
};

/** As {@link withTurn}, for who only looks: nothing is waited for. */
export const withLook = <T>(url: string, work: (look: <R>(task: (tx: Tx) => Promise<R>) => Promise<R>) => Promise<T>) =>
  withClient(url, (client) =>
    work(async (task) => {
      await client.query(
        `begin; set local search_path = pg_catalog; set local quote_all_identifiers = off; set local standard_conforming_strings = on;
         set local timezone = 'UTC'; set local lock_timeout = 5000`,
      );
      try {
        return await task(txOf(client));
      } finally {
        await client.query('rollback');
      }
    }),
  );
