import {
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type Message,
  toBinary,
} from '@bufbuild/protobuf';
import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { CallError, collect } from '../support/client.ts';
import { extreme, fillTables } from '../support/extremes.ts';
import { request } from '../support/requests.ts';
import { noServices } from '../support/services.ts';
import type { TestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

/** Texts that PostgreSQL takes: no NUL, and no half of a pair. */
const text = fc.string({ unit: 'binary', maxLength: 40 }).map((any) => any.toWellFormed().replaceAll('\0', ''));

/** Numbers as documents spell them, within a double's reach and beyond. */
const numeral = fc.oneof(
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
  fc.bigInt().map(String),
  fc
    .tuple(fc.bigInt({ min: 0n, max: 10n ** 20n }), fc.nat(30))
    .map(([whole, scale]) => `-${whole}.${'0'.repeat(scale)}5`),
);

const json: fc.Arbitrary<string> = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 6, withCrossShrink: true },
    fc.constantFrom('null', 'true', 'false', '{}', '[]', '""'),
    numeral,
    text.map((each) => JSON.stringify(each)),
    fc.array(tie('value'), { maxLength: 4 }).map((values) => `[${values.join(', ')}]`),
    fc
      .array(fc.tuple(fc.oneof(text, fc.constantFrom('__proto__', 'constructor', '1', '')), tie('value')), {
        maxLength: 4,
      })
      .map((entries) => `{${entries.map(([key, value]) => `${JSON.stringify(key)}: ${value}`).join(', ')}}`),
  ),
})).value;

/** Around the depth at which documents become text. */
const deep = fc
  .tuple(fc.integer({ min: 26, max: 40 }), json, fc.boolean())
  .map(([levels, value, lists]) =>
    lists
      ? `${'['.repeat(levels)}${value}${']'.repeat(levels)}`
      : `${'{"a":'.repeat(levels)}${value}${'}'.repeat(levels)}`,
  );

/** Any microsecond of the years 1 to 9999. */
const instant = fc.bigInt(-62_135_596_800_000_000n, 253_402_300_799_999_999n).map((micros) => {
  const second = micros / 1_000_000n - (micros % 1_000_000n < 0n ? 1n : 0n);
  const rest = String(((micros % 1_000_000n) + 1_000_000n) % 1_000_000n).padStart(6, '0');
  return `${new Date(Number(second) * 1_000).toISOString().slice(0, 19)}.${rest}+00`;
});

const quotedElement = text.map((each) => `"${each.replace(/["\\]/g, '\\$&')}"`);

const ARBITRARIES: Readonly<Record<string, fc.Arbitrary<string>>> = {
  jsonb: fc.oneof(json, json, deep),
  'timestamp with time zone': instant,
  'double precision': fc.double().map((value) => (Object.is(value, -0) ? '-0' : String(value))),
  integer: fc.integer().map(String),
  bigint: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n).map(String),
  'text[]': fc.array(quotedElement, { maxLength: 4 }).map((each) => `{${each.join(',')}}`),
  text,
};

const pools = new Map<string, Iterator<string>>();

/** Half of the cells at the edge, half of them anything. */
const cellOf = (name: string, type: string): string => {
  const arbitrary = ARBITRARIES[type];
  const edge = extreme(name, type);
  if (!arbitrary || /_id$|status/.test(name) || edge.length % 2 === 0) return edge;
  let pool = pools.get(type);
  let next = pool?.next();
  if (!next || next.done) {
    pool = fc.sample(arbitrary, { numRuns: 2_000, seed: SEED + pools.size })[Symbol.iterator]();
    pools.set(type, pool);
    next = pool.next();
  }
  return next.value;
};

const sidecar = useSidecar();
beforeAll(async () => {
  await fillTables(sidecar, cellOf);
}, 120_000);

/** Those that are one statement; what others compute may depend on the time of day. */
const reads = driversFor(noServices).flatMap(({ service, rpcs }) =>
  service.methods
    .filter(({ localName }) => rpcs[localName]!.kind === 'read' && typeof rpcs[localName]!.work !== 'function')
    .map((method) => [`${service.name}/${method.name}`, method] as const),
);

type Caller = TestSidecar['grpc'];

interface Told {
  readonly answers: string[];
  readonly inexact: string | undefined;
}

const canonical = (desc: DescMessage, message: Message): string => Buffer.from(toBinary(desc, message)).toString('hex');

const told = async (
  caller: Caller,
  method: DescMethod,
  sent: Record<string, unknown>,
  headers: Record<string, string>,
): Promise<Told | string> => {
  let inexact: string | undefined;
  const onTrailer = (trailer: (name: string) => string | undefined): void => {
    inexact = trailer('inexact-values');
  };
  try {
    const answers =
      method.methodKind === 'unary'
        ? [await caller.unary(method as DescMethodUnary, sent, { onTrailer, headers })]
        : await collect(caller.stream(method as DescMethodServerStreaming, sent, { onTrailer, headers }));
    return { answers: answers.map((answer) => canonical(method.output, answer)), inexact };
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    return String(error.reason);
  }
};

// gRPC gets rows as bytes that nothing was made of on the way, in PostgreSQL's binary forms; Connect gets messages made of
// their text. Both are read by the same library, and must be the same.
/** RPCs that have brought something to compare. */
const brought = new Set<string>();

test.each(reads)(`%s: rows made into bytes are the messages of their text (SEED=${SEED})`, async (name, method) => {
  for (const [at, given] of fc.sample(request(method.input), { numRuns: 12, seed: SEED }).entries()) {
    // Most requests leave out what they may, so that most rows are read.
    const sent = Object.fromEntries(Object.entries(given).filter(([name]) => at % 4 === 0 || /Id$|^table$/.test(name)));
    const headers = { documents: at % 2 === 0 ? 'values' : 'text' };
    const bytes = await told(sidecar.grpc, method, sent, headers);
    const text = await told(sidecar.connect, method, sent, headers);
    expect(
      bytes,
      JSON.stringify(sent, (_key, value) => (typeof value === 'bigint' ? String(value) : value)),
    ).toEqual(text);
    if (typeof bytes !== 'string' && bytes.answers.some((answer) => answer !== '')) brought.add(name);
  }
});

// Chance decides which: what names a row, or a moment, seldom finds one.
test(`nearly all of them have brought something (SEED=${SEED})`, () => {
  const empty = reads.map(([name]) => name).filter((name) => !brought.has(name));
  expect(empty.length, empty.join()).toBeLessThan(reads.length / 10);
});
