/**
 * The rules that the contract carries for clients, held against those that the sidecar checks requests with: both refuse the
 * same fields of the same requests.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import {
  create,
  createFileRegistry,
  type DescField,
  type DescMessage,
  fromBinary,
  type Message,
} from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { FeatureSet_FieldPresence, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { createValidator } from '@bufbuild/protovalidate';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
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
    { desc: registry.getMessage(input.typeName)!, check },
  ]),
);

/** What both say of a request: paths of fields. */
const saidOf = ({ desc, check }: Request, request: Message) => {
  const result = validator.validate(desc, request);
  if (result.kind === 'error') throw result.error;
  const said = result.kind === 'valid' ? [] : result.violations.map(({ field }) => pathToString(field));
  return {
    sidecar: check(request),
    annotations: new Set(said.filter((path) => !BY_HANDLER.has(`${desc.name} ${path}`)).map(inWhole)),
  };
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
  if (!message) return scalar === 9 ? 'a' : 1;
  const [choice] = message.oneofs.filter(({ fields }) => fields.length > 1);
  return choice ? holding(message, [choice.fields[0]!], create(choice.fields[0]!.message!)) : create(message);
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
const shortTexts = fc.oneof(
  fc.string({ maxLength: 4 }),
  fc.constantFrom('', '\0', ' ', '\n', 'a\0', '*', 'ä', '😀', '00000000-0000-0000-0000-000000000001', '0', '1e5', '.'),
);

const spellings = (lengths: readonly number[]): fc.Arbitrary<string> =>
  fc
    .tuple(
      fc.constantFrom(...lengths),
      fc.constantFrom('a', '_', ' ', 'é', '😀', '\n', '\0'),
      fc.constantFrom('', ' ', '   ', ' a', '\n', '\t'),
    )
    .map(([length, unit, end]) => unit.repeat(length) + end);

/** Values of a field, most of them about where a rule may begin to refuse. */
const valuesOf = (request: Request, way: Way): fc.Arbitrary<unknown> => {
  const field = way.at(-1)!;
  const wholes = (most: number): number[] => [
    ...[0, 1, -1, most, -most - 1],
    ...[most, -most - 1].flatMap((end) => borders(request, way, whole, 1, end)),
  ];
  const whole = (at: number): unknown => (field.scalar === 3 ? BigInt(at) : at);
  const doubles = [0, -0, 1, 0.5, -1e-9, 1.0000001, 1e300, -1e300, Number.NaN, Infinity, -Infinity];
  switch (field.fieldKind) {
    case 'scalar':
      if (field.scalar === 9) {
        const lengths = borders(request, way, (at) => 'a'.repeat(at), 1, 2_000).flatMap((at) => [at - 1, at, at + 1]);
        return fc.oneof(shortTexts, uuids, decimals, spellings([0, 1, ...lengths]));
      }
      if (field.scalar === 1) return fc.oneof(fc.constantFrom(...doubles), fc.double({ min: -2, max: 2 }));
      if (field.scalar === 8) return fc.boolean();
      return fc.constantFrom(...wholes(2_147_483_647).map(whole));
    case 'enum':
      return fc.constantFrom(-1, 99, ...field.enum.values.map(({ number }) => number));
    case 'list': {
      if (field.listKind === 'scalar' && field.scalar === 1)
        return fc.array(fc.constantFrom(...doubles), { maxLength: 3 });
      const some = (length: number): unknown[] => Array.from({ length }, () => elementOf(field));
      if (field.listKind !== 'message') return fc.constantFrom(...[0, 1, 2].map(some));
      borders(request, way, some, 1, MOST_ELEMENTS);
      return fc.constantFrom(...[0, 1, 2].map(some), [create(field.message)]);
    }
    case 'message':
      switch (field.message.typeName) {
        case 'google.protobuf.FieldMask': {
          const named = way.length === 1 ? (request.desc.field['updates']?.message?.fields ?? []) : [];
          const paths = fc.constantFrom('*', '', 'nope', 'name.x', ...named.map(({ name }) => name));
          return fc.array(paths, { maxLength: 3 }).map((chosen) => create(field.message, { paths: chosen } as never));
        }
        case 'google.protobuf.Duration': {
          const seconds = fc.constantFrom(0n, -1n, 1n, 3_599n, 3_600n, 3_601n);
          const nanos = fc.constantFrom(0, 1, 499_999, 500_000, 500_001, 999_999, 1_000_000, 999_999_999);
          return fc
            .record({ seconds, nanos })
            .map(({ seconds: whole, nanos: part }) =>
              create(field.message, { seconds: whole, nanos: whole < 0n ? -part : part } as never),
            );
        }
        default:
          return fc.constant(create(field.message));
      }
    default:
      throw new Error(`no values for ${field.name}, a ${field.fieldKind}`);
  }
};

describe('the annotations of the contract refuse what the sidecar refuses, and nothing else', () => {
  test.each([...requests])('of %s', (_name, request) => {
    for (const way of waysOf(request.desc)) {
      const isUnsettable = way.at(-1)!.presence === FeatureSet_FieldPresence.EXPLICIT;
      const values = valuesOf(request, way);
      const property = fc.property(isUnsettable ? fc.option(values, { nil: undefined }) : values, (value) => {
        const { sidecar, annotations } = saidOf(request, holding(request.desc, way, value));
        const said = sidecar.filter(({ description }) => ![...UNSAID.keys()].some((each) => each.test(description)));
        const isRefused = (path: string) =>
          sidecar.some(({ field }) => new RegExp(`^${RegExp.escape(path)}(?![^.[])`).test(field));
        expect([...annotations].filter((path) => !isRefused(path))).toEqual([]);
        expect(said.filter(({ field }) => !annotations.has(field))).toEqual([]);
      });
      fc.assert(property, { numRuns: 20 });
    }
  });
});
