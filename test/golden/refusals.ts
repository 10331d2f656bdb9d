import type { CallError } from '../support/client.ts';
import type { GoldenError } from './format.ts';
import type { Json } from './values.ts';

type Kind = 'read' | 'write' | 'compute';

/** SQLSTATE, or its class, -> gRPC code. */
const CODES: Readonly<Record<string, string>> = {
  '40001': 'ABORTED',
  '40P01': 'ABORTED',
  '55P03': 'ABORTED',
  '23505': 'ALREADY_EXISTS',
  '23503': 'FAILED_PRECONDITION',
  '23502': 'INVALID_ARGUMENT',
  '23514': 'INVALID_ARGUMENT',
  '22': 'INVALID_ARGUMENT',
  '25P02': 'FAILED_PRECONDITION',
  '25006': 'FAILED_PRECONDITION',
  '42501': 'PERMISSION_DENIED',
  // A value of another type than its column: here a field of the request refuses it.
  '42804': 'INVALID_ARGUMENT',
  '42846': 'INVALID_ARGUMENT',
  '42883': 'INVALID_ARGUMENT',
  // Text of the caller that became SQL and made none.
  '42601': 'INVALID_ARGUMENT',
  '42P01': 'FAILED_PRECONDITION',
  '42703': 'FAILED_PRECONDITION',
};

/** Whether arguments hold what no statement can be sent with, or no whole number be made of. */
const areAtFault = (args: Json): boolean => {
  if (typeof args === 'string') return args.includes('\0');
  return typeof args === 'object' && args !== null && ('$float' in args || Object.values(args).some(areAtFault));
};

/** Codes that say what an original error said. */
const codesOf = ({ sqlstate, exception, client_side }: GoldenError, kind: Kind, args: Json): readonly string[] => {
  if (client_side) return ['INVALID_ARGUMENT'];
  if (sqlstate !== undefined) {
    const code = CODES[sqlstate] ?? CODES[sqlstate.slice(0, 2)];
    return code === undefined ? [] : [code];
  }
  switch (exception) {
    // What a read finds stored makes no sense; or an argument is wrong, or names what does not exist.
    case 'ValueError':
      if (areAtFault(args)) return ['INVALID_ARGUMENT'];
      return kind === 'write' ? ['INVALID_ARGUMENT', 'NOT_FOUND'] : ['FAILED_PRECONDITION'];
    case 'TypeError':
    case 'JSONDecodeError':
      return ['FAILED_PRECONDITION'];
    // The client library has no idea how to send an argument, or a result is out of range.
    case 'ArgumentError':
    case 'ProgrammingError':
    case 'OverflowError':
      return ['INVALID_ARGUMENT'];
    default:
      return [];
  }
};

/** Says how a refusal differs from what an original error means here; nothing when it does not. */
export const refusalMismatches = (
  expected: GoldenError,
  refusal: CallError,
  kind: Kind,
  args: Json = null,
): string[] => {
  const codes = codesOf(expected, kind, args);
  if (!codes.includes(refusal.code)) {
    return [`refused with ${refusal.code} (${refusal.message}), expected ${codes.join(' or ') || 'no such refusal'}`];
  }
  const { constraint } = expected;
  // Names of primary keys and checks are not part of the contract.
  const named = constraint !== undefined && /^2350[35]$/.test(expected.sqlstate ?? '') && !constraint.endsWith('_pkey');
  return named && refusal.metadata['constraint'] !== constraint
    ? [`refused for ${refusal.metadata['constraint']}, expected ${constraint}`]
    : [];
};
