import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf';
import { type Code, type MetadataKey, meaningOf, type Reason } from './reasons.ts';

/** One offending field of a request. */
export interface FieldViolation {
  /** Path in proto names, `operations[2].limit`. */
  readonly field: string;
  /** What the field would have to be. */
  readonly description: string;
}

/** A precondition that did not hold. */
export interface PreconditionViolation {
  readonly type: string;
  readonly subject: string;
  readonly description: string;
}

/** A message that goes with an error, as both listeners can render it. */
export interface Detail<D extends DescMessage = DescMessage> {
  readonly desc: D;
  readonly value: MessageInitShape<D>;
}

interface Circumstances {
  readonly fields?: readonly FieldViolation[];
  readonly preconditions?: readonly PreconditionViolation[];
  /** What the log shows and the caller does not. */
  readonly cause?: unknown;
}

/** What goes with a reason: facts under the names that the catalogue has for it, and what is wrong with the request. */
export interface Details<R extends Reason> extends Circumstances {
  readonly metadata?: [MetadataKey<R>] extends [never] ? never : { readonly [K in MetadataKey<R>]?: string };
}

/**
 * What fits a refusal. gRPC clients turn an answer into RESOURCE_EXHAUSTED when its trailers exceed 8 KiB,
 * and a status carries its text twice, percent-encoded and in base64, beside its details.
 */
const MESSAGE_BYTES = 600;
const FIELDS_BYTES = 3_000;
const PATH_BYTES = 200;
/** What a field costs beside its path and description. */
const FIELD_OVERHEAD = 8;

const clip = (text: string, bytes: number): string => {
  const encoded = Buffer.from(text);
  if (encoded.length <= bytes) return text;
  const kept = encoded.subarray(0, bytes).toString();
  return `${kept.replace(/\uFFFD$/, '')}…`;
};

/** A failed call as the caller sees it; both listeners render it with `google.rpc` details. {@link refuse} makes one. */
export class RpcError extends Error {
  readonly code: Code;
  readonly reason: Reason;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;
  readonly fields: readonly FieldViolation[];
  readonly preconditions: readonly PreconditionViolation[];
  /** What a service of another contract sends in place of what the reason and the rest of this say; undefined: that. */
  readonly details: readonly Detail[] | undefined = undefined;

  constructor(
    reason: Reason,
    message: string,
    details: Circumstances & { readonly metadata?: Readonly<Record<string, string>> } = {},
  ) {
    super(clip(message, MESSAGE_BYTES), { cause: details.cause });
    this.code = meaningOf(reason).code;
    this.reason = reason;
    this.metadata = details.metadata ?? {};
    this.retryAfterMs = meaningOf(reason).retryAfterMs;
    this.fields = details.fields ?? [];
    this.preconditions = details.preconditions ?? [];
  }
}

/** The refusal of a call: code and retry follow from the reason. */
export const refuse = <R extends Reason>(reason: R, message: string, details: Details<R> = {}): RpcError =>
  new RpcError(reason, message, details as Circumstances);

/** The same refusal, of one operation of a list: its place is in the text, and in the metadata as `operation`. */
export const ofOperation = (error: RpcError, index: number): RpcError => {
  const { reason, message, metadata, fields, preconditions, cause } = error;
  const placed = { ...metadata, operation: String(index) };
  return new RpcError(reason, `operation ${index}: ${message}`, {
    metadata: placed,
    fields,
    preconditions,
    cause,
  });
};

/**
 * INVALID_ARGUMENT that names every offending field, or the first of them as far as a client can be told, with the
 * number of the others in the metadata as `more_fields`.
 */
export const invalidArgument = (fields: readonly FieldViolation[]): RpcError => {
  const told: FieldViolation[] = [];
  let room = FIELDS_BYTES;
  for (const each of fields) {
    const field = clip(each.field, PATH_BYTES);
    const description = clip(each.description, PATH_BYTES);
    room -= Buffer.byteLength(field) + Buffer.byteLength(description) + FIELD_OVERHEAD;
    if (room < 0) break;
    told.push({ field, description });
  }
  const more = fields.length - told.length;
  const message = `invalid request: ${told.map(({ field, description }) => `${field} ${description}`).join('; ')}`;
  return refuse('INVALID_REQUEST', message, {
    fields: told,
    ...(more === 0 ? {} : { metadata: { more_fields: String(more) } }),
  });
};

export { Code, codeName } from './reasons.ts';
