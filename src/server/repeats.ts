import { type DescMessage, fromBinary, type Message, type MessageShape } from '@bufbuild/protobuf';
import type { Database } from '../database/pool.ts';
import type { CallScope, Session } from '../database/session.ts';
import type { TransactionMode } from '../database/transaction-mode.ts';
import { type OnceRequest, runOnce } from '../transactions/once.ts';
import { inOwn } from '../transactions/single-use.ts';
import type { Transaction } from '../transactions/transaction.ts';
import { digest, type Headers } from './headers.ts';
import { replyBytes } from './reply.ts';

/** An RPC whose requests may come again. */
interface Repeatable<O extends DescMessage> {
  /** `Service/Method`. */
  readonly name: string;
  /** What it is in digests. */
  readonly path: string;
  readonly method: { readonly input: DescMessage; readonly output: O };
}

/** A request that came with a key, and the type of its answer. */
interface Keyed<O extends DescMessage> extends OnceRequest {
  readonly output: O;
}

type Run<O extends DescMessage, A extends readonly unknown[]> = (...args: A) => Promise<MessageShape<O> | Buffer>;

/** A request as it is told from others that come with its key, a canonical UUID. */
export const keyed = <O extends DescMessage>(
  { name, path, method: { input, output } }: Repeatable<O>,
  request: Message,
  call: Headers & { readonly caller: string },
  idempotencyKey: string,
): Keyed<O> => ({
  caller: call.caller,
  idempotencyKey,
  method: name,
  hash: digest(path, input, request, call),
  output,
});

/**
 * Runs a call of an open transaction, or answers as it was answered when it came under that number before.
 *
 * @throws SEQUENCE_REUSED, SEQUENCE_FORGOTTEN.
 */
export const onceInTransaction = async <O extends DescMessage>(
  transaction: Transaction,
  sequence: bigint,
  { path, method: { input, output } }: Repeatable<O>,
  request: Message,
  headers: Headers,
  run: Run<O, []>,
): Promise<MessageShape<O>> => {
  const hash = digest(path, input, request, headers);
  return fromBinary(output, await transaction.once(sequence, hash, async () => replyBytes(output, await run())));
};

/**
 * Runs a call in a transaction of its own, or answers as it was answered when it came with that key before.
 *
 * @throws FAILED_PRECONDITION `IDEMPOTENCY_KEY_REUSED` when the key belongs to another request; COMMIT_OUTCOME_UNKNOWN.
 */
export const onceInOwn = async <O extends DescMessage>(
  database: Database,
  mode: TransactionMode,
  call: CallScope,
  once: Keyed<O>,
  run: Run<O, [db: Session]>,
): Promise<MessageShape<O>> => {
  const { output } = once;
  const first = (db: Session): Promise<Uint8Array> => runOnce(db, once, async () => replyBytes(output, await run(db)));
  return fromBinary(output, await inOwn(database, mode, call, first));
};
