import { fitsAnswer, readAdvice } from '../../../src/drivers/recovery-matcher/advice.ts';
import { CallError } from '../../support/client.ts';
import { exceedsInt64, hashOfDoubles } from '../differences.ts';
import type { ComputedCase } from '../format.ts';
import { isTyped, recovery } from './recovery.ts';
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

const isMap = (value: unknown): value is Data => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Whether a value holds NaN or an infinity. */
const isEndless = (value: unknown): boolean =>
  typeof value === 'number'
    ? !Number.isFinite(value)
    : typeof value === 'object' && value !== null && Object.values(value).some(isEndless);

const NORMALIZE = 'RecoveryMatcher._normalize_error';
const GENERATE = 'RecoveryMatcher._generate_suggestion';
const HYBRID = 'RecoveryMatcher.suggest_hybrid';

/** The request that a case is, or is part of. */
const requestOf = ({ operation, input }: ComputedCase): Data => {
  const { payload, error_code, similar_recoveries, request } = input as Data;
  if (operation === GENERATE) return similar_recoveries.length > 0 ? {} : { failure_payload: { error_code } };
  return operation === NORMALIZE ? { failure_payload: payload } : (request ?? {});
};

const withoutNulls = (data: Data): Data =>
  Object.fromEntries(Object.entries(data).filter(([, value]) => value !== null));

const PAYLOAD = ['error_type', 'error_code', 'raw', 'error_message'];

/** Characters of a message that ours looks at. */
const LOOKED_AT = 10_000;

const messageOf = (golden: ComputedCase): string => {
  const { raw, error_message } = requestOf(golden).failure_payload ?? {};
  return raw ?? error_message ?? '';
};

/** What a cache has kept, if it is what we keep. */
const isKept = ({ suggestion = null, confidence = 0, matched_entry = null }: Data): boolean =>
  (suggestion === null || isText(suggestion)) &&
  typeof confidence === 'number' &&
  (matched_entry === null || isMap(matched_entry));

/** Truth values of confidence as the numbers that they are in Python. */
const counted = (value: Data): Data => {
  if (Array.isArray(value)) return value.map(counted);
  if (!isMap(value)) return value;
  const members = Object.entries(value);
  return Object.fromEntries(
    members.map(
      ([key, each]) => [key, key === 'confidence' && typeof each === 'boolean' ? Number(each) : counted(each)] as const,
    ),
  );
};

/** What the case's own operation answers to another input. */
const outputFor = async (golden: ComputedCase, subject: Subject, changes: Data): Promise<Ours> => {
  const input = { ...(golden.input as Data), ...changes };
  const outcome: Outcome = await recovery[golden.operation]!(input, subject, golden);
  if (outcome instanceof CallError) throw outcome;
  return { output: outcome };
};

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
    line: 'every operation: NaN and infinity',
    applies: ({ operation, input }) =>
      operation === 'PolicyArbitrator.arbitrate' && isEndless((input as Data).arb_input),
    ours: () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: '`suggest`, `suggest_hybrid`: payload',
    applies: (golden) => !isTyped(requestOf(golden)),
    ours: () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: '`suggest`, `suggest_hybrid`: payload',
    applies: (golden) => {
      const payload = requestOf(golden).failure_payload ?? {};
      return PAYLOAD.some((name) => payload[name] === null);
    },
    ours: (golden, subject) => {
      const failure_payload = withoutNulls(requestOf(golden).failure_payload);
      if (golden.operation === GENERATE) {
        return { output: "Review error 'UNKNOWN' and implement appropriate error handling" };
      }
      return golden.operation === NORMALIZE
        ? outputFor(golden, subject, { payload: failure_payload })
        : outputFor(golden, subject, { request: { ...requestOf(golden), failure_payload } });
    },
  },
  {
    line: '`suggest`, `suggest_hybrid`: long messages',
    applies: (golden) => [...messageOf(golden)].length > LOOKED_AT,
    // The rest of it, but for one character that says there is one, makes no difference.
    ours: (golden, subject) => {
      const { failure_payload, ...request } = requestOf(golden);
      const { error_message: _message, ...payload } = failure_payload;
      const start = { ...payload, raw: [...messageOf(golden)].slice(0, LOOKED_AT + 1).join('') };
      return golden.operation === NORMALIZE
        ? outputFor(golden, subject, { payload: start })
        : outputFor(golden, subject, { request: { ...request, failure_payload: start } });
    },
  },
  {
    line: '`suggest_hybrid`: layers',
    applies: ({ operation, input }) => {
      const { cached_value } = input as Data;
      return (
        operation === HYBRID &&
        Boolean(cached_value) &&
        !(isMap(cached_value) && fitsAnswer(cached_value) && isKept(cached_value))
      );
    },
    ours: (golden, subject) => outputFor(golden, subject, { cached_value: null }),
  },
  {
    line: '`suggest_hybrid`: advice',
    applies: ({ operation, output }) =>
      operation === 'RecoveryMatcher._escalate_to_llm' &&
      isMap(output) &&
      (!readAdvice(output as Data) || isEndless(output)),
    ours: () => ({ output: null }),
  },
  {
    line: '`suggest_hybrid`: advice',
    applies: ({ operation, input }) => {
      const { llm_result } = input as Data;
      return operation === HYBRID && isMap(llm_result) && !readAdvice(llm_result);
    },
    ours: (golden, subject) => outputFor(golden, subject, { llm_result: null }),
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: (golden) => requestOf(golden).failure_payload === null,
    ours: (golden, subject) => outputFor(golden, subject, { request: { ...requestOf(golden), failure_payload: {} } }),
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: (golden) =>
      !(golden.output as Data)?.error &&
      ['failure_match_id', 'source'].some((name) => requestOf(golden)[name] === null),
    ours: (golden) => {
      const request = requestOf(golden);
      const { result, ...rest } = counted(golden.output);
      const id = request.failure_match_id === null ? { failure_match_id: '' } : {};
      const ours = { ...id, ...(request.source === null ? { source: 'unknown' } : {}) };
      const calls = rest.upsert_calls.map((each: Data) => ({ ...each, ...ours }));
      return { output: { ...rest, result: { ...result, ...id }, upsert_calls: calls } };
    },
  },
  {
    line: '`suggest_hybrid`: advice',
    applies: ({ operation, output }) =>
      [HYBRID, 'RecoveryMatcher._escalate_to_llm'].includes(operation) &&
      [(output as Data)?.confidence, (output as Data)?.result?.confidence].some((each) => typeof each === 'boolean'),
    ours: ({ output }) => ({ output: counted(output) }),
  },
];
