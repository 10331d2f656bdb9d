import { createHash } from 'node:crypto';
import { type DescField, type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import { invalidArgument, type RpcError } from '../database/errors.ts';
import { canonicalUuid, uuid } from '../drivers/rules.ts';

/** Value of the `transaction` header that makes a call its own transaction. */
export const SINGLE_USE = 'single-use';

/** INVALID_ARGUMENT about a request header. */
export const headerError = (header: string, description: string): RpcError =>
  invalidArgument([{ field: `header ${header}`, description }]);

interface Headers {
  readonly header: (name: string) => string | undefined;
}

/** Canonical `request-id` of a call, if it has one. */
export const requestIdOf = ({ header }: Headers): string | undefined => {
  const requestId = header('request-id');
  if (requestId === undefined) return undefined;
  if (uuid(requestId)) throw headerError('request-id', 'must be a UUID');
  return canonicalUuid(requestId);
};

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
  const copy = Object.create(Object.getPrototypeOf(message) as object, Object.getOwnPropertyDescriptors(message));
  if (message.$unknown) copy.$unknown = [...message.$unknown].sort(byContent);
  const within = (field: DescField, value: unknown): unknown =>
    field.message === undefined ? value : ordered(field.message, value as Message);
  for (const field of desc.fields) {
    const owner = field.oneof ? (copy[field.oneof.localName] as { case?: string; value?: unknown }) : undefined;
    const value = owner ? (owner.case === field.localName ? owner.value : undefined) : copy[field.localName];
    if (value === undefined) continue;
    if (field.fieldKind === 'list' && field.listKind === 'message') {
      copy[field.localName] = (value as unknown[]).map((each) => within(field, each));
    } else if (field.fieldKind === 'map') {
      const entries = Object.entries(value as object).sort(([a], [b]) => (a < b ? -1 : 1));
      // `fromEntries` defines properties, so a key may be `__proto__`.
      copy[field.localName] = Object.fromEntries(entries.map(([key, each]) => [key, within(field, each)]));
    } else if (field.fieldKind === 'message') {
      if (owner) copy[field.oneof!.localName] = { case: field.localName, value: within(field, value) };
      else copy[field.localName] = within(field, value);
    }
  }
  return copy as Message;
};

/**
 * SHA-256 (hex) that tells requests apart: the RPC and the message. The order in which the entries of maps arrived, and
 * fields that this version does not know, is no part of it: some clients choose it at random.
 */
export const digest = (path: string, desc: DescMessage, message: Message): string =>
  createHash('sha256')
    .update(path)
    .update(toBinary(desc, ordered(desc, message)))
    .digest('hex');
