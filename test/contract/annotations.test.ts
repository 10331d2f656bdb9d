/**
 * The rules that the contract carries for clients, held against those that the sidecar checks requests with: both refuse the
 * same fields of the same requests; and the OpenAPI document's schemas against them, as far as a schema can say them.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import {
  create,
  createFileRegistry,
  type DescField,
  type DescMessage,
  fromBinary,
  type JsonValue,
  type Message,
  ScalarType,
  toJson,
} from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { FeatureSet_FieldPresence, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { createValidator, type Violation } from '@bufbuild/protovalidate';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { nameOf, readContract } from '../../reference/contract.ts';
import { openApiOf } from '../../reference/openapi.ts';
import { isRequired } from '../../reference/rules.ts';
import type { Json } from '../../reference/schemas.ts';
import type { FieldViolation } from '../../src/contract/errors.ts';
import { requestCheck } from '../../src/contract/rules.ts';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { driverEndpoints } from '../../src/server/endpoint.ts';
import { transactionEndpoints } from '../../src/server/transaction-service.ts';
import { PageTokens } from '../../src/statements/page-tokens.ts';
import { noServices } from '../support/services.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const registry = createFileRegistry(
  fromBinary(
    FileDescriptorSetSchema,
    execFileSync(join(ROOT, 'node_modules', '.bin', 'buf'), ['build', '-o', '-'], { cwd: ROOT, maxBuffer: 64 << 20 }),
  ),
);
const validator = createValidator();
const schemas = new Ajv2020({ strict: false, logger: false, validateFormats: false });
const document = openApiOf(readContract()) as { readonly components: { readonly schemas: Record<string, Json> } };
schemas.addSchema(document, 'document');

/** What the sidecar refuses by a rule of a field and no annotation does, by what it says, and why. */
const UNSAID: ReadonlyMap<RegExp, string> = new Map([
  [/^must not contain U\+0000$/, 'of a text that has no other rule: it would be said of every text'],
  [/^must not contain half of a surrogate pair$/, 'in a document'],
  [/^must not contain NaN or infinities$/, 'in a document'],
  [/^must not be nested deeper than/, 'a document: no expression goes down all of it'],
  [/^must be an instant of the years 1 to 9999$/, 'what is none is no Timestamp, by its own definition'],
  [/^must be less than \d+ once it is rounded/, 'no pattern adds up digits and exponent'],
  [/^must not name a table of its own at/, 'an operation of any kind: each would have to be named'],
]);

/** What no schema says: bounds of what is a text in JSON, and expressions. */
const NOT_IN_SCHEMAS = /^(?:int64|duration)\.|^(?:update_mask|days_old)$/;

/** What is answered, too, may hold what older programs stored. */
const isSentOnly = ({ typeName }: DescMessage): boolean =>
  document.components.schemas[nameOf({ typeName })]?.['additionalProperties'] === false;

const isInSchemas = ({ ruleId, field }: Violation): boolean => {
  const last = field.findLast((part) => 'parent' in part);
  return !NOT_IN_SCHEMAS.test(ruleId) && (last === undefined || isSentOnly(last.parent as DescMessage));
};

/** What an annotation says and a handler checks, not a rule of a field. */
const BY_HANDLER = new Set(['GetOutcomeRequest subject', 'ExecuteRequest operations[0].request']);

/** Where the sidecar names a list as a whole, and an annotation what is wrong in it. */
const inWhole = (path: string): string =>
  path
    .replace(/^(operations)\[\d+\]\.request$/, '$1')
    .replace(/\[\d+\](\.blocks)\[\d+\](\.instructions)\[\d+\]\.operation$/, '[0]$1[0]$2')
    .replace(/^module\.functions$/, 'module');

interface Request {
  readonly desc: DescMessage;
  readonly check: (request: Message) => FieldViolation[];
  readonly schema: ValidateFunction;
}

