import { type Database, openDatabase } from '../../../src/database/pool.ts';
import { AutoCommitSession } from '../../../src/database/session.ts';
import { databaseHistory } from '../../../src/drivers/recovery-matcher/history.ts';
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

/** A matcher's own storing of a candidate, which no RPC does with given values. */
const storeCandidate: Step = async (args, subject) => {
  const refused: string[] = [];
  const services = { ...noServices, warn: (_layer: string, problem: string) => refused.push(problem) };
  const lane = { max: 1, queue: 1, waitMs: 10_000 };
  const database: Database = openDatabase(subject.sidecar.url, { calls: lane, transactions: lane });
  try {
    const history = databaseHistory(
      new AutoCommitSession(database, undefined),
      { caller: 'test', signal: undefined },
      services,
    );
    const id = await history.store({
      failureMatchId: args.failure_match_id,
      suggestion: args.suggestion,
      confidence: args.confidence,
      explain: args.explain,
      matchedEntry: args.matched_entry,
      errorCode: args.error_code,
      errorSignature: args.error_signature,
      source: args.source,
    });
    const [problem] = refused;
    return problem === undefined ? id : { error: { sqlstate: problem.slice(-5), constraint: null } };
  } finally {
    await database.end();
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
  insert_suggestion_provenance: ofWriter('insert_suggestion_provenance', () => null),
  enqueue_work: queue('enqueueEvaluationDbFallback', field('work_id')),
  claim_work: queue('claimWork', ({ fields }) => byId(fields.get('work') as readonly Row[], 'work_id')),
  complete_work: queue('completeWork', field('found')),
  release_stalled_work: queue('releaseStalledWork', field('rows_affected')),
  suggest: ofMatcher('suggest', whole),
  approve_candidate: ofMatcher('approve_candidate', field('candidate')),
  count_by_status: ofMatcher('count_by_status', whole),
  count_candidates: ofMatcher('count_candidates', field('count')),
  get_candidates: ofMatcher('get_candidates', field('candidates')),
  _upsert_candidate: storeCandidate,
  seed_failure_match: async ({ age_days, ...row }, subject) => {
    const created_at = { $ts: await before(subject, age_days * 86_400) };
    await subject.tables.insert(FAILURES, [{ run_id: 'run', ...row, created_at }], subject.reader);
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

const refusedLike = ({ sqlstate, constraint, type }: Data, refusal: CallError): string[] =>
  refusalMismatches(
    sqlstate ? { sqlstate, ...(constraint ? { constraint } : {}) } : { exception: type },
    refusal,
    'write',
  );

/** Runs a case's steps one after another on empty tables, and says where an answer differs. */
export const sequenceMismatches = async (golden: ComputedCase, subject: Subject): Promise<string[]> => {
  const { tables, reader } = subject;
  for (const table of [AUDIT, PROVENANCE, QUEUE, CANDIDATES, FAILURES]) await tables.clear(table);
  const from = new Instant((await tables.now()).micros - SECOND);
  const labels = new Labels();
  const problems: string[] = [];
  const results = golden.output as Data[];
  for (const [index, { op, args = {} }] of (golden.input as Data[]).entries()) {
    const step = STEPS[op];
    if (!step) throw new Error(`there is no step ${op}`);
    const outcome = await step(resolved(args, labels), subject);
    const expected = results[index];
    const to = new Instant((await tables.now()).micros + SECOND);
    const found =
      outcome instanceof CallError
        ? expected?.error
          ? refusedLike(expected.error, outcome)
          : [`refused with ${outcome.code}: ${outcome.message}`]
        : mismatches(reader.read(expected), outcome, { from, to, labels, tolerance: TOLERANCE });
    problems.push(...found.map((each) => `step ${index}, ${op}: ${each}`));
  }
  return problems;
};
