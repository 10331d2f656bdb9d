import type { SuggestionCache } from '../drivers/recovery-matcher/services.ts';

/** A cache that several processes share, and how to leave it. */
export interface SharedCache extends SuggestionCache {
  close(): void;
}

/** Longest wait for Redis, the first connection included: a cache that is slower than that is none. */
const WAIT_MS = 500;
const LONGEST_RECONNECT_MS = 5_000;

/** Pause before a Redis that has not answered in time is asked again. */
const REST_MS = 5_000;

/** The word that an answer of Redis begins with when it refuses something. */
const refusalIn = ({ message }: Error): string | undefined => /^[A-Z]{2,}(?= )/.exec(message)?.[0];

const problemOf = (error: unknown): string =>
  (error as NodeJS.ErrnoException).code ?? refusalIn(error as Error) ?? (error as Error).name;

/** What comes of work in time; undefined if it fails or takes too long, which is told. */
const inTime = async <T>(work: Promise<T>, waitMs: number, tell: () => void): Promise<T | undefined> => {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => {
      tell();
      resolve(undefined);
    }, waitMs);
  });
  try {
    return await Promise.race([work.catch(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
};

/**
 * A cache in Redis. Unreachable or slow, it holds nothing and keeps nothing. It is connected to in the background; when it
 * does not answer in time it is left alone for a while, and then connected to anew.
 *
 * @param url `redis://` or `rediss://`, with credentials where they are needed; never logged.
 * @param warn told once an outage, by error code, and once a connection of each word that it refuses something with.
 */
export const redisCache = (url: string, warn: (problem: string) => void, waitMs = WAIT_MS): SharedCache => {
  let down = false;
  const refusals = new Set<string>();
  const fails = (problem: string): void => {
    if (!down) warn(problem);
    down = true;
  };
  const refused = (error: unknown): never => {
    const refusal = refusalIn(error as Error);
    if (refusal && !refusals.has(refusal)) {
      refusals.add(refusal);
      warn(refusal);
    }
    throw error;
  };
  // Loaded and connected at the first use: a process without use for Redis starts without it.
  const connect = async () => {
    const { createClient } = await import('@redis/client');
    const client = createClient({
      url,
      RESP: 2,
      disableOfflineQueue: true,
      socket: {
        connectTimeout: LONGEST_RECONNECT_MS,
        reconnectStrategy: (retries) => Math.min(50 * 2 ** retries, LONGEST_RECONNECT_MS),
      },
    });
    client.on('ready', () => {
      down = false;
      refusals.clear();
    });
    client.on('error', (error: unknown) => fails(problemOf(error)));
    return { client, connected: client.connect() };
  };
  let started: ReturnType<typeof connect> | undefined;
  let closed = false;
  let restsUntil = 0;
  /** Leaves a connection, with all that is still waiting for an answer on it. */
  const leave = (): void => {
    started?.then(
      ({ client, connected }) => {
        connected.catch(() => {});
        if (client.isOpen) client.destroy();
      },
      () => {},
    );
    started = undefined;
  };
  const use = <T>(
    work: (client: Awaited<ReturnType<typeof connect>>['client']) => Promise<T>,
  ): Promise<T | undefined> => {
    if (closed || performance.now() < restsUntil) return Promise.resolve(undefined);
    started ??= connect();
    const used = started;
    let asked = false;
    const done = used.then(async ({ client, connected }) => {
      // During an outage nobody waits.
      if (!client.isReady && !down) await connected;
      if (!client.isReady) return undefined;
      asked = true;
      return work(client).catch(refused);
    });
    return inTime(done, waitMs, () => {
      if (started !== used) return;
      fails('ETIMEDOUT');
      if (!asked) return;
      restsUntil = performance.now() + REST_MS;
      leave();
    });
  };
  return {
    get: async (key) => (await use((client) => client.get(key))) ?? undefined,
    set: async (key, value, ttlSeconds) => {
      await use((client) => client.set(key, value, { expiration: { type: 'EX', value: ttlSeconds } }));
    },
    close: () => {
      closed = true;
      leave();
    },
  };
};
