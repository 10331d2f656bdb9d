/** Sides measured in turn, so that what disturbs the machine disturbs all of them. */

/** One side in one round. */
export interface Measured {
  /** What is compared: requests, or runs, a second. */
  readonly rps: number;
  /** Milliseconds. */
  readonly p50?: number;
  readonly p99?: number;
  /** CPU time of the server, µs a request. */
  readonly cpuUs?: number | undefined;
}

export type Side = () => Promise<Measured>;

/** A side over all rounds: medians, and the half of what lies between its extremes as a share of the median. */
export interface Summary {
  readonly rps: number;
  readonly spread: number;
  readonly p50: number;
  readonly p99: number;
  readonly cpuUs: number;
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
};

/** How often sides are measured, and how long each is warmed up before that, milliseconds. */
export interface Pace {
  readonly rounds: number;
  readonly warmMs: number;
}

export class Rounds {
  readonly #found: ReadonlyMap<string, readonly Measured[]>;

  private constructor(found: ReadonlyMap<string, readonly Measured[]>) {
    this.#found = found;
  }

  /** Warms every side up, and then runs it so many times, every other round backwards. */
  static async of(sides: ReadonlyMap<string, Side>, { rounds, warmMs }: Pace): Promise<Rounds> {
    const found = new Map<string, Measured[]>([...sides.keys()].map((name) => [name, []]));
    for (const side of sides.values()) {
      const warm = performance.now() + warmMs;
      do await side();
      while (performance.now() < warm);
    }
    const order = [...sides];
    for (let round = 0; round < rounds; round += 1) {
      for (const [name, side] of order) found.get(name)!.push(await side());
      order.reverse();
    }
    return new Rounds(found);
  }

  /**
   * The same with one side more: what would come of two, one after the other, where both take all that the machine has.
   * Unchanged where one of them is not there.
   */
  inSeries(name: string, one: string, other: string): Rounds {
    const first = this.#found.get(one);
    const second = this.#found.get(other);
    if (!first || !second) return this;
    const both: readonly Measured[] = first.map(({ rps }, round) => ({ rps: 1 / (1 / rps + 1 / second[round]!.rps) }));
    return new Rounds(new Map([...this.#found, [name, both]]));
  }

  get names(): string[] {
    return [...this.#found.keys()];
  }

  summary(name: string): Summary | undefined {
    const all = this.#found.get(name);
    if (!all) return undefined;
    const rates = all.map(({ rps }) => rps);
    const over = (key: 'p50' | 'p99' | 'cpuUs'): number => median(all.map((each) => each[key] ?? Number.NaN));
    const rps = median(rates);
    return {
      rps,
      spread: (Math.max(...rates) - Math.min(...rates)) / 2 / rps,
      p50: over('p50'),
      p99: over('p99'),
      cpuUs: over('cpuUs'),
    };
  }

  /** How many times the rate of `reference` the rate of `name` is: the median of the rounds. Undefined: one was not there. */
  ratio(name: string, reference: string): number | undefined {
    const ours = this.#found.get(name);
    const theirs = this.#found.get(reference);
    return ours && theirs && median(ours.map(({ rps }, round) => rps / theirs[round]!.rps));
  }

  /** What one side takes longer than the other at the median, ms: the median of the rounds. */
  added(name: string, reference: string): number {
    const theirs = this.#found.get(reference)!;
    return median(this.#found.get(name)!.map(({ p50 }, round) => p50! - theirs[round]!.p50!));
  }
}
