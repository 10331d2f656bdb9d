import type { DescField, DescMessage, Message } from '@bufbuild/protobuf';
import type { FieldMask, Timestamp, Value } from '@bufbuild/protobuf/wkt';
import { isTimestampInRange, MAX_LEVELS } from '../database/values.ts';
import type { FieldViolation } from './errors.ts';
import type { PathOf } from './fields.ts';

/** A rule for a present value; returns what the value would have to be, or undefined when it is. */
export type Rule<V = never> = (value: V) => string | undefined;

/** Rules by path, whatever the message: what they are typed by has been left behind. */
type RuleTable = Readonly<Record<string, Rule | undefined>>;

/**
 * Rules keyed by proto field name, or by path (`rule.id`) for a field of a nested or repeated message. A rule sees a set
 * field; `required` also sees an unset one.
 */
export type Rules<D extends DescMessage> = { readonly [P in PathOf<D> as P[0]]?: Rule<P[1]> | undefined };

/** Rules of a message, as rules of the field of a request that holds it, or several of it. */
export const nested = <F extends string, R extends RuleTable>(field: F, rules: R) =>
  Object.fromEntries(Object.entries(rules).map(([name, rule]) => [`${field}.${name}`, rule])) as {
    readonly [N in keyof R & string as `${F}.${N}`]: R[N];
  };

const REQUIRED = new WeakSet<Rule>();

/** The message or optional field must be set. */
export const required = <V = unknown>(rule?: Rule<V>): Rule<V> => {
  const wrapped: Rule<V> = (value) => (value === undefined ? 'must be set' : rule?.(value));
  REQUIRED.add(wrapped);
  return wrapped;
};

const UUID = /^(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}$/i;

/** A UUID in any spelling PostgreSQL reads: either letter case, with or without hyphens and braces. */
export const uuid: Rule<string> = (text) => {
  const bare = text.startsWith('{') && text.endsWith('}') ? text.slice(1, -1) : text;
  return UUID.test(bare) ? undefined : 'must be a UUID';
};

/** Canonical lower-case form of a UUID that passed {@link uuid}. */
export const canonicalUuid = (text: string): string => {
  const hex = text.replace(/[{}-]/g, '').toLowerCase();
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
};

const characters = (text: string): number => {
  let length = 0;
  for (const _ of text) length += 1;
  return length;
};

/** At most that many characters, as PostgreSQL counts them. */
export const maxLength =
  (limit: number): Rule<string> =>
  (text) =>
    text.length <= limit || characters(text) <= limit ? undefined : `must have at most ${limit} characters`;

/** A number, or int64, of at least that. */
export const atLeast =
  (least: number): Rule<number | bigint> =>
  (value) =>
    value >= least ? undefined : `must be at least ${least}`;

/** A number, or int64, within both bounds. */
export const between =
  (least: number, most: number): Rule<number | bigint> =>
  (value) =>
    value >= least && value <= most ? undefined : `must be between ${least} and ${most}`;

/** A page size or offset. */
export const page = atLeast(0);

const DECIMAL = /^[+-]?(?:\d{1,500}(?:\.\d{0,500})?|\.\d{1,500})(?:[eE][+-]?\d{1,4})?$/;

/** Exact decimal text, of no more digits than PostgreSQL reads. */
export const decimal: Rule<string> = (text) =>
  DECIMAL.test(text) ? undefined : 'must be a decimal number of at most 500 digits before and 500 behind the point';

/** A text of at least one character. */
export const filled: Rule<string> = (text) => (text.length > 0 ? undefined : 'must not be empty');

/** The path of a mask that names every field. */
export const EVERY = '*';

/** A field mask over exactly these paths, or {@link EVERY} alone. */
export const mask =
  (paths: readonly string[]): Rule<FieldMask> =>
  (value) => {
    if (value.paths.length === 1 && value.paths[0] === EVERY) return undefined;
    const unknown = value.paths.filter((path) => !paths.includes(path));
    return unknown.length === 0 ? undefined : `names unknown paths: ${unknown.join(', ')}`;
  };

