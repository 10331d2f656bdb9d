import type { DescMethodServerStreaming, DescMethodUnary, MessageInitShape } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { drivers } from '../../src/drivers/drivers.ts';
import { collect } from '../support/client.ts';
import { noServices } from '../support/services.ts';
import { useSidecar } from '../support/use.ts';
import type { ListModel, StoredRow, World } from './model.ts';
import { policyEngineLists } from './policy-engine.ts';
import { policyGraphLists } from './policy-graph.ts';
import { proposalLists } from './proposals.ts';
import { recoveryLists } from './recovery.ts';
import { ruleLists } from './rules.ts';

const MODELS = [...policyEngineLists, ...policyGraphLists, ...proposalLists, ...recoveryLists, ...ruleLists];

/** Worlds per operation, and requests per world. */
const WORLDS = 12;
/** So many must have been there where the machine is slow. */
const WORLDS_LEAST = 3;
const REQUESTS = 10;

const sidecar = useSidecar();
beforeAll(async () => {
  // An index brings rows in an order that the statement has not asked for, and would hide that it has not.
  await sidecar.sql(`do $$ declare name text; begin
    for name in select indexrelid::regclass::text from pg_index
      join pg_class on pg_class.oid = indexrelid
      where relnamespace in ('policy'::regnamespace, 'public'::regnamespace)
        and not exists (select from pg_constraint where conindid = indexrelid)
    loop execute 'drop index ' || name; end loop;
  end $$`);
});

const fill = async (world: World): Promise<void> => {
  await sidecar.sql(`truncate ${Object.keys(world).join(', ')} cascade`);
  for (const [table, rows] of Object.entries(world)) {
    if (rows.length === 0) continue;
    const columns = Object.keys(rows[0]!)
      .map((column) => `"${column}"`)
      .join(', ');
    await sidecar.sql(
      `insert into ${table} (${columns}) select ${columns} from jsonb_populate_recordset(null::${table}, $1)`,
      [JSON.stringify(rows)],
    );
  }
};

/** The streaming twin: it takes the same filters and brings all rows. */
const twinOf = ({ method }: ListModel): DescMethodServerStreaming | undefined => {
  const name = method.name.replace(/^(Fetch|List|Get)/, 'Stream');
  return method.parent.methods.find(
    (each): each is DescMethodServerStreaming => each.name === name && each.methodKind === 'server_streaming',
  );
};

const itemsField = (method: DescMethodUnary): string =>
  method.output.fields.find(({ fieldKind }) => fieldKind === 'list')!.localName;

/** Rows that a request picks, in order, before they are cut into pages. */
const picked = (model: ListModel, request: StoredRow, world: World): StoredRow[] =>
  world[model.table]!.filter((row) => model.chosen(row, request, world)).sort(model.order(world));

const paged = (rows: readonly StoredRow[], { limit, offset = 0 }: StoredRow): readonly StoredRow[] =>
  rows.slice(offset, limit === undefined ? undefined : offset + limit);

const checkUnary = async (model: ListModel, request: StoredRow, world: World): Promise<void> => {
  const response = (await sidecar.grpc.unary(model.method, request)) as unknown as StoredRow;
  const chosen = picked(model, request, world);
  const page = paged(chosen, { limit: model.limit, ...request });
  expect(response[itemsField(model.method)].map(model.keyOfItem)).toEqual(page.map(model.keyOfRow));
  if (model.beside) {
    expect(model.beside.answered(response as never)).toEqual(model.beside.expected(chosen, page, world, request));
  }
};

/** Walks through a list by its tokens. */
const checkPages = async (model: ListModel, request: StoredRow, size: number, world: World): Promise<void> => {
  const filters: StoredRow = { ...request, limit: size };
  delete filters['offset'];
  const keys: unknown[] = [];
  let pageToken = '';
  do {
    const page = (await sidecar.grpc.unary(model.method, { ...filters, pageToken })) as unknown as StoredRow;
    const items: StoredRow[] = page[itemsField(model.method)];
    keys.push(...items.map(model.keyOfItem));
    expect(page['nextPageToken'] !== undefined).toBe(items.length === size);
    pageToken = page['nextPageToken'] ?? '';
  } while (pageToken !== '');
  expect(keys).toEqual(picked(model, filters, world).map(model.keyOfRow));
};

const isPaged = ({ method }: ListModel): boolean => method.input.fields.some(({ name }) => name === 'page_token');

const checkTwin = async (
  model: ListModel,
  twin: DescMethodServerStreaming,
  request: StoredRow,
  world: World,
): Promise<void> => {
  const filters = Object.fromEntries(
    Object.entries(request).filter(([name]) => twin.input.fields.some(({ localName }) => localName === name)),
  );
  const [field] = twin.output.fields;
  const responses = await collect(sidecar.grpc.stream(twin, filters as MessageInitShape<typeof twin.input>));
  const items = responses.map((each) => (each as unknown as StoredRow)[field!.localName]);
  expect(items.map(model.keyOfItem)).toEqual(picked(model, filters, world).map(model.keyOfRow));
};

describe.each(
  MODELS.map((model) => [`${model.method.parent.name}.${model.method.name} (${model.table})`, model] as const),
)('%s', (_name, model) => {
  test('brings the rows a plain reading of the contract picks, in that order', async () => {
    const twin = twinOf(model);
    let worlds = 0;
    let rows = 0;
    await fc.assert(
      fc.asyncProperty(
        model.world,
        fc.array(model.request as fc.Arbitrary<StoredRow>, { minLength: REQUESTS, maxLength: REQUESTS }),
        fc.integer({ min: 1, max: 12 }),
        async (world, requests, size) => {
          await fill(world);
          if (isPaged(model))
            for (const each of [requests[0]!, requests[1]!]) await checkPages(model, each, size, world);
          for (const request of requests) {
            await checkUnary(model, request, world);
            if (twin) await checkTwin(model, twin, request, world);
            rows += picked(model, request, world).length;
          }
          worlds += 1;
        },
      ),
      { numRuns: WORLDS, endOnFailure: false, interruptAfterTimeLimit: 20_000, markInterruptAsFailure: false },
    );
    expect(worlds).toBeGreaterThanOrEqual(WORLDS_LEAST);
    expect(rows).toBeGreaterThan(0);
  });
});

test('every list with a limit goes on by a token', () => {
  const limited = MODELS.filter(({ method }) => method.input.fields.some(({ name }) => name === 'limit'));
  expect(limited).toEqual(MODELS.filter(isPaged));
  expect(limited.length).toBeGreaterThan(10);
});

test('every list of rows has a model', () => {
  /** No plain list: claiming changes what it brings, the others compute what they bring. */
  const others = ['ClaimWork', 'Resolve', 'Arbitrate', 'ResolveApplicablePolicies'];
  const lists = drivers(noServices)
    .filter(({ service }) => service.name !== 'SymbolTableService')
    .flatMap(({ service }) => service.methods)
    .filter(
      (method) => method.methodKind === 'unary' && method.output.fields.some(({ fieldKind }) => fieldKind === 'list'),
    )
    .map((method) => `${method.parent.name}.${method.name}`)
    .filter((name) => !others.some((other) => name.endsWith(`.${other}`)));
  const modelled = MODELS.map(({ method }) => `${method.parent.name}.${method.name}`);
  expect(lists.filter((name) => !modelled.includes(name))).toEqual([]);
});
