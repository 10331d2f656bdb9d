import type { EndCause } from './ended.ts';
import type { BeginOptions, TransactionLimits } from './registry.ts';

/** How long a transaction may last, and how long it may rest between its calls. */
export class Lease {
  /** Milliseconds. */
  readonly idleMs: number;
  /** Milliseconds. */
  readonly totalMs: number;
  readonly #firstUseMs: number;
  readonly #onEnd: (cause: EndCause, how: string) => void;
  readonly #total: NodeJS.Timeout;
  #idle: NodeJS.Timeout | undefined;
  #isUsed: boolean;

  /** When it has been used last, milliseconds since 1970. */
  usedAt = Date.now();

  /** @param onEnd told when it has ended, at the latest that it may. */
  constructor(
    { idleLeaseMs, totalLeaseMs, held }: BeginOptions,
    limits: TransactionLimits,
    onEnd: (cause: EndCause, how: string) => void,
  ) {
    this.totalMs = Math.min(totalLeaseMs ?? limits.totalLeaseMs, limits.totalLeaseMaxMs);
    this.idleMs =
      idleLeaseMs === 'none' ? this.totalMs : Math.min(idleLeaseMs ?? limits.idleLeaseMs, limits.idleLeaseMaxMs);
    this.#firstUseMs = limits.firstUseMs;
    this.#isUsed = held;
    this.#onEnd = onEnd;
    this.#total = setTimeout(() => onEnd('total_lease', `open for ${this.totalMs} ms`), this.totalMs);
    this.rest();
  }

  /** How long it may rest now, milliseconds: shorter until the first use, unless a stream holds the transaction. */
  get restMs(): number {
    return this.#isUsed ? this.idleMs : Math.min(this.idleMs, this.#firstUseMs);
  }

  /** Nobody uses it for now. */
  rest(): void {
    this.usedAt = Date.now();
    clearTimeout(this.#idle);
    const { restMs } = this;
    this.#idle = setTimeout(() => this.#onEnd('idle_lease', `idle for ${restMs} ms`), restMs);
  }

  /** Somebody uses it. */
  use(): void {
    this.#isUsed = true;
    clearTimeout(this.#idle);
  }

  /** It is needed no more. */
  end(): void {
    clearTimeout(this.#idle);
    clearTimeout(this.#total);
  }
}
