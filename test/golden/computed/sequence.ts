import { Code } from '../../../src/contract/errors.ts';
import { ResponseSize } from '../../../src/contract/response-size.ts';
import { CallNotes } from '../../../src/database/notes.ts';
import { type Database, openDatabase } from '../../../src/database/pool.ts';
import { AutoCommitSession } from '../../../src/database/session.ts';
import { readTarget } from '../../../src/database/target.ts';
import { databaseHistory } from '../../../src/drivers/recovery-matcher/history.ts';
import { RecoveryMatcherService } from '../../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { RecoveryWriteService } from '../../../src/gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { CallError } from '../../support/client.ts';
import { noServices } from '../../support/services.ts';
import { type Actual, Labels, mismatches, Row } from '../compare.ts';
import type { ComputedCase } from '../format.ts';
import { type Operation, operation } from '../operations.ts';
import { refusalMismatches } from '../refusals.ts';
import { type Golden, Instant } from '../values.ts';
import { asked, type Data, type Outcome, type Subject } from './subject.ts';

const CANDIDATES = 'public.recovery_candidates';
const AUDIT = 'public.recovery_candidates_audit';
const PROVENANCE = 'm10_recovery.suggestion_provenance';
const QUEUE = 'm10_recovery.work_queue';
const FAILURES = 'public.failure_matches';

/** Confidences were read from columns in single precision. */
const TOLERANCE = 1e-6;
const SECOND = 1_000_000n;
/** Least confidence of a suggestion that is stored. */
const LEAST_STORED = 0.1;

type Args = { readonly [name: string]: Golden };
type Step = (args: Data, subject: Subject) => Promise<Outcome>;

const field =
  (name: string) =>
  ({ fields }: Row): Actual =>
    fields.get(name)!;

const whole = (response: Row): Actual => response;

const call =
  (called: Operation, result: (response: Row) => Actual): Step =>
  (args: Args, subject) =>
    asked(subject, called, args, result);

const queue = (method: keyof typeof RecoveryWriteService.method, result: (response: Row) => Actual): Step =>
  call(
    {
      driver: 'recovery_write_driver',
      name: method,
      kind: 'write',
      method: RecoveryWriteService.method[method],
    } as Operation,
    result,
  );

const byId = (rows: readonly Row[], name: string): Row[] =>
  [...rows].sort((left, right) => Number(left.fields.get(name)) - Number(right.fields.get(name)));

const dump =
  (table: string, more: (row: Row) => readonly (readonly [string, Actual])[] = () => []): Step =>
  async (_args, { tables, reader }) =>
    byId(await tables.dump(table, reader), 'id').map((row) => new Row([...row.fields, ...more(row)]));

const before = async (subject: Subject, seconds: number): Promise<string> => {
  const { micros } = await subject.tables.now();
  return new Instant(micros - BigInt(Math.round(seconds)) * SECOND).rfc3339;
};

const isEmpty = (map: Data): boolean => Object.keys(map ?? {}).length === 0;

/** A matcher's own storing of a candidate, which no RPC does with given values. */
const storeCandidate: Step = async (args, subject) => {
  const refused: string[] = [];
  const services = { ...noServices, warn: (_layer: string, problem: string) => refused.push(problem) };
  const lane = { max: 1, queue: 1, waitMs: 10_000 };
  const database: Database = openDatabase(readTarget(subject.sidecar.url), {
    calls: lane,
    transactions: lane,
    statementMs: 60_000,
    lockMs: 5_000,
    pooler: 'auto',
  });
  try {
    const history = databaseHistory(
      new AutoCommitSession(database, { signal: undefined, notes: new CallNotes() }),
      {
        caller: 'test',
        signal: undefined,
        size: new ResponseSize(RecoveryMatcherService.method.suggest, Number.POSITIVE_INFINITY),
      },
      services,
    );
    const id = await history.store({
      failureMatchId: args.failure_match_id,
      suggestion: args.suggestion,
      confidence: args.confidence,
      explain: args.explain,
      matchedEntry: isEmpty(args.matched_entry) ? null : args.matched_entry,
      errorCode: args.error_code,
      errorSignature: args.error_signature,
      source: args.source === undefined ? 'matcher' : args.source,
    });
    const [problem] = refused;
    if (problem === undefined) return id;
    if (!/ (22...|23502|23514)$/.test(problem)) throw new Error(problem);
    return new CallError(Code.INVALID_ARGUMENT, problem, []);
  } finally {
    await database.end(1_000);
  }
};

const ofMatcher = (name: string, result: (response: Row) => Actual): Step =>
  call(operation('recovery_matcher', name), result);
const ofWriter = (name: string, result: (response: Row) => Actual): Step =>
  call(operation('recovery_write_driver', name), result);

