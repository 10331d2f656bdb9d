import { TransactionService } from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import type { Endpoint } from './endpoint.ts';
import { type Headers, idempotencyKeyOf, outsideError, SINGLE_USE, sequenceOf } from './headers.ts';
import type { Admitted } from './inbound.ts';

/** Where a call runs, as its headers say. */
export type Scope =
  | { readonly kind: 'none' }
  | { readonly kind: 'single-use'; readonly idempotencyKey: string | undefined }
  | { readonly kind: 'leased'; readonly id: string; readonly sequence: bigint | undefined };

/**
 * Whether an `idempotency-key` means something to a call: to a write, or an `Execute`, that is its own transaction. To any
 * other it means nothing, whatever it holds, since some clients and proxies send one with every call.
 */
export const takesKey = ({ kind, method }: Endpoint, { header }: Headers): boolean => {
  const transaction = header('transaction');
  if (transaction === SINGLE_USE) return kind === 'write' || method === TransactionService.method.execute;
  return transaction === undefined && method === TransactionService.method.execute;
};

/** Reads it. */
export const readScope = (inbound: Admitted): Scope => {
  const { endpoint, header } = inbound;
  const transaction = header('transaction');
  const sequence = sequenceOf(inbound);
  const single = transaction === SINGLE_USE;
  if (sequence !== undefined && (transaction === undefined || single || endpoint.method.methodKind !== 'unary')) {
    throw outsideError();
  }
  if (single) {
    return { kind: 'single-use', idempotencyKey: takesKey(endpoint, inbound) ? idempotencyKeyOf(inbound) : undefined };
  }
  return transaction === undefined ? { kind: 'none' } : { kind: 'leased', id: transaction, sequence };
};
