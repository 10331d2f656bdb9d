import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import type { CallError } from '../support/client.ts';
import { answeredAfterwards } from './compaction.ts';
import { type Actual, type Comparison, mismatches, type Row } from './compare.ts';
import { differenceOf, type Ours } from './differences.ts';
import type { Call, GoldenError, Step, TableStep, TransactionStep } from './format.ts';
import { type Answer, type Operation, operation, SYNCHRONOUS, send, type Target } from './operations.ts';
import { recorded, returned } from './projection.ts';
import { Queue } from './queue.ts';
import { refusalMismatches } from './refusals.ts';
import type { Tables } from './tables.ts';
import { type Golden, Instant, type Json, Reader } from './values.ts';
import { type GoldenRow, meets, World } from './world.ts';

/** Lists whose order the original leaves open although the case does not say so; ours is by id. */
const UNDEFINED_ORDER = new Set(['scope_resolver.resolve_applicable_policies']);

const CLOCK_SLACK = 1_000_000n;

interface Judgement {
  readonly problems: string[];
  /** The answer, for steps that refer to it. */
  readonly value: unknown;
}

interface Outcome extends Judgement {
  readonly answer: Answer;
  /** The answer is judged by ours, not by the original's. */
  readonly deliberate: boolean;
}

/** How a commit fails that sends what is still queued: the golden files do not say. */
const UNTOLD: GoldenError = {};

/** Runs the steps of one case and says where the answers differ from the golden ones. */
export class CaseRun {
  readonly #target: Target;
  readonly #tables: Tables;
  readonly #driver: string;
  readonly #reader: Reader;
  readonly #from: Instant;
  readonly #world: World;
  readonly #results: unknown[] = [];

  constructor(target: Target, tables: Tables, driver: string, now: Instant) {
    this.#target = target;
    this.#tables = tables;
    this.#driver = driver;
    this.#reader = new Reader(now);
    this.#from = new Instant(now.micros - CLOCK_SLACK);
    this.#world = new World(tables, this.#reader);
  }

  async step(step: Step): Promise<string[]> {
    if ('op' in step) {
      this.#results.push(null);
      return this.#work(step);
    }
    if ('transaction' in step) return this.#transaction(step);
    const { problems, value } = await this.#call(step);
    this.#results.push(value);
    return problems;
  }

  async #work(step: TableStep): Promise<string[]> {
    switch (step.op) {
      case 'dump': {
        const rows = await this.#tables.dump(step.table, this.#reader, step.columns, step.where);
        return (await this.#dumped(step, rows)).map((each) => `${step.table}: ${each}`);
      }
      case 'set':
        await this.#tables.set(step.table, step.values, step.where ?? {}, this.#reader);
        break;
      case 'insert':
        await this.#tables.insert(step.table, step.rows, this.#reader);
        break;
      case 'clear':
        await this.#tables.clear(step.table);
        break;
    }
    await this.#world.changed(step.table);
    return [];
  }

  async #dumped(step: TableStep & { op: 'dump' }, rows: readonly Row[]): Promise<string[]> {
    const where = this.#reader.read(step.where ?? {}) as GoldenRow;
    const amended = await this.#world.amended(step.table, this.#reader.read(step.result), where);
    const golden = amended.map((row) => pick(row, step.columns)) as Golden;
    const content = this.#world.contentOf(step.table);
    if (!content) return this.#compare(golden, rows, true);
    const held = content.filter((row) => meets(row, where));
    const expected = held.map((row) => pick(row, step.columns));
    const view = this.#world.viewOf(step.table);
    const [theirs, ours] = [view?.(golden as readonly GoldenRow[]), view?.(rows.map(asMap))];
    return [
      ...this.#compare(expected, rows, true),
      ...(theirs !== undefined && ours !== undefined ? this.#compare(theirs, ours as Actual, false) : []),
    ];
  }