/** Every step a sequence may have. */
const STEPS: Readonly<Record<string, Step>> = {
  upsert_recovery_candidate: ofWriter('upsert_recovery_candidate', whole),
  get_candidate_by_idempotency_key: ofWriter('get_candidate_by_idempotency_key', field('candidate')),
  // The original takes assignments and their parameters.
  update_recovery_candidate: async ({ updates: _updates, params, ...args }, subject) => {
    const { id: _id, ...fields } = params ?? {};
    return ofWriter('update_recovery_candidate', () => null)({ fields, ...args }, subject);
  },
  enqueue_evaluation_db_fallback: ofWriter('enqueue_evaluation_db_fallback', field('enqueued')),
  insert_suggestion_provenance: ofWriter('insert_suggestion_provenance', () => null),
  enqueue_work: queue('enqueueEvaluationDbFallback', field('work_id')),
  claim_work: queue('claimWork', ({ fields }) => byId(fields.get('work') as readonly Row[], 'work_id')),
  complete_work: queue('completeWork', ({ fields }) => fields.get('rows_affected') === 1n),
  release_stalled_work: queue('releaseStalledWork', field('rows_affected')),
  suggest: ofMatcher('suggest', whole),
  approve_candidate: ofMatcher('approve_candidate', field('candidate')),
  count_by_status: ofMatcher('count_by_status', whole),
  count_candidates: ofMatcher('count_candidates', field('count')),
  get_candidates: ofMatcher('get_candidates', field('candidates')),
  _upsert_candidate: storeCandidate,
  seed_failure_match: async ({ age_days, ...row }, subject) => {
    const created_at = { $ts: await before(subject, age_days * 86_400) };
    const recovery_succeeded = row['recovery_succeeded'] ?? false;
    await subject.tables.insert(FAILURES, [{ run_id: 'run', ...row, recovery_succeeded, created_at }], subject.reader);
    return null;
  },
  age_claim: async ({ work_id, seconds }, subject) => {
    const claimed_at = { $ts: await before(subject, seconds) };
    await subject.tables.set(QUEUE, { claimed_at }, { id: work_id }, subject.reader);
    return null;
  },
  dump_candidates: dump(CANDIDATES),
  dump_audit: dump(AUDIT),
  dump_provenance: dump(PROVENANCE),
  dump_queue: dump(QUEUE, ({ fields }) => [
    ['claimed', fields.get('claimed_at') !== null],
    ['processed', fields.get('processed_at') !== null],
  ]),
};

/** Arguments with the keys that labels stand for. */
const resolved = (args: Data, labels: Labels): Data =>
  Object.fromEntries(
    Object.entries(args).map(([name, value]) => {
      const key = typeof value === 'string' ? labels.get(value) : undefined;
      return [name, key === undefined ? value : Number(key)];
    }),
  );

type Amendment = (op: string, expected: Data) => Data;

/** What ours answers to a step where it deliberately differs. */
interface Ours {
  readonly expected?: Data;
  /** The answer to these arguments is the same. */
  readonly like?: Data;
  /** How later answers differ; it sees that of the step, too. */
  readonly amends?: Amendment;
  /** From here on the tables hold something else. */
  readonly parts?: boolean;
}

interface Difference {
  /** Its line in DIFFERENCES.md begins with this. */
  readonly line: string;
  readonly applies: (op: string, args: Data, expected: Data) => boolean;
  readonly ours: (args: Data, expected: Data) => Ours;
}

/** Fills a column that the original has left null, in the rows of some answers. */
const fills =
  (ops: readonly string[], key: string, label: string, column: string, value: string): Amendment =>
  (op, expected) => {
    const filled = (row: Data): Data =>
      row[key] === label && row[column] === null ? { ...row, [column]: value } : row;
    if (!ops.includes(op) || expected?.error) return expected;
    return Array.isArray(expected) ? expected.map(filled) : filled(expected);
  };

const refused = { error: { sqlstate: '22P02' } };
const STATUSES: readonly unknown[] = ['pending', 'approved', 'rejected', 'all', null, undefined];
const NULLS = 'every operation: null where an argument has a default';
const LISTS = ['dump_candidates', 'get_candidates', 'approve_candidate'];

