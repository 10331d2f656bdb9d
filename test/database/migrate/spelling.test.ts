import { beforeAll, expect, test } from 'vitest';
import { spellColumns, spellConstraint, spellIndex } from '../../../src/database/migrate/catalog.ts';
import { type Tx, withLook } from '../../../src/database/migrate/look.ts';
import { createEmptyDatabase } from '../../support/postgres.ts';
import { useDatabase } from '../../support/use.ts';
import { connected } from '../catalog.ts';

const database = useDatabase(createEmptyDatabase);
beforeAll(async () => {
  await connected(database.url, async (client) => {
    await client.query('create table short (word varchar(7) not null); create table long (word text not null)');
  });
});

/** What a look at the catalog brings, and how many tables it has made for that. */
const looked = <T>(ask: (tx: Tx) => Promise<T>): Promise<{ found: T; made: number }> =>
  withLook(database.url, (look) =>
    look(async (tx) => {
      let made = 0;
      const run = async (text: string): Promise<void> => {
        if (text.startsWith('create temporary table')) made += 1;
        await tx.run(text);
      };
      return { found: await ask({ ...tx, run }), made };
    }),
  );

const TAIL = "(word) where word = 'a'";
const CHECK = "check (word <> 'b')";

test('an index or a constraint is spelled as the columns of its table have it, and asked for once', async () => {
  const index = (table: string) => looked((tx) => spellIndex(tx, table, TAIL));
  const constraint = (table: string) => looked((tx) => spellConstraint(tx, table, CHECK));
  const casts = { short: '((word)::text', long: '(word' };
  for (const [table, cast] of Object.entries(casts)) {
    const asked = await index(`public.${table}`);
    expect(asked.found).toContain(`WHERE ${cast} = 'a'::text)`);
    expect(asked.made).toBe(1);
    expect(await index(`public.${table}`)).toEqual({ found: asked.found, made: 0 });
    const checked = await constraint(`public.${table}`);
    expect(checked.found).toContain(`CHECK (${cast} <> 'b'::text)`);
    expect(checked.made).toBe(1);
    expect(await constraint(`public.${table}`)).toEqual({ found: checked.found, made: 0 });
  }
});

test('a table that has changed is asked about again', async () => {
  const index = () => looked((tx) => spellIndex(tx, 'public.changing', TAIL));
  await connected(database.url, async (client) => {
    await client.query('create table changing (word varchar(9) not null)');
  });
  expect((await index()).found).toContain('(word)::text');
  await connected(database.url, async (client) => {
    await client.query('alter table changing alter column word type text');
  });
  expect((await index()).found).not.toContain('(word)::text');
});

test('what could not be spelled is asked for again', async () => {
  const columns = () => looked((tx) => spellColumns(tx, 'a public.flavour'));
  await expect(columns()).rejects.toThrow('flavour');
  await connected(database.url, async (client) => {
    await client.query("create type flavour as enum ('sweet')");
  });
  expect((await columns()).found).toMatchObject([{ name: 'a', type: 'public.flavour' }]);
});
