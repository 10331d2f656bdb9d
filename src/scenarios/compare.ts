import { isDeepStrictEqual } from 'node:util';
import type { JsonValue } from '@bufbuild/protobuf';
import type { Expectation, ExpectedError, Rows } from './scenario.ts';

/** Why a call was refused. */
export interface Refusal {
  readonly code: string;
  readonly message: string;
  readonly reason: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly fields: readonly string[];
  readonly retryAfterMs: number | undefined;
  readonly preconditions: number;
}

/** What a call brought. */
export interface Reply {
  /** The answer, or the messages of a stream so far, in protobuf's JSON. */
  readonly messages: readonly JsonValue[];
  readonly stream: boolean;
  readonly refusal?: Refusal;
}

const text = (value: unknown): string => JSON.stringify(value) ?? 'nothing';

const differs = (path: string, expected: unknown, found: unknown): string =>
  `${path} is ${text(found)}, expected ${text(expected)}`;

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** What an object of one key that begins with `$` asks for. */
const special = (path: string, key: string, wanted: unknown, found: unknown): string | undefined => {
  switch (key) {
    case '$present':
      return (found !== undefined && found !== null) === wanted
        ? undefined
        : `${path} is ${text(found)}, expected ${wanted ? 'a value' : 'none'}`;
    case '$contains':
      return Array.isArray(found) && found.some((each) => difference(path, wanted, each) === undefined)
        ? undefined
        : `${path} is ${text(found)}, expected an element ${text(wanted)}`;
    case '$matches':
      return typeof found === 'string' && new RegExp(String(wanted)).test(found)
        ? undefined
        : `${path} is ${text(found)}, expected a text like ${wanted}`;
    default:
      return `${path}: ${key} is nothing that can be expected`;
  }
};

/** Where something found lacks what was expected of it; more than that it may have. Undefined where it does not. */
export const difference = (path: string, expected: unknown, found: unknown): string | undefined => {
  if (Array.isArray(expected)) {
    if (!Array.isArray(found) || found.length !== expected.length) return differs(path, expected, found);
    return expected
      .map((each, index) => difference(`${path}[${index}]`, each, found[index]))
      .find((each) => each !== undefined);
  }
  if (!isObject(expected)) return isDeepStrictEqual(expected, found) ? undefined : differs(path, expected, found);
  const entries = Object.entries(expected);
  const [first, second] = entries;
  if (first?.[0].startsWith('$') && !second) return special(path, ...first, found);
  if (!isObject(found)) return differs(path, expected, found);
  return entries
    .map(([key, each]) => difference(`${path}.${key}`, each, found[key]))
    .find((problem) => problem !== undefined);
};

/** Rows of an answer: those of a stream, or of its one list. */
const rowsOf = ({ messages, stream }: Reply): number | undefined => {
  if (stream) return messages.length;
  const [list, another] = Object.values(messages[0] ?? {}).filter((value) => Array.isArray(value));
  return another ? undefined : list?.length;
};

const rowsProblem = (wanted: Rows, found: number | undefined): string | undefined => {
  if (found === undefined) return 'the answer has not one list whose rows could be counted';
  const { at_least: least, at_most: most } =
    typeof wanted === 'number' ? { at_least: wanted, at_most: wanted } : wanted;
  return found >= (least ?? 0) && found <= (most ?? found) ? undefined : differs('the number of rows', wanted, found);
};

const errorProblem = (wanted: ExpectedError, { refusal }: Reply): string | undefined => {
  if (refusal === undefined) return `it succeeded, expected ${wanted.reason ?? wanted.code}`;
  const { retryAfterMs, fields, ...rest } = refusal;
  const found = { ...rest, fields: [...fields].sort(), retry: retryAfterMs !== undefined };
  const expected = wanted.fields ? { ...wanted, fields: [...wanted.fields].sort() } : wanted;
  const problem = difference('error', expected, found);
  return problem && `${problem} (${refusal.reason ?? refusal.code}: ${refusal.message})`;
};

/** Where a reply is not what was expected; undefined where it is. */
export const problemWith = (expected: Expectation, reply: Reply): string | undefined => {
  if (expected.error !== undefined) return errorProblem(expected.error, reply);
  const { refusal, messages, stream } = reply;
  if (refusal) return `it was refused: ${refusal.code} ${refusal.reason ?? ''}: ${refusal.message}`;
  const response = stream ? messages : messages[0];
  return (
    (expected.response === undefined ? undefined : difference('response', expected.response, response)) ??
    (expected.rows === undefined ? undefined : rowsProblem(expected.rows, rowsOf(reply)))
  );
};
