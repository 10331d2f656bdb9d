import type { Gate, Leave } from './gate.ts';
import type { Signal } from './signal.ts';

/** What lets in those who may have only so many of the connections. */
export type Share = Pick<Gate, 'enter' | 'tryEnter'>;

/** A place in a share that is kept while work is done again on another connection: nobody who came later gets in between. */
export class KeptPlace implements Share {
  readonly #share: Share;
  #leave: Leave | undefined;
  #isKept = true;

  constructor(share: Share) {
    this.#share = share;
  }

  async enter(signal: Signal | undefined): Promise<Leave> {
    this.#leave ??= await this.#share.enter(signal);
    return this.#given;
  }

  tryEnter(): Leave | undefined {
    this.#leave ??= this.#share.tryEnter();
    return this.#leave && this.#given;
  }

  /** A connection goes back, and with it the place, unless it is kept. */
  readonly #given: Leave = () => {
    if (!this.#isKept) this.leave();
  };

  /** The place goes back with the connection. */
  letGo(): void {
    this.#isKept = false;
  }

  /** Gives the place back. */
  leave(): void {
    this.#leave?.();
  }
}
