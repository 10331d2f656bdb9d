/** Load: so many callers, each with its next call as soon as it has its answer, or calls at a given rate. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Call, Channel } from './channel.ts';

export interface Load {
  /** The calls, made in turn. */
  readonly calls: readonly Call[];
  /** Bytes of the body every answer has: one that differs ends the bench. */
  readonly bytes: number;
  readonly callers: number;
  readonly ms: number;
  /** Calls a second; absent: as many as the callers can. */
  readonly rate?: number;
}

/** Requests a second; latencies in ms. */
export interface Loaded {
  readonly count: number;
  readonly rps: number;
  readonly p50: number;
  readonly p99: number;
}

/** Callers that share a connection, as the calls of one client do. */
const CALLERS_A_CONNECTION = 16;

/** The share `q` of sorted values lies at or below it. */
export const quantile = (sorted: ArrayLike<number>, q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;

/** Puts load on the server at `address`. */
export const drive = async (address: string, { calls, bytes, callers, ms, rate }: Load): Promise<Loaded> => {
  const channels = await Promise.all(
    Array.from({ length: Math.ceil(callers / CALLERS_A_CONNECTION) }, () => Channel.open(address)),
  );
  const latencies: number[] = [];
  const began = performance.now();
  const ends = began + ms;
  let made = 0;
  /** @param dueAt when it was to be made: it may have waited for one of the callers. */
  const once = (channel: Channel, then: (error?: Error) => void, dueAt = performance.now()): void => {
    const call = calls[made % calls.length]!;
    made += 1;
    channel.start(call, (error, answer) => {
      latencies.push(performance.now() - dueAt);
      if (error) then(new Error(`${call.path}: ${error.message}`));
      else if (answer.bytes !== bytes) then(new Error(`${call.path}: ${answer.bytes} bytes, and not ${bytes}`));
      else then();
    });
  };
  const busy = (channel: Channel): Promise<void> =>
    new Promise((resolve, reject) => {
      const next = (error?: Error): void => {
        if (error) reject(error);
        else if (performance.now() < ends) once(channel, next);
        else resolve();
      };
      next();
    });
  // What is late is sent as soon as a caller is free, so that a slow server meets a queue and not a slower load.
  const paced = async (perSecond: number): Promise<void> => {
    let open = 0;
    let failed: Error | undefined;
    const done = (error?: Error): void => {
      open -= 1;
      failed ??= error;
    };
    for (let sent = 0; !failed && performance.now() < ends; await sleep(1)) {
      const due = ((performance.now() - began) / 1_000) * perSecond;
      for (; sent < due && open < callers; sent += 1) {
        open += 1;
        once(channels[sent % channels.length]!, done, began + (sent / perSecond) * 1_000);
      }
    }
    while (!failed && open > 0) await sleep(1);
    if (failed) throw failed;
  };
  try {
    if (rate) await paced(rate);
    else await Promise.all(Array.from({ length: callers }, (_, caller) => busy(channels[caller % channels.length]!)));
  } finally {
    for (const channel of channels) channel.close();
  }
  const seconds = (performance.now() - began) / 1_000;
  const sorted = Float64Array.from(latencies).sort();
  return {
    count: sorted.length,
    rps: sorted.length / seconds,
    p50: quantile(sorted, 0.5),
    p99: quantile(sorted, 0.99),
  };
};
