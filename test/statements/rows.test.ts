import { type DescField, type DescMessage, type Message, ScalarType, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { ResponseSize } from '../../src/contract/response-size.ts';
import { Bytes } from '../../src/database/bytes.ts';
import { CallNotes } from '../../src/database/notes.ts';
import { type Database, openDatabase } from '../../src/database/pool.ts';
import { AutoCommitSession } from '../../src/database/session.ts';
import { statement } from '../../src/database/statement.ts';
import { readTarget } from '../../src/database/target.ts';
import { drivers } from '../../src/drivers/drivers.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { answering, one, response } from '../../src/statements/answers.ts';
import { EncodedRows } from '../../src/statements/encoded-rows.ts';
import { PageTokens } from '../../src/statements/page-tokens.ts';
import { Paging } from '../../src/statements/places.ts';
import { rowsOf } from '../../src/statements/projection.ts';
import { createEmptyDatabase } from '../support/postgres.ts';
import { noServices } from '../support/services.ts';
import { useDatabase } from '../support/use.ts';

const database = useDatabase(createEmptyDatabase);
let open: Database;
beforeAll(() => {
  const lane = { max: 2, queue: 10, waitMs: 10_000 };
  const clocks = { statementMs: 60_000, lockMs: 5_000 };
  open = openDatabase(readTarget(database.url), { calls: lane, transactions: lane, ...clocks, pooler: 'auto' });
});
afterAll(() => open?.end(1_000));

const session = (notes = new CallNotes()) =>
  new AutoCommitSession(open, { signal: undefined, notes, bound: undefined });

/** A type of PostgreSQL, and what its columns hold in one row after the other; null is NULL. */
type Column = readonly [type: string, ...values: (string | null)[]];

const NUMBERS: readonly Column[] = [
  ['integer', '0', '-1', '2147483647', '-2147483648', null],
  ['smallint', '-5', '0', '32767', '-32768', null],
  ['bigint', '-1', '0', '4294967296', '9223372036854775807', '-9223372036854775808', '-4294967297'],
  ['numeric', '1.5', '-0.4', '99999999999999999999', 'NaN', '0', null],
];
const DOUBLES: readonly Column[] = [
  ['double precision', '0', '-0', 'NaN', 'Infinity', '-Infinity', '5e-324', '-1.7e308', '0.1', null],
  ['real', '0.1', '0', '-1.5', null],
  ['numeric', '0.1', '12345678901234567890.5', '0', null],
];
const TEXTS: readonly Column[] = [
  ['text', '', 'a', 'ß'.repeat(70), '\u{1f600}', 'x'.repeat(20_000), null],
  ['uuid', '5b0c2b1e-0000-4000-8000-000000000001', null],
  ['numeric', '1.50', '-0.0000001', null],
];
const INSTANTS: readonly Column[] = [
  [
    'timestamptz',
    '1970-01-01 00:00:00+00',
    '0001-01-01 00:00:00+00',
    '9999-12-31 23:59:59.999999+00',
    '1969-12-31 23:59:59.999999+00',
    '1700-02-28 23:00:00.000001+00',
    'infinity',
    '-infinity',
    '0044-03-15 12:00:00+00 BC',
    '294276-12-31 23:59:59.999999+00',
    null,
  ],
];
const DOCUMENTS: readonly Column[] = [
  [
    'jsonb',
    'null',
    '{}',
    '[]',
    '""',
    '-0.5',
    '1e400',
    '12345678901234567890',
    '{"a": {"b": [true, false, null, "\\u00e9\\n\\"", 1.25]}}',
    '{"__proto__": 1, "": [[]]}',
    `${'['.repeat(30)}1${']'.repeat(30)}`,
    `${'['.repeat(31)}1.0000000000000000001${']'.repeat(31)}`,
    `"${'y'.repeat(300)}"`,
    null,
  ],
];
const LISTS: readonly Column[] = [['text[]', '{}', '{a,"b,\\"c"}', '{NULL,a}', '{{a,b},{c,d}}', '[2:3]={a,b}', null]];

/** Columns that a field may be filled from. */
const columnsFor = (field: DescField): readonly Column[] | undefined => {
  switch (field.fieldKind) {
    case 'enum':
      return [
        ['text', ...field.enum.values.map(({ name }) => name.slice(field.enum.sharedPrefix?.length)), 'no such', null],
      ];
    case 'list':
      return LISTS;
    case 'message':
      return { Timestamp: INSTANTS, Value: DOCUMENTS, StringList: LISTS }[field.message.name];
    case 'scalar':
      switch (field.scalar) {
        case ScalarType.STRING:
          return TEXTS;
        case ScalarType.BOOL:
          return [['boolean', 't', 'f', null]];
        case ScalarType.DOUBLE:
          return DOUBLES;
        case ScalarType.BYTES:
          return [['bytea', '\\x', '\\x00ff', null]];
        default:
          return NUMBERS;
      }
    default:
      return undefined;
  }
};

const literal = (value: string | null, type: string): string =>
  value === null ? 'null' : `'${value.replaceAll("'", "''")}'::${type}`;

/** SQL: the values of a column, over and over. */
const columnSql = ([type, ...values]: Column): string =>
  `case (n % ${values.length}) ${values.map((value, at) => `when ${at} then ${literal(value, type)}`).join(' ')} end`;

const messagesWithin = (desc: DescMessage, seen = new Map<string, DescMessage>()): Map<string, DescMessage> => {
  if (seen.has(desc.typeName) || desc.typeName.startsWith('google.')) return seen;
  seen.set(desc.typeName, desc);
  for (const { message } of desc.fields) if (message) messagesWithin(message, seen);
  return seen;
};

/** Every message of the contract that a row can be. */
const messages = [
  ...new Map(
    drivers(noServices).flatMap(({ service }) => service.methods.flatMap(({ output }) => [...messagesWithin(output)])),
  ).values(),
].filter((desc) => {
  if (desc.fields.length === 0 || !desc.fields.every(columnsFor)) return false;
  try {
    rowsOf(desc);
    return true;
  } catch {
    return false;
  }
});

const ROWS = 60;
const VARIANTS = 4;

describe.each(messages.map((desc) => [desc.name, desc] as const))('rows as %s', (name, desc) => {
  test('are the same bytes as the message that their text becomes', async () => {
    for (let variant = 0; variant < VARIANTS; variant += 1) {
      const columns = desc.fields.map((field) => {
        const all = columnsFor(field)!;
        return columnSql(all[variant % all.length]!);
      });
      const reading = rowsOf(desc);
      const sql = `select ${columns.join(', ')} from generate_series(1, ${ROWS}) n order by n`;
      const asked = statement(`rows_test.${name.slice(0, 40)}.${variant}`, sql, reading);
      const [ofText, ofBytes] = [new CallNotes(), new CallNotes()];
      const wanted = (await session(ofText).rows(asked, [])) as Message[];
      // The first use has all cells as text, for nobody knows their types yet.
      for (const use of ['first', 'next']) {
        ofBytes.clear();
        const made = () => new EncodedRows(reading.encoder!, undefined, ofBytes);
        const { sink } = await session(ofBytes).collect(asked, [], made);
        const bytes = sink.each().map((row) => Buffer.from(row).toString('hex'));
        expect(bytes, use).toEqual(wanted.map((message) => Buffer.from(toBinary(desc, message)).toString('hex')));
        expect(ofBytes.text).toBe(ofText.text);
      }
    }
  });
});

// Story: room was set aside for exactly as many bytes as the last call's. Whoever writes asks for some more than it needs in the
// end, so that every call made its buffer anew: a tenth of what a point read cost.
test('rows like those of the call before find room for all', async () => {
  const reading = rowsOf(PolicyEngineService.method.resetRiskCeiling.output);
  const asked = statement('rows_test.alike', 'select n from generate_series(1, 2000) n', reading);
  const bytes = async (): Promise<Buffer> => {
    const made = () => new EncodedRows(reading.encoder!, 10, new CallNotes());
    return (await session().collect(asked, [], made)).sink.bytes();
  };
  await bytes();
  await bytes();
  const grown = vi.spyOn(Bytes.prototype, 'grow');
  const again = await bytes();
  expect(grown).not.toHaveBeenCalled();
  grown.mockRestore();
  expect(again.length).toBeGreaterThan(4_096);
});

test('there are messages to compare', () => expect(messages.length).toBeGreaterThan(30));

const none = statement(
  'rows_test.none',
  'select 1::bigint where false',
  rowsOf(PolicyEngineService.method.resetRiskCeiling.output),
);

test.each([
  [
    'a field',
    one<typeof PolicyEngineService.method.resetRiskCeiling, 'rowsAffected'>('rowsAffected', () => none.with() as never),
  ],
  ['the response', response<typeof PolicyEngineService.method.resetRiskCeiling>(() => none.with())],
])('no row where one must come as %s is an error that names the statement', async (_as, answer) => {
  const { resetRiskCeiling } = PolicyEngineService.method;
  const ways = answering(resetRiskCeiling, answer as never, new Paging(resetRiskCeiling, new PageTokens()));
  for (const run of [ways.message, ways.bytes]) {
    const size = new ResponseSize(PolicyEngineService.method.resetRiskCeiling, Number.POSITIVE_INFINITY);
    await expect(run(session(), {} as Message, size)).rejects.toThrow('statement rows_test.none brought no row');
  }
});
