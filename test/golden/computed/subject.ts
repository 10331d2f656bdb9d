import type { CallError } from '../../support/client.ts';
import type { Actual, Row } from '../compare.ts';
import type { ComputedCase } from '../format.ts';
import { type Answer, type Operation, send, type Target } from '../operations.ts';
import type { Tables } from '../tables.ts';
import type { Golden, Reader } from '../values.ts';

/** A case's data: of many shapes, and each operation knows its own. */
// biome-ignore lint/suspicious/noExplicitAny: the file's cases have no common type
export type Data = any;

/** Where computed cases run. */
export interface Subject extends Target {
  readonly tables: Tables;
  readonly reader: Reader;
}

/** What ours makes of a case: a value, or how it refuses. */
export type Outcome = Actual | CallError;

/** What ours makes of an operation's input. */
export type Computation = (input: Data, subject: Subject, golden: ComputedCase) => Outcome | Promise<Outcome>;

/** Calls an RPC and takes from its response what stands for the result. */
export const asked = async (
  subject: Subject,
  called: Operation,
  args: { readonly [name: string]: Golden },
  result: (response: Row) => Actual = (response) => response,
): Promise<Outcome> => {
  const { kind } = called;
  // A computation stores nothing, so the letter case of what is stored is not its own.
  const target = kind === 'compute' ? { ...subject, storedTexts: [] } : subject;
  const answer: Answer = await send(target, called, args, kind === 'write' ? 'single-use' : undefined);
  return 'refusal' in answer ? answer.refusal : result(answer.response);
};

/** A computation's result as plain values. */
export const plain = (value: unknown): Actual => {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) {
    return typeof value === 'bigint' ? Number(value) : ((value ?? null) as Actual);
  }
  const members = Object.entries(value).filter(([, each]) => each !== undefined);
  return Object.fromEntries(members.map(([key, each]) => [key, plain(each)]));
};
