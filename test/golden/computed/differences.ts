import { normalizeError } from '../../../src/drivers/recovery-matcher/normalize.ts';
import { CallError } from '../../support/client.ts';
import { exceedsInt64, hashOfDoubles } from '../differences.ts';
import type { ComputedCase } from '../format.ts';
import { recovery } from './recovery.ts';
import type { Data, Outcome, Subject } from './subject.ts';

/** What ours answers where it deliberately differs: the same as something else, or a refusal with this code. */
type Ours = { readonly output: unknown } | { readonly code: string };

interface Difference {
  /** Its line in DIFFERENCES.md begins with this. */
  readonly line: string;
  readonly applies: (golden: ComputedCase) => boolean;
  readonly ours: (golden: ComputedCase, subject: Subject) => Ours | Promise<Ours>;
}

const isArbitration = ({ operation, output }: ComputedCase): boolean =>
  operation === 'PolicyArbitrator.arbitrate' && !(output as Data).error;

/** The hash of an arbitration in our form. */
const arbitrationHash = ({ input, output }: ComputedCase): string | undefined =>
  hashOfDoubles((input as Data).arb_input ?? {}, output as Data);

const isText = (value: unknown): boolean => value === undefined || typeof value === 'string';

const NORMALIZE = 'RecoveryMatcher._normalize_error';

/** The parts of a case that hold a failure's payload. */
const payloadOf = ({ input }: ComputedCase): Data =>
  (input as Data).payload ?? (input as Data).request?.failure_payload;

const withPayload = ({ input, ...rest }: ComputedCase, payload: Data): Data => ({
  ...rest,
  input: { ...(input as Data), request: { ...(input as Data).request, failure_payload: payload } },
});

/** What the case's own operation answers to another input. */
const outputFor = async (golden: ComputedCase, subject: Subject): Promise<Ours> => {
  const outcome: Outcome = await recovery[golden.operation]!(golden.input, subject, golden);
  if (outcome instanceof CallError) throw outcome;
  return { output: outcome };
};

const isSuggestion = ({ operation }: ComputedCase): boolean =>
  ['RecoveryMatcher.suggest', 'RecoveryMatcher.suggest_hybrid'].includes(operation);

/** Every deliberate difference that computed cases show. */
export const COMPUTED_DIFFERENCES: readonly Difference[] = [
  {
    line: '`arbitrate`',
    applies: (golden) => isArbitration(golden) && exceedsInt64(golden.output as Data),
    ours: () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: '`arbitrate`',
    applies: (golden) => {
      const hash = isArbitration(golden) ? arbitrationHash(golden) : undefined;
      return hash !== undefined && hash !== (golden.output as Data).snapshot_hash;
    },
    ours: (golden) => ({ output: { ...(golden.output as Data), snapshot_hash: arbitrationHash(golden) } }),
  },
  {
    line: '`suggest`, `suggest_hybrid`: payload',
    applies: (golden) => Object.values(payloadOf(golden) ?? {}).some((value) => value !== null && !isText(value)),
    ours: () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: '`suggest`, `suggest_hybrid`: payload',
    applies: (golden) => Object.values(payloadOf(golden) ?? {}).includes(null),
    ours: (golden, subject) => {
      const given = Object.fromEntries(Object.entries(payloadOf(golden)).filter(([, value]) => value !== null)) as Data;
      if (golden.operation !== NORMALIZE) return outputFor(withPayload(golden, given), subject);
      const { errorCode, errorSignature } = normalizeError({
        errorType: given.error_type,
        errorCode: given.error_code,
        raw: given.raw,
        errorMessage: given.error_message,
      });
      return { output: [errorCode, errorSignature] };
    },
  },
  {
    line: '`suggest_hybrid`: advice',
    applies: ({ operation, output }) =>
      operation === 'RecoveryMatcher._escalate_to_llm' && !isText((output as Data)?.suggested_action ?? undefined),
    ours: () => ({ output: null }),
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: (golden) => isSuggestion(golden) && Object.values((golden.input as Data).request).includes(null),
    ours: ({ input, output }) => {
      const { request } = input as Data;
      const { result, ...rest } = output as Data;
      const id = request.failure_match_id === null ? { failure_match_id: '' } : {};
      const ours = { ...id, ...(request.source === null ? { source: 'unknown' } : {}) };
      const calls = rest.upsert_calls.map((each: Data) => ({ ...each, ...ours }));
      return { output: { ...rest, result: { ...result, ...id }, upsert_calls: calls } };
    },
  },
];
