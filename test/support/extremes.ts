import { quoted, table, tableName } from '../../src/database/table.ts';
import { entities } from '../../src/entities/all.ts';
import { KEYS, WORDS } from './requests.ts';
import type { TestSidecar } from './sidecar.ts';

const ROWS = 100;

/** What columns of a type may hold at the edge, as text of PostgreSQL. */
const EXTREMES: Readonly<Record<string, readonly string[]>> = {
  'timestamp with time zone': [
    'infinity',
    '-infinity',
    '4713-11-24 00:00:00+00 BC',
    '294276-12-31 23:59:59.999999+00',
    '2025-01-01 00:00:00+00',
    'now',
  ],
  'double precision': ['1.7e308', '1.7e308', '-1.7e308', 'NaN', 'Infinity', '-Infinity', '5e-324', '1e-200', '0.5'],
  'double precision[]': ['{1e308,1e308}', '{5e-324,1e-200}', '{NaN,1}', '{{1,2}}', '{NULL,1}', '{}', '{1,1}'],
  integer: ['2147483647', '-2147483648', '0', '7'],
  bigint: ['9223372036854775807', '-9223372036854775808', '0'],
  boolean: ['t', 'f', 't', 't'],
  jsonb: [
    'null',
    '[]',
    '{}',
    '0',
    '1e400',
    '"not JSON"',
    '"{\\"a\\": [1]}"',
    '{"a": [null, 12345678901234567890]}',
    `${'['.repeat(3000)}1e400${']'.repeat(3000)}`,
  ],
  'text[]': ['{a,NULL}', '{{a,b},{NULL,d}}', '[3:4]={a,b}', '{}', '{a}'],
  'varchar[]': ['{a,NULL}', '{{a,b},{NULL,d}}', '[3:4]={a,b}', '{}', '{a}'],
  uuid: KEYS,
};

const TEXTS = [...WORDS, ...KEYS, 'ACTIVE', 'draft', 'pending', '[1', '["a1"]', '{"a1": 1}', '\u0001', '', '\u{1f600}'];

/** What a column may hold at the edge, for one row after the other; what requests look for, where they look for it. */
const extremesOf = (name: string, type: string): readonly string[] => {
  if (name === 'status') return ['draft', 'ACTIVE', 'pending'];
  if (name.endsWith('_id') && type !== 'integer') return KEYS;
  const numeric = /^numeric\((\d+),(\d+)\)$/.exec(type);
  if (numeric) {
    const [, precision, scale] = numeric.map(Number) as [number, number, number];
    const most = `${'9'.repeat(precision - scale)}.${'9'.repeat(scale)}`;
    return ['NaN', most, `-${most}`, '0'];
  }
  const length = Number(/^character varying\((\d+)\)$/.exec(type)?.[1] ?? Number.POSITIVE_INFINITY);
  return EXTREMES[type] ?? TEXTS.filter((each) => each.length <= length);
};

interface Property {
  readonly columnType: string;
  readonly primary?: boolean;
}

const keyOf = ({ columnType }: Property, row: number): string => {
  if (columnType === 'integer') return String(row + 1);
  return row < KEYS.length ? KEYS[row]! : `5b0c2b1e-0000-4000-8000-${String(row + 1).padStart(12, '0')}`;
};

let state = 1;
/** A number of a sequence that is the same in every run. */
const below = (limit: number): number => {
  state = (state * 48_271) % (2 ** 31 - 1);
  return state % limit;
};

/** What a column of that name and type holds in one row after the other. */
export type CellOf = (name: string, type: string) => string;

/** One of the values at the edge. */
export const extreme: CellOf = (name, type) => {
  const extremes = extremesOf(name, type);
  return extremes[below(extremes.length)]!;
};

/** Fills every table with rows, whatever its constraints say of them. */
export const fillTables = async (sidecar: TestSidecar, cellOf: CellOf): Promise<void> => {
  // What guards this program's own writes has not always guarded what is stored.
  const constraints = await sidecar.sql<{ command: string }>(
    `select format('alter table %s drop constraint %I cascade', conrelid::regclass, conname) as command
     from pg_constraint where contype in ('c', 'f', 'u') and conrelid >= 16384`,
  );
  const indexes = await sidecar.sql<{ command: string }>(
    `select format('drop index if exists %s', indexrelid::regclass) as command from pg_index
     where indisunique and not indisprimary and indrelid >= 16384`,
  );
  for (const { command } of constraints) await sidecar.sql(command);
  for (const { command } of indexes) await sidecar.sql(command);
  for (const entity of entities.filter((each) => !tableName(each).startsWith('policy_sidecar.'))) {
    const properties = Object.entries(entity.meta.properties as unknown as Record<string, Property>);
    const names = properties.map(([name]) => quoted(name));
    const values = properties.map(([, { columnType }], at) => `$${at + 1}::${columnType}`);
    const insert = `insert into ${table(entity)} (${names.join(', ')}) values (${values.join(', ')})`;
    await sidecar.sql(`alter table ${table(entity)} disable trigger all`);
    await sidecar.sql(`truncate ${table(entity)} cascade`);
    for (let row = 0; row < ROWS; row += 1) {
      const cells = properties.map(([name, property]) => {
        if (property.primary) return keyOf(property, row);
        return cellOf(name, property.columnType);
      });
      await sidecar.sql(insert, cells);
    }
  }
};