  async #call(call: Call): Promise<Outcome> {
    const called = this.#operation(call);
    const args = this.#arguments(call);
    const outcome = await this.#perform(call, args, (given) => send(this.#target, called, given, this.#header(called)));
    this.#world.committed();
    return outcome;
  }

  /** Makes a call and judges its answer by the original's, or by ours where that differs. */
  async #perform(call: Call, args: GoldenRow, ask: (args: GoldenRow) => Promise<Answer>): Promise<Outcome> {
    const called = this.#operation(call);
    const { storedTexts } = this.#target;
    const situation = { called, call, args, world: this.#world, reader: this.#reader, storedTexts, ask };
    const ours = await differenceOf(situation)?.ours(situation);
    const answer = await ask(args);
    const judged = ours ? await this.#judgeOurs(called, ours, answer) : await this.#judge(call, args, answer);
    const problems = judged.problems.map((each) => `${called.name}: ${each}`);
    return { ...judged, problems, answer, deliberate: ours !== undefined };
  }

  async #transaction({ transaction, outcome }: TransactionStep): Promise<string[]> {
    const { grpc } = this.#target.sidecar;
    const rpc = TransactionService.method;
    const transactionId = (await grpc.unary(rpc.begin, {})).transaction!.id!;
    const savepoint = { transactionId, name: 'call' };
    const problems: string[] = [];
    const values: unknown[] = [];
    const queue = new Queue();
    let failed = false;
    const perform = async (call: Call, args: GoldenRow): Promise<Answer> => {
      const called = this.#operation(call);
      const own = SYNCHRONOUS.has(called.driver);
      if (own) await grpc.unary(rpc.savepoint, savepoint);
      const answer = await send(this.#target, called, args, transactionId);
      if (own && 'refusal' in answer) await grpc.unary(rpc.rollbackToSavepoint, savepoint);
      return answer;
    };
    /** Sends what is queued; a refusal ends it, unless it is deliberate. `error` is what the original met. */
    const drain = async (error: GoldenError | undefined): Promise<Answer | undefined> => {
      for (const { call, args } of queue.drain()) {
        const met = error ? { ...call, error } : call;
        const sent = await this.#perform(met, args, (given) => perform(call, given));
        if (sent.deliberate) problems.push(...sent.problems);
        if ('refusal' in sent.answer && (error || !sent.deliberate)) return sent.answer;
      }
      return undefined;
    };
    for (const call of transaction) {
      const args = this.#arguments(call);
      const { driver } = this.#operation(call);
      if (queue.take(driver, call, args) && !call.error) {
        values.push(null);
        continue;
      }
      const queued = await drain(call.error);
      const judged: Outcome = queued
        ? { ...(await this.#judge(call, args, queued)), answer: queued, deliberate: false }
        : await this.#perform(call, args, (given) => perform(call, given));
      problems.push(...judged.problems);
      values.push(judged.value);
      // An error ends the transaction of an asynchronous driver, also where ours has none; a deliberate refusal does not.
      const refused = 'refusal' in judged.answer && !judged.deliberate;
      failed = !SYNCHRONOUS.has(driver) && (refused || call.error !== undefined);
      if (failed) break;
    }
    // What is still queued goes with the commit.
    if (!failed) failed = (await drain(outcome === 'rolled back' ? UNTOLD : undefined)) !== undefined;
    this.#results.push(values);
    const ended = failed ? 'rolled back' : 'committed';
    if (failed) await grpc.unary(rpc.rollback, { transactionId });
    else await grpc.unary(rpc.commit, { transactionId });
    this.#world.committed();
    return ended === outcome ? problems : [...problems, `the transaction is ${ended}, expected ${outcome}`];
  }

  #operation(call: Call): Operation {
    return operation(call.service_driver ?? this.#driver, call.method);
  }

  #arguments(call: Call): GoldenRow {
    return this.#reader.read(call.args ?? {}, this.#results) as GoldenRow;
  }

  #header({ kind }: Operation): string | undefined {
    return kind === 'write' ? 'single-use' : undefined;
  }

  async #judge(call: Call, args: GoldenRow, answer: Answer): Promise<Judgement> {
    const { kind, driver, name } = this.#operation(call);
    if ('refusal' in answer) {
      const { refusal } = answer;
      return failure(
        call.error ? refusalMismatches(call.error, refusal, kind, call.args as Json) : [unexpected(refusal)],
      );
    }
    if (call.error) return failure([`succeeded, expected to be refused like ${JSON.stringify(call.error)}`]);
    const golden = this.#reader.read(call.result ?? null, this.#results);
    const expected = await answeredAfterwards(this.#world, name, args, this.#world.answer(golden));
    const actual = upTo(golden, expected, returned(expected, answer.response, kind));
    const unordered = call.unordered || UNDEFINED_ORDER.has(`${driver}.${name}`);
    return { problems: this.#compare(expected, actual, unordered), value: recorded(actual) };
  }

  async #judgeOurs({ kind }: Operation, ours: Ours, answer: Answer): Promise<Judgement> {
    if ('refusal' in answer) {
      const { code } = answer.refusal;
      const expected = 'code' in ours ? ours.code : 'an answer';
      if (code !== expected) return failure([`${unexpected(answer.refusal)}, expected ${expected}`]);
      return failure('code' in ours && ours.afterwards ? await ours.afterwards() : []);
    }
    if ('code' in ours) return failure([`succeeded, expected to be refused with ${ours.code}`]);
    if ('check' in ours) return { problems: await ours.check(answer.response), value: recorded(answer.response) };
    const actual = returned(ours.result, answer.response, kind);
    return { problems: this.#compare(ours.result, actual, false), value: recorded(actual) };
  }

  #compare(expected: Golden, actual: Actual, unordered: boolean): string[] {
    const to = new Instant(BigInt(Date.now()) * 1000n + CLOCK_SLACK);
    const comparison: Comparison = { from: this.#from, to, unordered };
    return mismatches(expected, actual, comparison);
  }
}

const failure = (problems: string[]): Judgement => ({ problems, value: null });

/** Of a list that was cut off, the part that the original's answer has without the rows that ours does not hold. */
const upTo = (golden: Golden, expected: Golden, actual: Actual): Actual =>
  Array.isArray(golden) && Array.isArray(expected) && Array.isArray(actual) && actual.length <= golden.length
    ? actual.slice(0, golden.length > expected.length ? expected.length : actual.length)
    : actual;

const asMap = ({ fields }: Row): GoldenRow => Object.fromEntries(fields) as unknown as GoldenRow;

const pick = (row: GoldenRow, columns: readonly string[] = Object.keys(row)): GoldenRow =>
  Object.fromEntries(columns.map((name) => [name, row[name]!]));

const unexpected = ({ code, message }: CallError): string => `refused with ${code}: ${message}`;
