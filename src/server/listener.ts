import type { BindOptions } from './bind.ts';
import type { ByteBudget } from './budget.ts';
import type { ConnectionLimits } from './connections.ts';
import type { Certificates } from './tls.ts';

/** Options of a listener. */
export interface ListenerOptions extends Pick<BindOptions, 'listen' | 'socketMode'> {
  readonly maxMessageBytes: number;
  /** What requests under way hold, on all listeners together. */
  readonly budget: ByteBudget;
  readonly limits: ConnectionLimits;
  /** Calls under way on one connection. */
  readonly streams: number;
  /** What a listener on a `host:port` speaks TLS with; undefined: it does not. */
  readonly certificates: Certificates | undefined;
}

/** A listener that is up. */
export interface Listener {
  /** Where it can be reached. */
  readonly address: string;
  /** Connections that are open. */
  readonly open: number;
  /** Stops accepting; waits for the calls under way at most that long, then cuts them off. */
  close(timeoutMs: number): Promise<void>;
}
