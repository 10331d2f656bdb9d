import { createHash } from 'node:crypto';
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

/** SHA-256 (hex) that tells requests apart: the RPC and the encoded message. */
export const digest = (path: string, request: Uint8Array): string =>
  createHash('sha256').update(path).update(request).digest('hex');