/** All of these. */
export const all =
  <V>(...rules: readonly Rule<V>[]): Rule<V> =>
  (value) => {
    for (const rule of rules) {
      const problem = rule(value);
      if (problem) return problem;
    }
    return undefined;
  };

const UNCHECKED = new WeakSet<Rule>();

/** Only this rule: what the field's type demands is checked elsewhere, or not at all. */
export const unchecked = <V>(rule: Rule<V>): Rule<V> => {
  const wrapped: Rule<V> = (value) => rule(value);
  UNCHECKED.add(wrapped);
  if (REQUIRED.has(rule)) REQUIRED.add(wrapped);
  return wrapped;
};

const NUL = 'must not contain U+0000';

/** Why a text cannot be stored. */
// Protobuf's JSON form lets half a pair into a Value, though into no string field; stored, it would be another character.
export const textProblem = (text: string): string | undefined => {
  if (text.includes('\0')) return NUL;
  return text.isWellFormed() ? undefined : 'must not contain half of a surrogate pair';
};

const scalarProblem = (json: unknown): string | undefined => {
  if (typeof json === 'string') return textProblem(json);
  return typeof json === 'number' && !Number.isFinite(json) ? 'must not contain NaN or infinities' : undefined;
};

const valueProblem = (value: Value, levels = MAX_LEVELS): string | undefined => {
  const { kind } = value;
  if (kind.case !== 'listValue' && kind.case !== 'structValue') return scalarProblem(kind.value);
  if (levels === 0) return `must not be nested deeper than ${MAX_LEVELS} levels`;
  if (kind.case === 'listValue') {
    for (const element of kind.value.values) {
      const problem = valueProblem(element, levels - 1);
      if (problem) return problem;
    }
    return undefined;
  }
  for (const [key, element] of Object.entries(kind.value.fields)) {
    const problem = textProblem(key) ?? valueProblem(element, levels - 1);
    if (problem) return problem;
  }
  return undefined;
};

/** What every value of a field's type must satisfy, whatever the RPC. */
type Check = (value: never, path: string, problems: FieldViolation[]) => void;

const simple =
  (problem: (value: never) => string | undefined): Check =>
  (value, path, problems) => {
    const description = problem(value);
    if (description) problems.push({ field: path, description });
  };

const textCheck = simple((text: string) => (text.includes('\0') ? NUL : undefined));
const doubleCheck = simple((number: number) => (Number.isFinite(number) ? undefined : 'must be a finite number'));
const WELL_KNOWN: Readonly<Record<string, Check>> = {
  'google.protobuf.Timestamp': simple((instant: Timestamp) =>
    isTimestampInRange(instant) ? undefined : 'must be an instant of the years 1 to 9999',
  ),
  'google.protobuf.Duration': simple(() => undefined),
  'google.protobuf.FieldMask': simple(() => undefined),
  'google.protobuf.Value': simple((value: Value) => valueProblem(value)),
};

const checksOfMessages = new Map<string, (message: Message, path: string, problems: FieldViolation[]) => void>();

const messageCheck = (desc: DescMessage): Check => {
  const known = WELL_KNOWN[desc.typeName];
  if (known) return known;
  return (message, path, problems) => checkMessage(desc)(message as Message, `${path}.`, problems);
};

/** Check of one present element of a field, or undefined where its type allows everything. */
const elementCheck = (field: DescField, nested: RuleTable | undefined): Check | undefined => {
  const kind =
    field.fieldKind === 'list' ? field.listKind : field.fieldKind === 'map' ? field.mapKind : field.fieldKind;
  if (kind === 'message') {
    if (!nested) return messageCheck(field.message as DescMessage);
    const check = compile(field.message as DescMessage, nested);
    return (message, path, problems) => check(message as Message, `${path}.`, problems);
  }
  if (kind === 'enum') {
    const numbers = new Set(field.enum!.values.map(({ number }) => number).filter((number) => number !== 0));
    return simple((number: number) => (numbers.has(number) ? undefined : 'must be a known value'));
  }
  switch (field.scalar) {
    case 9:
      return textCheck;
    case 1:
    case 2:
      return doubleCheck;
    default:
      return undefined;
  }
};

