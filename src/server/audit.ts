import { type DescMessage, fromBinary, type Message, ScalarType, toJson } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { codeName, type RpcError } from '../contract/errors.ts';
import {
  type ExecuteRequest,
  type ExecuteResponse,
  TransactionService,
} from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import type { AuditPlace } from '../setting-forms.ts';
import type { TransactionState } from '../transactions/ended.ts';
import type { Transaction } from '../transactions/transaction.ts';
import { AuditFile } from './audit-file.ts';
import { shownId } from './call-log.ts';
import type { Endpoint } from './endpoint.ts';
import { type Headers, SINGLE_USE } from './headers.ts';

/** What the audit is told of a call that has ended. */
export interface AuditedCall extends Headers {
  readonly endpoint: Endpoint;
  readonly caller: string;
  /** Absent where the call was refused before its request was read. */
  readonly request?: Message | undefined;
  /** A message, or the bytes of one. */
  readonly response?: Message | Buffer | undefined;
  /** Rows that its statements affected or returned; absent where none ran. */
  readonly rows?: bigint | undefined;
}

/** Keeps account of who wrote what, and of what became of it. */
export interface Audit {
  /** A call has ended. */
  call(call: AuditedCall, failure: RpcError | undefined): void;
  /** An open transaction has ended. */
  ended(transaction: Transaction, state: TransactionState, how: string): void;
  /** A prepared transaction was rolled back, since nobody had ended it. */
  overdue(id: string, how: string): void;
  /** Waits for what is left to be written, that many milliseconds at most. */
  close(timeoutMs: number): Promise<void>;
}

/** Nobody asked for one. */
export const noAudit: Audit = { call: () => {}, ended: () => {}, overdue: () => {}, close: async () => {} };

const SAVEPOINTS = new Map<unknown, string>([
  [TransactionService.method.savepoint, 'set'],
  [TransactionService.method.rollbackToSavepoint, 'rolled back to'],
  [TransactionService.method.releaseSavepoint, 'released'],
]);

const PREPARED_ENDS = new Map<unknown, TransactionState>([
  [TransactionService.method.commitPrepared, 'committed'],
  [TransactionService.method.rollbackPrepared, 'rolled back'],
]);

const KEY_CHARACTERS = 128;
const KEYS_OF_A_LIST = 20;

const shown = (key: unknown): unknown =>
  typeof key === 'string' ? key.slice(0, KEY_CHARACTERS) : typeof key === 'bigint' ? String(key) : key;

/** The fields of a message that are ids, by name; those of a message within it by their path. */
const keysOf = (desc: DescMessage, message: Message, path = ''): Record<string, unknown> => {
  const keys: Record<string, unknown> = {};
  for (const field of desc.fields) {
    const value = (message as unknown as Record<string, unknown>)[field.localName];
    const name = path + field.name;
    if (value === undefined) continue;
    if (field.fieldKind === 'message' && path === '') {
      Object.assign(keys, keysOf(field.message, value as Message, `${name}.`));
    } else if (field.fieldKind === 'scalar' && /(?:^|_)id$/.test(field.name) && field.scalar !== ScalarType.BYTES) {
      if (value !== '') keys[name] = shown(value);
    } else if (field.fieldKind === 'list' && field.listKind === 'scalar' && /(?:^|_)ids$/.test(field.name)) {
      const ids = value as unknown[];
      if (ids.length > 0) keys[name] = ids.slice(0, KEYS_OF_A_LIST).map(shown);
    }
  }
  return keys;
};

/** The ids that an answer brings. */
const madeOf = ({ method }: Endpoint, response: Message | Buffer | undefined): object => {
  const message = Buffer.isBuffer(response) ? fromBinary(method.output, response) : response;
  const made = message ? keysOf(method.output, message) : {};
  return Object.keys(made).length === 0 ? {} : { made };
};

const payloadOf = (desc: DescMessage, message: Message): unknown => {
  try {
    return toJson(desc, message);
  } catch {
    return 'has no JSON form';
  }
};

const failed = ({ code, reason }: RpcError): object => ({
  outcome: reason === 'COMMIT_OUTCOME_UNKNOWN' ? 'unknown' : 'failed',
  code: codeName(code),
  reason,
});

/** Where the lines go. */
interface Sink {
  write(line: object): void;
  close(timeoutMs: number): Promise<void>;
}

/** What a write is that was done, as far as its call knows. */
const doneAs = ({ header }: AuditedCall): 'pending' | 'committed' => {
  const transaction = header('transaction');
  return transaction === undefined || transaction === SINGLE_USE ? 'committed' : 'pending';
};

