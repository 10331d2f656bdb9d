import { headerError, requestIdOf, SINGLE_USE, sequenceOf } from './headers.ts';
import type { Admitted } from './pipeline.ts';

/** Where a call runs, as its headers say. */
export type Scope =
  | { readonly kind: 'none' }
  | { readonly kind: 'single-use'; readonly requestId: string | undefined }
  | { readonly kind: 'leased'; readonly id: string; readonly sequence: bigint | undefined };

/** Reads it. */
export const readScope = (inbound: Admitted): Scope => {
  const { endpoint, header } = inbound;
  const transaction = header('transaction');
  const requestId = requestIdOf(inbound);
  const sequence = sequenceOf(inbound);
  const single = transaction === SINGLE_USE;
  if (requestId !== undefined && !(single && endpoint.kind === 'write')) {
    throw headerError('request-id', 'goes only with a write whose `transaction` header is `single-use`');
  }
  if (sequence !== undefined && (transaction === undefined || single || endpoint.method.methodKind !== 'unary')) {
    throw headerError('transaction-sequence', 'goes only with a call that is no stream, inside an open transaction');
  }
  if (single) return { kind: 'single-use', requestId };
  return transaction === undefined ? { kind: 'none' } : { kind: 'leased', id: transaction, sequence };
};
