import type { DescMethodUnary, MessageInitShape } from '@bufbuild/protobuf';
import { TransactionService } from './gen/hoc/cus/policies/v1/transaction_pb.ts';

type Call = <M extends DescMethodUnary>(method: M, request: MessageInitShape<M['input']>) => Promise<unknown>;

const { savepoint, rollbackToSavepoint, releaseSavepoint } = TransactionService.method;

/** A part of a transaction that can be undone by itself. */
export interface Savepoint extends AsyncDisposable {
  /** Keeps what was done since, as a part of the transaction. */
  release(): Promise<void>;
  /** Undoes what was done since; a transaction that a failed statement has aborted is usable again. */
  rollback(): Promise<void>;
}

/** A savepoint that is set. */
export class SavepointInUse implements Savepoint {
  readonly #name: string;
  readonly #call: Call;
  readonly #doom: (error: unknown) => void;
  #ended = false;

  private constructor(name: string, call: Call, doom: (error: unknown) => void) {
    this.#name = name;
    this.#call = call;
    this.#doom = doom;
  }

  /** @param doom told the error where what must be undone cannot be, so that it is never committed. */
  static async set(name: string, call: Call, doom: (error: unknown) => void): Promise<SavepointInUse> {
    await call(savepoint, { name });
    return new SavepointInUse(name, call, doom);
  }

  async release(): Promise<void> {
    await this.#call(releaseSavepoint, { name: this.#name });
    this.#ended = true;
  }

  async rollback(): Promise<void> {
    this.#ended = true;
    try {
      await this.#call(rollbackToSavepoint, { name: this.#name });
      await this.#call(releaseSavepoint, { name: this.#name });
    } catch (error) {
      this.#doom(error);
      throw error;
    }
  }

  /** Undoes what was done since unless it has been released. Where that fails, all of the transaction is undone. */
  async [Symbol.asyncDispose](): Promise<void> {
    // The error that led here must not be hidden; the transaction's next call says what happened.
    if (!this.#ended) await this.rollback().catch(() => {});
  }
}
