import { setTimeout as sleep } from 'node:timers/promises';
import type { JsonValue } from '@bufbuild/protobuf';
import { type Channel, callRpc } from './channel.ts';
import { problemWith, type Reply } from './compare.ts';
import { methods } from './methods.ts';
import { type CallStep, isCall, type Scenario, type Step } from './scenario.ts';
import { mentioned, Variables } from './variables.ts';

/** What became of a scenario. */
export interface Result {
  readonly scenario: Scenario;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** Why it failed or was skipped. */
  readonly why?: string;
  readonly ms: number;
}

/** How scenarios are run. */
export interface RunOptions {
  readonly token?: string | undefined;
  /** True to run those that commit, too. */
  readonly allowWrites: boolean;
}

const STEP_MS = 50;

const BEGINNINGS = new Set(['TransactionService/Begin', 'TransactionService/Hold']);

/** The caller of the run may not do what the scenario does. */
class NotGranted extends Error {}

/** It is not as it has to be. */
class Failure extends Error {}

const at = (value: JsonValue | undefined, path: string): JsonValue | undefined => {
  let found: unknown = value;
  for (const key of path.split('.')) found = (found as Record<string, unknown> | null | undefined)?.[key];
  return found as JsonValue | undefined;
};

/** One run of a scenario, and all that it has begun. */
class Run {
  readonly #channel: Channel;
  readonly #token: string | undefined;
  readonly #variables = new Variables();
  readonly #transactions = new Set<string>();
  readonly #streams = new Map<string, () => void>();

  constructor(channel: Channel, token: string | undefined) {
    this.#channel = channel;
    this.#token = token;
  }

  async step(step: Step): Promise<void> {
    if (isCall(step)) await this.#expect(step);
    else this.#streams.get(step.leave)?.();
  }

  /** Whether all that a step mentions has been captured. */
  knows(step: Step): boolean {
    return mentioned(step).every((name) => this.#variables.has(name));
  }

  /** Leaves nothing open. */
  async end(): Promise<void> {
    for (const leave of this.#streams.values()) leave();
    for (const transactionId of this.#transactions) {
      await this.#send({ call: 'TransactionService/Rollback', request: { transactionId } });
    }
  }

  async #expect(step: CallStep): Promise<void> {
    const until = performance.now() + (step.within_ms ?? 0);
    for (;;) {
      const reply = await this.#send(step);
      const problem = problemWith(this.#variables.fill(step.expect ?? {}), reply);
      if (problem === undefined) return this.#capture(step, reply);
      if (reply.refusal?.reason === 'NOT_ALLOWED') throw new NotGranted(`the caller is not granted ${step.call}`);
      if (performance.now() >= until) throw new Failure(`${step.call}: ${problem}`);
      await sleep(STEP_MS);
    }
  }

  async #send(step: CallStep): Promise<Reply> {
    const { request = {}, transaction, headers = {} } = this.#variables.fill(step);
    const { reply, leave } = await callRpc(this.#channel, methods.get(step.call)!, {
      request,
      headers: {
        ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }),
        ...(transaction === undefined ? {} : { transaction }),
        ...headers,
      },
      take: step.take,
      keep: step.keep !== undefined,
    });
    if (step.keep !== undefined) this.#streams.set(step.keep, leave);
    const id = BEGINNINGS.has(step.call) ? at(reply.messages[0], 'transaction.id') : undefined;
    if (typeof id === 'string') this.#transactions.add(id);
    return reply;
  }

  #capture({ call, capture = {} }: CallStep, { messages }: Reply): void {
    for (const [name, path] of Object.entries(capture)) {
      const value = at(messages[0], path);
      if (value === undefined) throw new Failure(`${call}: the answer has no ${path}`);
      this.#variables.set(name, value);
    }
  }
}

/** Runs steps one after the other; the first that is not as expected ends them. */
const runSteps = async (run: Run, { steps, cleanup = [] }: Scenario): Promise<void> => {
  const inOrder = async (kind: string, list: readonly Step[]): Promise<void> => {
    for (const [index, step] of list.entries()) {
      try {
        await run.step(step);
      } catch (error) {
        if (error instanceof Failure) throw new Failure(`${kind} ${index + 1}, ${error.message}`);
        throw error;
      }
    }
  };
  try {
    await inOrder('step', steps);
  } catch (error) {
    await run.end();
    // What went wrong first is what counts.
    await inOrder(
      'cleanup',
      cleanup.filter((step) => run.knows(step)),
    ).catch(() => {});
    throw error;
  }
  await run.end();
  await inOrder('cleanup', cleanup);
};

/** Runs a scenario against a sidecar. */
export const runScenario = async (channel: Channel, scenario: Scenario, options: RunOptions): Promise<Result> => {
  const began = performance.now();
  const result = (outcome: Result['outcome'], why?: string): Result => ({
    scenario,
    outcome,
    ...(why === undefined ? {} : { why }),
    ms: Math.round(performance.now() - began),
  });
  if (scenario.commits && !options.allowWrites) return result('skipped', 'it commits: --allow-writes runs it');
  try {
    await runSteps(new Run(channel, options.token), scenario);
    return result('passed');
  } catch (error) {
    if (error instanceof NotGranted) return result('skipped', error.message);
    if (error instanceof Failure) return result('failed', error.message);
    throw error;
  }
};