const fieldCheck = (field: DescField, own: Rule | undefined, nested: RuleTable | undefined): Check | undefined => {
  const element = own && UNCHECKED.has(own) ? undefined : elementCheck(field, nested);
  const ofType: Check | undefined =
    element && field.fieldKind === 'list'
      ? (values: never, path, problems) => {
          (values as unknown[]).forEach((value, index) => {
            element(value as never, `${path}[${index}]`, problems);
          });
        }
      : element && field.fieldKind === 'map'
        ? (values: never, path, problems) => {
            for (const [key, value] of Object.entries(values)) element(value as never, `${path}[${key}]`, problems);
          }
        : element;
  if (!own) return ofType;
  return (value, path, problems) => {
    const before = problems.length;
    ofType?.(value, path, problems);
    const description = problems.length === before ? own(value) : undefined;
    if (description) problems.push({ field: path, description });
  };
};

const isUnset = (field: DescField, value: unknown): boolean => {
  if (value === undefined) return true;
  // An enum with implicit presence counts as unset only where no rule demands it: zero is never a stored value.
  return field.fieldKind === 'list' ? (value as unknown[]).length === 0 : false;
};

const compile = (
  desc: DescMessage,
  rules: RuleTable,
): ((message: Message, path: string, problems: FieldViolation[]) => void) => {
  const nested: Record<string, Record<string, Rule | undefined>> = {};
  for (const [path, rule] of Object.entries(rules)) {
    const [name, ...rest] = path.split('.') as [string, ...string[]];
    if (!desc.fields.some((field) => field.name === name)) throw new Error(`${desc.typeName} has no field ${name}`);
    if (rest.length > 0) {
      nested[name] ??= {};
      nested[name][rest.join('.')] = rule;
    }
  }
  const checks = desc.fields.flatMap((field) => {
    const own = rules[field.name];
    const check = fieldCheck(field, own, nested[field.name]);
    return check ? [{ field, check, required: own !== undefined && REQUIRED.has(own) }] : [];
  });
  return (message, path, problems) => {
    for (const { field, check, required: demanded } of checks) {
      const holder = message as unknown as Record<string, unknown>;
      const choice = field.oneof ? (holder[field.oneof.localName] as { case?: string; value?: unknown }) : undefined;
      const value = choice ? (choice.case === field.localName ? choice.value : undefined) : holder[field.localName];
      if (isUnset(field, value)) {
        if (demanded) problems.push({ field: `${path}${field.name}`, description: 'must be set' });
      } else {
        check(value as never, `${path}${field.name}`, problems);
      }
    }
  };
};

/** The check of a nested message: only what its types demand. */
const checkMessage = (desc: DescMessage): ((message: Message, path: string, problems: FieldViolation[]) => void) => {
  const known = checksOfMessages.get(desc.typeName);
  if (known) return known;
  // Registered before it is compiled, so that a message that contains itself terminates.
  let compiled: ReturnType<typeof compile> | undefined;
  const lazy: ReturnType<typeof compile> = (message, path, problems) => {
    compiled ??= compile(desc, {});
    compiled(message, path, problems);
  };
  checksOfMessages.set(desc.typeName, lazy);
  return lazy;
};

/**
 * Compiles the check of a request: its own rules, and everywhere below no U+0000 in a text, no NaN or infinity, no
 * unknown or unspecified enum value, no instant outside the range of a Timestamp, no document nested too deep. All offending fields are reported.
 */
export const requestCheck = <D extends DescMessage>(
  desc: D,
  rules: Rules<D>,
): ((message: Message) => FieldViolation[]) => {
  const check = compile(desc, rules as RuleTable);
  return (message) => {
    const problems: FieldViolation[] = [];
    check(message, '', problems);
    return problems;
  };
};