/** Every deliberate difference that sequences show. */
export const SEQUENCE_DIFFERENCES: readonly Difference[] = [
  {
    line: 'every operation: a text outside a closed set',
    applies: (op, { status }) => ['get_candidates', 'count_candidates'].includes(op) && !STATUSES.includes(status),
    ours: () => ({ expected: refused }),
  },
  {
    line: NULLS,
    applies: (op, { status }) => ['get_candidates', 'count_candidates'].includes(op) && status === null,
    ours: (args) => ({ like: { ...args, status: 'pending' } }),
  },
  {
    line: NULLS,
    applies: (op, { note }, expected) => op === 'approve_candidate' && note === null && !expected.error,
    ours: ({ candidate_id }, expected) => {
      const listed = fills(LISTS, 'id', candidate_id, 'review_note', '');
      const trail = fills(['dump_audit'], 'candidate_id', candidate_id, 'note', '');
      return { expected, amends: (op, each) => trail(op, listed(op, each)) };
    },
  },
  {
    line: NULLS,
    applies: (op, { decision }, expected) =>
      op === 'approve_candidate' && decision === null && /^decision/.test(expected?.error?.message ?? ''),
    ours: ({ candidate_id, approved_by }) => ({
      expected: { id: candidate_id, decision: 'approved', approved_by_human: approved_by },
      parts: true,
    }),
  },
  {
    line: NULLS,
    applies: (op, { actor }, expected) =>
      op === 'insert_suggestion_provenance' && actor === null && expected?.error?.sqlstate === '23502',
    ours: () => ({ expected: null, parts: true }),
  },
  {
    line: NULLS,
    applies: (op, { source }) => op === 'suggest' && source === null,
    ours: (_args, expected) => ({
      expected,
      amends: fills(['dump_candidates', 'get_candidates'], 'id', expected.candidate_id, 'source', 'unknown'),
    }),
  },
  {
    line: '`claim_work`: no worker',
    applies: (op, { worker_id }, expected) => op === 'claim_work' && !worker_id && !expected?.error,
    ours: () => ({ expected: refused, parts: true }),
  },
  {
    line: NULLS,
    applies: (op, { success }) => op === 'complete_work' && success === null,
    ours: (_args, expected) => ({ expected, parts: true }),
  },
  {
    line: NULLS,
    applies: (op, { stalled_seconds = 0 }) => op === 'release_stalled_work' && stalled_seconds === null,
    // Nothing is as old as null; ours releases what is old enough by default, some number of claims.
    ours: () => ({ expected: '<id>', parts: true }),
  },
  {
    line: "`suggest`: the failure's id",
    applies: (op, { failure_match_id = '' }) => op === 'suggest' && failure_match_id === null,
    ours: (_args, expected) => ({ expected: { ...expected, failure_match_id: '' } }),
  },
  {
    line: "`suggest`: the failure's id",
    applies: (op, { failure_match_id = '' }, expected) =>
      op === 'suggest' &&
      failure_match_id !== '' &&
      expected?.confidence >= LEAST_STORED &&
      expected.candidate_id === null,
    ours: () => ({ expected: refused }),
  },
  {
    line: "`suggest`: the failure's id",
    applies: (op, { failure_match_id }) => op === '_upsert_candidate' && failure_match_id === '',
    ours: () => ({ expected: null }),
  },
];

const refusedLike = ({ sqlstate, constraint, type }: Data, refusal: CallError): string[] =>
  refusalMismatches(
    sqlstate ? { sqlstate, ...(constraint ? { constraint } : {}) } : { exception: type },
    refusal,
    'write',
  );

const shown = (outcome: Outcome): string =>
  JSON.stringify(outcome, (_key, each) => {
    if (each instanceof Row) return Object.fromEntries(each.fields);
    return typeof each === 'bigint' ? String(each) : each;
  });

/** Runs a case's steps one after another on empty tables, and says where an answer differs. */
export const sequenceMismatches = async (golden: ComputedCase, subject: Subject): Promise<string[]> => {
  const { tables, reader } = subject;
  for (const table of [AUDIT, PROVENANCE, QUEUE, CANDIDATES, FAILURES]) await tables.clear(table);
  const from = new Instant((await tables.now()).micros - SECOND);
  const labels = new Labels();
  const problems: string[] = [];
  const results = golden.output as Data[];
  const amendments: Amendment[] = [];
  for (const [index, { op, args = {} }] of (golden.input as Data[]).entries()) {
    const step = STEPS[op];
    if (!step) throw new Error(`there is no step ${op}`);
    const run = (given: Data): Promise<Outcome> => step(resolved(given, labels), subject);
    const ours = SEQUENCE_DIFFERENCES.find(({ applies }) => applies(op, args, results[index]))?.ours(
      args,
      results[index],
    );
    if (ours?.amends) amendments.push(ours.amends);
    const like = ours?.like && (await run(ours.like));
    const outcome = await run(args);
    const expected = amendments.reduce((each, amend) => amend(op, each), ours ? ours.expected : results[index]);
    const to = new Instant((await tables.now()).micros + SECOND);
    const found = like
      ? shown(like) === shown(outcome)
        ? []
        : [`answered ${shown(outcome)}, expected ${shown(like)}`]
      : outcome instanceof CallError
        ? expected?.error
          ? refusedLike(expected.error, outcome)
          : [`refused with ${outcome.code}: ${outcome.message}`]
        : mismatches(reader.read(expected), outcome, { from, to, labels, tolerance: TOLERANCE });
    problems.push(...found.map((each) => `step ${index}, ${op}: ${each}`));
    // What comes after is the original's, of a world that ours is no longer in.
    if (ours?.parts) break;
  }
  return problems;
};