const drivers = driversFor(noServices);
const control = transactionEndpoints(
  {} as never,
  {} as never,
  drivers.flatMap(driverEndpoints(new PageTokens())),
  AbortSignal.abort(),
);
/** By the name of the RPC: its request, and the check of its fields alone. */
const requests = new Map<string, Request>(
  [
    ...drivers.flatMap(({ service, rpcs }) =>
      service.methods.map((method) => [method, requestCheck(method.input, rpcs[method.localName]!.rules)] as const),
    ),
    ...control.map(({ method, check }) => [method, check] as const),
  ].map(([{ parent, name, input }, check]) => [
    `${parent.name}/${name}`,
    {
      desc: registry.getMessage(input.typeName)!,
      check,
      schema: schemas.getSchema(`document#/components/schemas/${nameOf(input)}`)!,
    },
  ]),
);

const violationsOf = (desc: DescMessage, request: Message) => {
  const result = validator.validate(desc, request);
  if (result.kind === 'error') throw result.error;
  return result.kind === 'valid' ? [] : result.violations;
};

/** What both say of a request: paths of fields. */
const saidOf = ({ desc, check }: Request, request: Message) => {
  const said = violationsOf(desc, request).map(({ field }) => pathToString(field));
  return {
    sidecar: check(request),
    annotations: new Set(said.filter((path) => !BY_HANDLER.has(`${desc.name} ${path}`)).map(inWhole)),
  };
};

/** The request as JSON; nothing where it has no such form. */
const jsonOf = (desc: DescMessage, request: Message): JsonValue | undefined => {
  try {
    return toJson(desc, request);
  } catch {
    return undefined;
  }
};

type Way = readonly [DescField, ...DescField[]];

const isOwn = ({ message }: DescField): boolean => message !== undefined && !message.typeName.startsWith('google.');

/** Ways to all fields of a message and of those in it; of a message in itself, once. */
const waysOf = (desc: DescMessage, before: readonly DescField[] = [], seen: readonly DescMessage[] = []): Way[] =>
  desc.fields.flatMap((field) => {
    const way = [...before, field] as unknown as Way;
    // Operations are checked by the rules of their own RPCs.
    const isLeaf = !isOwn(field) || seen.includes(field.message!) || field.message!.name === 'Operation';
    return [way, ...(isLeaf ? [] : waysOf(field.message!, way, [...seen, desc]))];
  });

/** A message in which nothing is set but a field, at the end of a way. */
const holding = (desc: DescMessage, [field, ...rest]: Way, value: unknown): Message => {
  const [next] = rest;
  const inner = next ? holding(field.message!, rest as unknown as Way, value) : value;
  const held = next && field.fieldKind === 'list' ? [inner] : inner;
  const message = create(desc) as Message & Record<string, unknown>;
  if (!field.oneof) message[field.localName] = held;
  else if (held !== undefined) message[field.oneof.localName] = { case: field.localName, value: held };
  return message;
};

const pathOf = (way: Way): string =>
  way.map(({ name, fieldKind }, at) => (fieldKind === 'list' && at < way.length - 1 ? `${name}[0]` : name)).join('.');

/** An element of a list that nothing is wrong with as far as it goes. */
const elementOf = ({ message, scalar }: DescField): unknown => {
  if (!message) return scalar === ScalarType.STRING ? UUID : 1;
  const [choice] = message.oneofs.filter(({ fields }) => fields.length > 1);
  if (choice) return holding(message, [choice.fields[0]!], create(choice.fields[0]!.message!));
  // One that is refused for itself would keep what is said of the list from being seen.
  const wanted = message.fields.filter(isRequired);
  return create(message, Object.fromEntries(wanted.map((each) => [each.localName, elementOf(each)])) as never);
};

/** The numbers beside which verdicts change between two of them. */
const bordersOf = (refuses: (at: number) => boolean, from: number, to: number): number[] => {
  const first = refuses(from);
  if (refuses(to) === first) return [];
  let [near, far] = [from, to];
  while (Math.abs(far - near) > 1) {
    const middle = near + Math.trunc((far - near) / 2);
    if (refuses(middle) === first) near = middle;
    else far = middle;
  }
  return [near, far];
};

