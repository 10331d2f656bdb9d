import { createHash } from 'node:crypto';
import { type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import { tellDocuments } from '../contract/document-texts.ts';
import { type FieldViolation, invalidArgument, type RpcError, refuse } from '../contract/errors.ts';
import { rewritten } from '../contract/rewrite.ts';
import { canonicalUuid, uuid } from '../contract/rules.ts';
import { readMark } from '../database/mark.ts';
import type { Wanted } from '../database/replicas.ts';

/** Value of the `transaction` header that makes a call its own transaction. */
export const SINGLE_USE = 'single-use';

/** INVALID_ARGUMENT about a request header. */
export const headerError = (header: string, description: string): RpcError =>
  invalidArgument([{ field: `header ${header}`, description }]);

/** Headers that decide as whom, where and until when a call runs. */
export const DECISIVE: ReadonlySet<string> = new Set([
  'authorization',
  'transaction',
  'transaction-sequence',
  'idempotency-key',
  'consistency',
  'documents',
  'grpc-timeout',
  'connect-timeout-ms',
]);

/** Headers of a call that this service looks at. */
export interface Headers {
  /** Value of a header that was sent. */
  readonly header: (name: string) => string | undefined;
  /** Names and values of all headers in turn, as they were sent. */
  readonly sent: readonly string[];
}

/** The W3C trace context that a call came with, as it was sent. */
export interface TraceHeaders {
  readonly traceparent: string;
  readonly tracestate: string | undefined;
}

/** Headers of a call, and those of them that were sent and cannot be read. */
export interface ReadHeaders extends Headers {
  readonly unreadable: readonly FieldViolation[];
  /** Why not even the caller is looked for. */
  readonly problem: RpcError | undefined;
  /** Undefined where none came. One that cannot be read is no reason to refuse a call. */
  readonly trace: TraceHeaders | undefined;
}

/** What the names and values of a call's headers may have together, bytes: more than any honest caller sends. */
const HEADER_BYTES = 16_384;

/** ASCII without blanks at its ends: what every client, proxy and library on the way leaves as it is. */
const VISIBLE = /^[!-~](?:[ -~]*[!-~])?$/;
const GRPC_TIMEOUT = /^\d{1,8}[HMSmun]$/;
const CONNECT_TIMEOUT = /^\d{1,10}$/;

const LEVELS: ReadonlySet<string> = new Set(['strong', 'eventual']);

const headerProblem = (name: string, values: ReadonlySet<string>): string | undefined => {
  if (values.size > 1) return 'has several values';
  const [value = ''] = values;
  // An empty token is a wrong one.
  if (name === 'authorization' && value === '') return undefined;
  if (!VISIBLE.test(value)) return 'must be visible ASCII without blanks at its ends';
  if (name === 'grpc-timeout' && !GRPC_TIMEOUT.test(value)) return 'must be up to 8 digits and one of H, M, S, m, u, n';
  if (name === 'consistency' && !LEVELS.has(value) && !readMark(value)) {
    return 'must be `strong`, `eventual` or a consistency token';
  }
  if (name === 'documents' && !DOCUMENT_FORMS.has(value)) return 'must be `values` or `text`';
  if (name === 'connect-timeout-ms' && !CONNECT_TIMEOUT.test(value)) return 'must be up to 10 digits';
  return undefined;
};

/** Of a call without any. */
const NONE: Headers['header'] = () => undefined;

/**
 * Reads the headers of a call as they were sent, before any library has dropped or joined some.
 *
 * @param raw names and values in turn, as Node has them.
 */
export const readHeaders = (raw: readonly string[]): ReadHeaders => {
  let sent: Map<string, Set<string>> | undefined;
  let bytes = 0;
  let traceparent: string | undefined;
  let tracestate: string | undefined;
  for (let at = 0; at < raw.length; at += 2) {
    bytes += raw[at]!.length + raw[at + 1]!.length;
    const name = raw[at]!.toLowerCase();
    if (name === 'traceparent') traceparent = raw[at + 1]!;
    else if (name === 'tracestate') tracestate = raw[at + 1]!;
    if (!DECISIVE.has(name)) continue;
    sent ??= new Map();
    const values = sent.get(name);
    if (values) values.add(raw[at + 1]!);
    else sent.set(name, new Set([raw[at + 1]!]));
  }
  const trace = traceparent === undefined ? undefined : { traceparent, tracestate };
  // Most calls send none of them.
  if (!sent && bytes <= HEADER_BYTES) return { header: NONE, sent: raw, unreadable: [], problem: undefined, trace };
  const unreadable: FieldViolation[] = [];
  const read = new Map<string, string>();
  for (const [name, values] of sent ?? []) {
    const description = headerProblem(name, values);
    if (description === undefined) read.set(name, [...values][0]!);
    else unreadable.push({ field: `header ${name}`, description });
  }
  const broken = unreadable.filter(({ field }) => field === 'header authorization');
  const problem =
    bytes > HEADER_BYTES
      ? refuse('HEADERS_TOO_LARGE', `the headers of a call may have ${HEADER_BYTES} bytes`)
      : broken.length > 0
        ? invalidArgument(broken)
        : undefined;
  return { header: (name) => read.get(name), sent: raw, unreadable, problem, trace };
};

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** How long the caller of a gRPC call waits for its answer, milliseconds; undefined: until it comes. */
export const grpcTimeoutMs = ({ header }: Headers): number | undefined => {
  const timeout = header('grpc-timeout');
  return timeout === undefined ? undefined : Number(timeout.slice(0, -1)) * UNIT_MS[timeout.slice(-1)]!;
};

/** The longest delay that a Node timer keeps, in whole seconds: a deadline beyond it is as good as this one. */
const LONGEST_S = 2_147_483;

/**
 * Gives the libraries the headers as they were read: one value each, and deadlines that their timers keep.
 *
 * @param headers as Node has parsed them; changed in place.
 */
export const settleHeaders = (headers: Record<string, unknown>, read: Headers): void => {
  const { header } = read;
  if (header === NONE) return;
  for (const name of DECISIVE) {
    const value = header(name);
    if (value !== undefined && name in headers) headers[name] = value;
  }
  const grpc = grpcTimeoutMs(read);
  if (grpc !== undefined && grpc > LONGEST_S * 1_000) headers['grpc-timeout'] = `${LONGEST_S}S`;
  const connect = header('connect-timeout-ms');
  if (connect && Number(connect) > LONGEST_S * 1_000) headers['connect-timeout-ms'] = `${LONGEST_S}000`;
};

/** Value of the header `documents` that makes them their JSON text. */
const TEXTS = 'text';
const DOCUMENT_FORMS: ReadonlySet<string> = new Set(['values', TEXTS]);

/** Whether a call's documents are their JSON text, in its request and in its answer. */
export const takesTexts = ({ header }: Headers): boolean => header('documents') === TEXTS;

/** What a read outside transactions has to see, where it need not be asked of the primary; undefined: everything. */
export const wantedOf = ({ header }: Headers): Wanted | undefined => {
  const consistency = header('consistency');
  if (consistency === undefined || consistency === 'strong') return undefined;
  return consistency === 'eventual' ? consistency : readMark(consistency);
};

/** `idempotency-key` of a call, a UUID in canonical form, if it has one; quotes around it are those of a structured field. */
export const idempotencyKeyOf = ({ header }: Headers): string | undefined => {
  const key = header('idempotency-key')?.replace(/^"(.*)"$/, '$1');
  if (key === undefined) return undefined;
  if (uuid(key)) throw headerError('idempotency-key', 'must be a UUID');
  return canonicalUuid(key);
};

/** What a `transaction-sequence` is refused with where it means nothing. */
export const outsideError = (): RpcError =>
  headerError('transaction-sequence', 'goes only with a call that is no stream, inside an open transaction');

/** `transaction-sequence` of a call, if it has one. */
export const sequenceOf = ({ header }: Headers): bigint | undefined => {
  const sequence = header('transaction-sequence');
  if (sequence === undefined) return undefined;
  if (!/^\d{1,18}$/.test(sequence)) throw headerError('transaction-sequence', 'must be a whole number');
  return BigInt(sequence);
};

type Unknown = NonNullable<Message['$unknown']>[number];

const byContent = (a: Unknown, b: Unknown): number => a.no - b.no || Buffer.compare(a.data, b.data);

/** The same message with the entries of every map, and the fields this version does not know, in one order. */
const ordered = (desc: DescMessage, message: Message): Message => {
  const copy = rewritten(desc, message, ordered);
  if (message.$unknown) copy.$unknown = [...message.$unknown].sort(byContent);
  for (const { fieldKind, localName } of desc.fields) {
    if (fieldKind !== 'map') continue;
    const maps = copy as unknown as Record<string, object>;
    const entries = Object.entries(maps[localName]!).sort(([a], [b]) => (a < b ? -1 : 1));
    maps[localName] = Object.fromEntries(entries);
  }
  return copy;
};

/**
 * SHA-256 (hex) that tells requests apart: the RPC and the message. The order in which the entries of maps arrived, and
 * fields that this version does not know, is no part of it: some clients choose it at random.
 */
export const digest = (path: string, desc: DescMessage, message: Message, headers: Headers): string => {
  const texts = takesTexts(headers);
  return createHash('sha256')
    .update(texts ? `${path} documents: ${TEXTS}` : path)
    .update(toBinary(desc, ordered(desc, texts ? tellDocuments(desc, message) : message)))
    .digest('hex');
};