class Lines implements Audit {
  readonly #sink: Sink;
  readonly #payloads: boolean;
  readonly #byInput: ReadonlyMap<string, Endpoint>;

  constructor(sink: Sink, payloads: boolean, endpoints: readonly Endpoint[]) {
    this.#sink = sink;
    this.#payloads = payloads;
    this.#byInput = new Map(endpoints.map((endpoint) => [endpoint.method.input.typeName, endpoint]));
  }

  call(call: AuditedCall, failure: RpcError | undefined): void {
    const { endpoint, request, header, response, rows } = call;
    if (endpoint.kind === 'write') {
      const done = rows === undefined ? 'repeated' : doneAs(call);
      this.#write(call, endpoint, request, {
        ...(rows === undefined || failure ? {} : { rows: Number(rows) }),
        ...madeOf(endpoint, response),
        ...(failure ? failed(failure) : { outcome: done }),
      });
    } else if (endpoint.method === TransactionService.method.execute) {
      if (request) this.#operations(call, request as ExecuteRequest, failure);
    } else if (request && !failure && endpoint.kind === 'control') {
      const savepoint = SAVEPOINTS.get(endpoint.method);
      const end = PREPARED_ENDS.get(endpoint.method);
      if (savepoint === undefined && end === undefined) return;
      const { name, transactionId } = request as unknown as { name: string; transactionId: string };
      const ofTransaction = { caller: call.caller, transaction: shownId((transactionId || header('transaction'))!) };
      this.#sink.write(
        savepoint === undefined
          ? { audit: 'transaction', ...ofTransaction, outcome: end, how: endpoint.method.name }
          : { audit: 'savepoint', ...ofTransaction, savepoint: name, outcome: savepoint },
      );
    }
  }

  ended({ id, caller, label, mode, calls }: Transaction, state: TransactionState, how: string): void {
    if (mode.readOnly) return;
    this.#sink.write({
      audit: 'transaction',
      caller,
      transaction: shownId(id),
      label,
      calls,
      outcome: state,
      how,
    });
  }

  overdue(id: string, how: string): void {
    this.#sink.write({ audit: 'transaction', transaction: shownId(id), outcome: 'rolled back', how });
  }

  close(timeoutMs: number): Promise<void> {
    return this.#sink.close(timeoutMs);
  }

  #operations(call: AuditedCall, { operations }: ExecuteRequest, failure: RpcError | undefined): void {
    const results = (call.response as ExecuteResponse | undefined)?.results;
    for (const [index, { request }] of operations.entries()) {
      const endpoint = request.value && this.#byInput.get(request.value.$typeName);
      if (endpoint?.kind !== 'write') continue;
      const { rows, response } = results?.[index] ?? {};
      this.#write(call, endpoint, request.value, {
        operation: index,
        ...(rows === undefined ? {} : { rows: Number(rows) }),
        ...madeOf(endpoint, response?.value),
        ...(failure ? failed(failure) : { outcome: doneAs(call) }),
      });
    }
  }

  #write({ caller, header }: AuditedCall, endpoint: Endpoint, request: Message | undefined, what: object): void {
    const transaction = header('transaction');
    const key = transaction === undefined || transaction === SINGLE_USE ? header('idempotency-key') : undefined;
    const { input } = endpoint.method;
    this.#sink.write({
      audit: 'write',
      caller,
      method: endpoint.name,
      ...(transaction === undefined ? {} : { transaction: shownId(transaction) }),
      ...(key === undefined ? {} : { idempotency_key: key }),
      ...(request ? { keys: keysOf(input, request) } : {}),
      ...what,
      ...(request && this.#payloads ? { request: payloadOf(input, request) } : {}),
    });
  }
}

const sinkOf = async (place: AuditPlace, log: Logger): Promise<Sink> => {
  if (place === 'log') {
    // However quiet the log is: the audit was asked for.
    const lines = log.child({}, { level: 'info' });
    return { write: (line) => lines.info(line, 'audit'), close: async () => {} };
  }
  const file = await AuditFile.open(place.file, log);
  return {
    write: (line) => file.write(JSON.stringify({ time: new Date(), ...line })),
    close: (timeoutMs) => file.close(timeoutMs),
  };
};

/**
 * The audit that is configured.
 *
 * @param endpoints the RPCs of the drivers.
 * @throws ConfigError when its file cannot be written.
 */
export const openAudit = async (
  { audit, auditPayloads }: Pick<Config, 'audit' | 'auditPayloads'>,
  endpoints: readonly Endpoint[],
  log: Logger,
): Promise<Audit> => (audit === undefined ? noAudit : new Lines(await sinkOf(audit, log), auditPayloads, endpoints));
