import { expect, test } from 'vitest';
import { page, routes } from '../../scripts/routing/routing.ts';

test('docs/scale.md says of every statement where it goes as `npm run routing` finds it', async () => {
  const { found, due } = await page();
  expect(found).toBe(due);
});

test('what ties a statement to its tenant is found in all its forms, and nothing else is', async () => {
  const V = 'policy.violations';
  const P = 'public.policy_proposals';
  const E = 'policy.evaluations';
  const to = async (text: string): Promise<string> =>
    (await routes([{ name: 'x', text, reads: !/insert|update|delete/.test(text) }]))[0]!.to;
  const tied = [
    `select from ${V} where tenant_id = $1`,
    `select from ${V} v where $1::text = v.tenant_id and (id = $2 or id = $3)`,
    `select from ${V} v join ${E} e on e.tenant_id = v.tenant_id where v.tenant_id = $1`,
    `select from ${V} v join ${E} e on e.id = v.evaluation_id where v.tenant_id = $1 and e.tenant_id = v.tenant_id`,
    `select from ${V} v, lateral (select from ${E} e where e.tenant_id = v.tenant_id) x where v.tenant_id = 'a'`,
    `with f as (select id from ${P} where tenant_id = $1) select from f`,
    `select from ${V} where tenant_id = $1 and exists (select from ${P} p where p.tenant_id = $1)`,
    `insert into ${V} (id, tenant_id) values ($1, $2)`,
    `insert into ${V} (id, tenant_id) select $1, $2::text`,
    `insert into ${V} (tenant_id) select tenant_id from ${E} where tenant_id = $1`,
    `update ${V} set description = $1 where tenant_id = $2`,
    `delete from ${V} v using ${E} e where v.tenant_id = e.tenant_id and e.tenant_id = $1`,
    `select from ${V} where tenant_id = $1 union all select from ${V} where tenant_id = $1`,
  ];
  const untied = [
    `select from ${V}`,
    `select from ${V} where id = $1`,
    `select from ${V} where tenant_id = $1 or id = $2`,
    `select from ${V} where tenant_id <> $1`,
    `select from ${V} where tenant_id = any($1)`,
    `select from ${V} where not (tenant_id = $1)`,
    `select from ${V} where tenant_id = agent_id`,
    `select from ${V} v join ${E} e on e.id = v.evaluation_id where v.tenant_id = $1`,
    `select from ${V} where tenant_id = $1 and exists (select from ${P} p where p.id = $2)`,
    `with f as (select id from ${P} where id = $1) select from f`,
    `insert into ${V} (id) values ($1)`,
    `insert into ${V} (tenant_id) values ($1), ($2)`,
    `insert into ${V} (tenant_id) select * from unnest($1::text[])`,
    `insert into ${V} (tenant_id) select tenant_id from ${E}`,
    `update ${V} set tenant_id = $1 where id = $2`,
    `select from ${V} where tenant_id = $1 union all select from ${V}`,
  ];
  for (const text of tied) expect([text, await to(text)]).toEqual([text, 'its tenant']);
  for (const text of untied) expect([text, await to(text)]).toEqual([text, 'none']);
});