/** Where verdicts on the values that numbers stand for change, which is the same for both sides. */
const borders = (request: Request, way: Way, made: (at: number) => unknown, from: number, to: number): number[] => {
  const path = inWhole(pathOf(way));
  const asked = new Map<number, ReturnType<typeof saidOf>>();
  const of = (at: number) => {
    const said = asked.get(at) ?? saidOf(request, holding(request.desc, way, made(at)));
    asked.set(at, said);
    return said;
  };
  const found = bordersOf((at) => of(at).sidecar.some(({ field }) => field === path), from, to);
  expect([path, bordersOf((at) => of(at).annotations.has(path), from, to)]).toEqual([path, found]);
  return found;
};

/** More than any list may have that has a limit of its own. */
const MOST_ELEMENTS = 20_001;

const HEX = '0123456789abcdefABCDEF';
const uuids = fc
  .tuple(
    fc.array(fc.string({ unit: fc.constantFrom(...HEX), minLength: 4, maxLength: 4 }), { minLength: 7, maxLength: 9 }),
    fc.infiniteStream(fc.constantFrom('', '', '-', '--')),
    fc.constantFrom(['', ''], ['{', '}'], ['{', ''], ['', '}'], ['{{', '}}'], [' ', ''], ['', '\n']),
  )
  .map(([parts, between, [open, close]]) => {
    const [first, ...rest] = parts;
    return `${open}${first}${rest.map((part) => `${between.next().value}${part}`).join('')}${close}`;
  });
const decimals = fc.stringMatching(/^[+-]{0,2}[0-9]{0,2}\.?[0-9]{0,2}(e[+-]?[0-9]{0,5})?$/);
const UUID = '0123abcd-4567-89ab-cdef-0123456789AB';
const BARE = UUID.replaceAll('-', '');
const TEXTS = [
  ...['', '\0', ' ', '\n', 'a', 'a b', 'ä', '😀', 'a\0', '*'],
  ...[UUID, BARE, `{${UUID}}`, `{${BARE}}`, `{${UUID}`, `${UUID}}`, `${UUID}\n`, ` ${UUID}`, BARE.slice(1), `${BARE}0`],
  ...[BARE.replace(/(?<=^(.{4})+)(?!$)/g, '-'), `${UUID}-`, BARE.replace(/(?<=^.)/, '-'), BARE.replace('a', 'g')],
  ...['1'.repeat(500), '1'.repeat(501), `.${'1'.repeat(500)}`, `.${'1'.repeat(501)}`, `1.${'1'.repeat(501)}`],
  ...['0', '+1.5e-3', '-.5', '1.', '.', '1e', '1e12345', '1e1234', '1E9', '0x1', '1,5', ' 1', '١'],
];
const DOUBLES = [0, -0, 1, 0.5, -1e-9, 1.0000001, 1e300, -1e300, Number.NaN, Infinity, -Infinity];

/** Texts about as long as that: what PostgreSQL counts as one, what it does not count, and what a pattern may stumble over. */
const textsOf = (length: number): string[] => [
  ...['a', '😀', ' ', '\n'].map((unit) => unit.repeat(length)),
  ...[' ', '   ', ' a', '\n', '\t'].map((end) => 'a'.repeat(length) + end),
];

/** Values to try of a field: some always, others by chance. */
interface Values {
  readonly always: readonly unknown[];
  readonly others?: fc.Arbitrary<unknown>;
}

const textValues = (request: Request, way: Way): Values => {
  const lengths = borders(request, way, (at) => 'a'.repeat(at), 1, 2_000);
  return {
    always: [...TEXTS, ...lengths.flatMap(textsOf)],
    others: fc.oneof(uuids, decimals, fc.string({ maxLength: 4 })),
  };
};

const wholeValues = (request: Request, way: Way, made: (at: number) => unknown): Values => {
  const [least, most] = [-2_147_483_648, 2_147_483_647];
  const edges = [least, most].flatMap((end) => borders(request, way, made, 1, end));
  return { always: [0, 1, -1, least, most, ...edges].map(made) };
};

const listValues = (request: Request, way: Way, field: DescField): Values => {
  const some = (length: number): unknown[] => Array.from({ length }, () => elementOf(field));
  const always = [0, 1, 2].map(some);
  if (field.scalar === ScalarType.DOUBLE) return { always: [...always, ...DOUBLES.map((double) => [1, double])] };
  if (!field.message) return { always };
  borders(request, way, some, 1, MOST_ELEMENTS);
  return { always: [...always, [create(field.message)]] };
};

