import { describe, expect, test } from 'vitest';
import { column, columnList, columnNamed, columnsOf, quoted, table, tableName } from '../../src/database/table.ts';
import { defineTable, int, text } from '../../src/entities/columns.ts';
import { NOBODY } from '../../src/entities/owner.ts';
import { Violation } from '../../src/entities/violation.ts';
import { useClient, useDatabase } from '../support/use.ts';

describe('names of an entity', () => {
  test('a column that does not exist does not compile, and is refused when the module loads', () => {
    // @ts-expect-error: a misspelt column
    expect(() => column(Violation, 'nmae')).toThrow('policy.violations has no column nmae');
    // @ts-expect-error: the same by an entity's own function
    expect(() => columnsOf(Violation)('nmae')).toThrow('policy.violations has no column nmae');
    // @ts-expect-error: a misspelt column among others
    expect(() => columnList(Violation, ['id', 'nmae'])).toThrow('policy.violations has no column nmae');
    expect(() => columnNamed(Violation, 'nmae')).toThrow('policy.violations has no column nmae');
    expect(() => columnNamed(Violation, 'toString')).toThrow('policy.violations has no column toString');
  });

  test('as they stand in SQL', () => {
    expect(column(Violation, 'id')).toBe('"id"');
    expect(column(Violation, 'id', 'v')).toBe('v."id"');
    expect(columnsOf(Violation)('id')).toBe('"id"');
    expect(columnsOf(Violation)('id', 'v')).toBe('v."id"');
    expect(columnsOf(Violation, 'v')('id')).toBe('v."id"');
    expect(columnList(Violation, ['id', 'severity'], 'v')).toBe('v."id", v."severity"');
    expect(table(Violation)).toBe('"policy"."violations"');
    expect(tableName(Violation)).toBe('policy.violations');
    expect(quoted('a "b"')).toBe('"a ""b"""');
  });
});

describe('words of PostgreSQL', () => {
  const database = useDatabase();
  const client = useClient(() => database.url);

  test('any of them may name a table and a column', async () => {
    const { rows } = await client.query<{ word: string }>('select word from pg_get_keywords()');
    expect(rows.length).toBeGreaterThan(400);
    for (const { word } of rows) {
      const entity = defineTable(`pg_temp.${word}`, { id: int().primary(), [word]: text() }, { rows: NOBODY });
      const name = columnNamed(entity, word, 'it');
      await client.query('begin');
      await client.query(`create temporary table ${quoted(word)} (id int, ${columnNamed(entity, word)} text)`);
      await client.query(`select ${name} from ${table(entity)} it order by ${name}`);
      await client.query('rollback');
    }
  });
});
