import { refuse } from '../contract/errors.ts';
import type { Session } from '../database/session.ts';
import { count, firstFlag, statement } from '../database/statement.ts';
import { columnList, columnsOf, table } from '../database/table.ts';
import { StoredRequest } from '../entities/stored-request.ts';

/** What was answered first, and to which request. */
interface FirstAnswer {
  readonly hash: string;
  readonly response: Uint8Array;
}

const bytes = (hex: string): Buffer => Buffer.from(hex.slice(2), 'hex');

const requests = table(StoredRequest);
const of = columnsOf(StoredRequest);
const UNDER_KEY = `${of('caller')} = $1 and ${of('request_id')} = $2`;

const lockKey = `hashtextextended($1::text || ' ' || $2::text, 0)`;

const lock = statement('requests.lock', `select pg_advisory_xact_lock(${lockKey})`);

const tryLock = statement('requests.try_lock', `select pg_try_advisory_xact_lock(${lockKey})`, firstFlag);

const find = statement(
  'requests.find',
  `select ${of('request_hash')}, ${of('response')} from ${requests} where ${UNDER_KEY}`,
  (row): FirstAnswer => ({ hash: bytes(row[0]!).toString('hex'), response: bytes(row[1]!) }),
);

const store = statement(
  'requests.store',
  `insert into ${requests} (${columnList(StoredRequest, ['caller', 'request_id', 'method', 'request_hash', 'response', 'transaction_xid'])})
   values ($1, $2, $3, $4, $5, pg_current_xact_id())`,
);

const exists = statement('requests.exists', `select count(*) from ${requests} where ${UNDER_KEY}`, count);

/** A write that is to take effect once however often it is sent. */
export interface OnceRequest {
  readonly caller: string;
  /** Canonical UUID. */
  readonly idempotencyKey: string;
  readonly method: string;
  /** SHA-256 of the request, hex. */
  readonly hash: string;
}

/**
 * The answer that was stored under a key; undefined where none was, as far as `db` sees.
 *
 * @throws FAILED_PRECONDITION `IDEMPOTENCY_KEY_REUSED` when the key belongs to another request.
 */
export const firstAnswer = async (
  db: Session,
  { caller, idempotencyKey, hash }: Omit<OnceRequest, 'method'>,
): Promise<Uint8Array | undefined> => {
  const stored = await db.row(find, [caller, idempotencyKey]);
  if (!stored || stored.hash === hash) return stored?.response;
  throw refuse('IDEMPOTENCY_KEY_REUSED', 'this idempotency key has been used for another request', {
    metadata: { idempotency_key: idempotencyKey },
  });
};

/**
 * Runs work at most once per caller and idempotency key, inside the transaction that `db` is in: the answer is stored beside
 * what the work writes. Requests that arrive together wait for each other.
 *
 * @throws FAILED_PRECONDITION `IDEMPOTENCY_KEY_REUSED` when the key belongs to another request.
 */
export const runOnce = async (
  db: Session,
  { caller, idempotencyKey, method, hash }: OnceRequest,
  work: () => Promise<Uint8Array>,
): Promise<Uint8Array> => {
  await db.rows(lock, [caller, idempotencyKey]);
  const stored = await firstAnswer(db, { caller, idempotencyKey, hash });
  if (stored) return stored;
  const response = await work();
  await db.execute(store, [caller, idempotencyKey, method, Buffer.from(hash, 'hex'), Buffer.from(response)]);
  return response;
};

/**
 * Outcome of an idempotency key: true when its transaction committed, false when it did not (or was never sent), undefined
 * while one is at work. The lock of {@link runOnce} outlives the sidecar that took it, not the transaction.
 */
export const requestOutcome = async (
  db: Session,
  caller: string,
  idempotencyKey: string,
): Promise<boolean | undefined> => {
  if ((await db.row(exists, [caller, idempotencyKey])) === 1n) return true;
  if (!(await db.row(tryLock, [caller, idempotencyKey]))) return undefined;
  // Whoever held the lock until now had committed before it was free.
  return (await db.row(exists, [caller, idempotencyKey])) === 1n;
};

/** Deletes answers older than that many seconds. */
export const pruneRequests = statement(
  'requests.prune',
  `delete from ${requests} where ${of('created_at')} < now() - make_interval(secs => $1)`,
);