const maskValues = (mask: DescMessage, updates: DescMessage | undefined): Values => {
  const names = (updates?.fields ?? []).map(({ name }) => name);
  const of = (paths: readonly string[]) => create(mask, { paths } as never);
  const others = fc.array(fc.constantFrom('*', '', 'nope', 'name.x', ...names), { maxLength: 3 }).map(of);
  return { always: [[], ['*'], ['*', '*'], ['nope'], [''], names, ...names.map((name) => [name])].map(of), others };
};

const durationValues = (duration: DescMessage): Values => {
  const parts = [0, 1, 499_999, 500_000, 500_001, 999_999, 1_000_000, 999_999_999];
  const of = (seconds: bigint, nanos: number) =>
    create(duration, { seconds, nanos: seconds < 0n ? -nanos : nanos } as never);
  return {
    always: [0n, -1n, 1n, 3_599n, 3_600n, 3_601n].flatMap((seconds) => parts.map((nanos) => of(seconds, nanos))),
  };
};

/** Values of a field, most of them about where a rule may begin to refuse. */
const valuesOf = (request: Request, way: Way): Values => {
  const field = way.at(-1)!;
  if (field.fieldKind === 'list') return listValues(request, way, field);
  if (field.fieldKind === 'enum') return { always: [-1, 99, ...field.enum.values.map(({ number }) => number)] };
  if (field.fieldKind === 'message') {
    const { message } = field;
    if (message.typeName === 'google.protobuf.FieldMask')
      return maskValues(message, request.desc.field['updates']?.message);
    return message.typeName === 'google.protobuf.Duration' ? durationValues(message) : { always: [create(message)] };
  }
  switch (field.scalar) {
    case ScalarType.STRING:
      return textValues(request, way);
    case ScalarType.DOUBLE:
      return { always: DOUBLES, others: fc.double({ min: -2, max: 2 }) };
    case ScalarType.BOOL:
      return { always: [true] };
    case ScalarType.INT32:
      return wholeValues(request, way, (at) => at);
    case ScalarType.INT64:
      return wholeValues(request, way, BigInt);
    default:
      throw new Error(`there are no values for ${pathOf(way)}`);
  }
};

describe('the annotations of the contract refuse what the sidecar refuses, and nothing else', () => {
  test.each([...requests])('of %s', (_name, request) => {
    for (const way of waysOf(request.desc)) {
      const holds = (value: unknown): void => {
        const message = holding(request.desc, way, value);
        const { sidecar, annotations } = saidOf(request, message);
        const refuses = (path: string) =>
          sidecar.some(({ field }) => field === path || field.startsWith(`${path}.`) || field.startsWith(`${path}[`));
        const unsaid = ({ field, description }: FieldViolation) =>
          !annotations.has(field) && ![...UNSAID.keys()].some((each) => each.test(description));
        const apart = {
          onlyAnnotations: [...annotations].filter((path) => !refuses(path)),
          onlySidecar: sidecar.filter(unsaid),
        };
        expect({ path: pathOf(way), value, ...apart }).toEqual({
          path: pathOf(way),
          value,
          onlyAnnotations: [],
          onlySidecar: [],
        });
        const json = jsonOf(request.desc, message);
        // A value that an enum does not have is a number in JSON, which no schema describes.
        const choice = way.at(-1)!.enum;
        if (json === undefined || (choice && !choice.value[value as number])) return;
        const said = violationsOf(request.desc, message).filter(isInSchemas);
        expect({ json, fits: request.schema(json), errors: request.schema.errors ?? [] }).toEqual({
          json,
          fits: said.length === 0,
          errors: said.length === 0 ? [] : expect.anything(),
        });
      };
      const { always, others } = valuesOf(request, way);
      if (way.at(-1)!.presence === FeatureSet_FieldPresence.EXPLICIT) holds(undefined);
      for (const value of always) holds(value);
      if (others) fc.assert(fc.property(others, holds), { numRuns: 10 });
    }
  });
});
