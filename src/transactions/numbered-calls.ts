import { refuse } from '../contract/errors.ts';

/** How many answers of one transaction are kept, and how many bytes of them. */
const ANSWERS = 1_024;
const BYTES = 8 * 1024 * 1024;

interface Remembered {
  readonly digest: string;
  readonly answer: Promise<Uint8Array>;
  bytes: number;
}

/** The calls of one transaction that have numbers, and what was answered to the last of them. */
export class NumberedCalls {
  readonly #calls = new Map<bigint, Remembered>();
  #bytes = 0;
  #forgotten = 0n;

  /**
   * Runs a call once: a retry with the same number and the same request gets the first answer.
   *
   * @param digest identifies method and request.
   * @param ranNothing whether a failure means that the call has done nothing, so that its number may be used again.
   * @throws SEQUENCE_REUSED, SEQUENCE_FORGOTTEN.
   */
  once(
    sequence: bigint,
    digest: string,
    work: () => Promise<Uint8Array>,
    ranNothing: (error: unknown) => boolean,
  ): Promise<Uint8Array> {
    const known = this.#calls.get(sequence);
    if (known) {
      if (known.digest === digest) return known.answer;
      throw refuse('SEQUENCE_REUSED', `sequence number ${sequence} of this transaction belongs to another request`);
    }
    if (sequence <= this.#forgotten) {
      throw refuse('SEQUENCE_FORGOTTEN', `the answer to sequence number ${sequence} is no longer kept`);
    }
    const remembered: Remembered = { digest, answer: work(), bytes: 0 };
    this.#calls.set(sequence, remembered);
    remembered.answer.then(
      (answer) => {
        remembered.bytes = answer.length;
        this.#bytes += answer.length;
        this.#trim();
      },
      (error: unknown) => {
        if (ranNothing(error)) this.#calls.delete(sequence);
      },
    );
    return remembered.answer;
  }

  #trim(): void {
    for (const [sequence, { bytes }] of this.#calls) {
      if (this.#calls.size <= ANSWERS && this.#bytes <= BYTES) return;
      this.#calls.delete(sequence);
      this.#bytes -= bytes;
      if (sequence > this.#forgotten) this.#forgotten = sequence;
    }
  }

  /** Forgets all of them. */
  clear(): void {
    this.#calls.clear();
  }
}
