import { randomBytes } from 'node:crypto';
import { invalidArgument, type RpcError, refuse } from '../contract/errors.ts';
import { type ColumnOf, column, columnList, lowerEnumText, projection, table } from '../database/projection.ts';
import { type Notes, type Row, statement } from '../database/statement.ts';
import { jsonToValue } from '../database/values.ts';
import { PolicyScope } from '../entities/policy-scope.ts';
import {
  type PolicyScopePatch,
  PolicyScopePatchSchema,
  PolicyScopeSchema,
  type RunContext,
  ScopeResolverService,
  ScopeType,
  ScopeTypeSchema,
} from '../gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import { compute, driver, read, write } from './driver.ts';
import { filteredList, nonEmpty } from './filters.ts';
import { byMask, namedValues, patchCheck } from './patch.ts';
import { all, filled, fits, mask, page, required } from './rules.ts';
import {
  idsJson,
  isoText,
  listedIds,
  matchesScope,
  type Run,
  resolutionSnapshot,
  resolveScopes,
  type StoredScope,
  UnreadableScope,
} from './scope-matching.ts';

const of = (name: ColumnOf<typeof PolicyScope>): string => column(PolicyScope, name);
const stored = projection(PolicyScopeSchema, PolicyScope, {
  omit: ['agent_ids', 'api_key_ids', 'human_actor_ids'],
  key: ['scope_id'],
});

const scopeOf = (row: Row, notes: Notes) => {
  const scope = stored.map(row, notes);
  return {
    ...scope,
    agentIds: listedIds(scope.agentIdsJson),
    apiKeyIds: listedIds(scope.apiKeyIdsJson),
    humanActorIds: listedIds(scope.humanActorIdsJson),
  };
};

// The type is read as text: whoever wrote the row may have written another one.
const scopesOfTenant = statement(
  'scope_resolver.scopes_of_tenant',
  `select ${columnList(PolicyScope, ['scope_id', 'policy_id', 'scope_type', 'agent_ids_json', 'api_key_ids_json', 'human_actor_ids_json'])}
  from ${table(PolicyScope)} where ${of('tenant_id')} = $1 order by ${of('id')}`,
  (row): StoredScope & { scopeId: string } => ({
    scopeId: row[0]!,
    policyId: row[1]!,
    scopeType: row[2]!,
    agentIdsJson: row[3]!,
    apiKeyIdsJson: row[4]!,
    humanActorIdsJson: row[5]!,
  }),
);

const scopeOfPolicy = statement(
  'scope_resolver.scope_of_policy',
  `select ${stored.columns} from ${table(PolicyScope)}
  where ${of('tenant_id')} = $1 and ${of('policy_id')} = $2 order by ${of('id')} limit 1`,
  scopeOf,
);

const scopes = filteredList('scope_resolver.scopes', {
  select: `select ${stored.columns} from ${table(PolicyScope)}`,
  base: [`${of('tenant_id')} = ?`],
  filters: [`${of('policy_id')} = ?`],
  order: of('id'),
  map: scopeOf,
});

const insertScope = statement(
  'scope_resolver.create_scope',
  `insert into ${table(PolicyScope)} (${columnList(PolicyScope, [
    'scope_id',
    'policy_id',
    'tenant_id',
    'scope_type',
    'agent_ids_json',
    'api_key_ids_json',
    'human_actor_ids_json',
    'description',
    'created_by',
  ])})
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
  returning ${stored.columns}`,
  scopeOf,
);

const ofScope = `${of('tenant_id')} = $1 and ${of('scope_id')} = $2`;

/** Fields that can change and the columns they are stored in, in the order of the parameters. */
const PATCHED: Readonly<Record<string, ColumnOf<typeof PolicyScope>>> = {
  scope_type: 'scope_type',
  agent_ids: 'agent_ids_json',
  api_key_ids: 'api_key_ids_json',
  human_actor_ids: 'human_actor_ids_json',
  description: 'description',
};

const updateScope = statement(
  'scope_resolver.update_scope',
  `update ${table(PolicyScope)} set ${Object.entries(PATCHED)
    .map(([field, name], index) => {
      const value = `$${index + 4}::text`;
      return `${of(name)} = case when '${field}' = any($3::text[]) then ${value} else ${of(name)} end`;
    })
    .join(', ')}, ${of('updated_at')} = now()
  where ${ofScope} returning ${stored.columns}`,
  scopeOf,
);

const patchValues = ({ scopeType, agentIds, apiKeyIds, humanActorIds, description }: Partial<PolicyScopePatch>) => [
  scopeType && lowerEnumText(ScopeTypeSchema, scopeType),
  idsJson(agentIds?.values ?? []),
  idsJson(apiKeyIds?.values ?? []),
  idsJson(humanActorIds?.values ?? []),
  description,
];

const deleteScope = statement('scope_resolver.delete_scope', `delete from ${table(PolicyScope)} where ${ofScope}`);

const newScopeId = (): string => `SCOPE-${randomBytes(6).toString('hex')}`;

/** FAILED_PRECONDITION for a stored scope that cannot be tested: nothing in the request is wrong. */
const unreadable = (error: UnreadableScope): RpcError => {
  const { scopeId } = error.cause as { scopeId: string };
  return refuse('SCOPE_UNREADABLE', `scope ${scopeId}: ${error.message}`, {
    metadata: { scope_id: scopeId },
  });
};

const resolve = (tenantScopes: readonly StoredScope[], run: Run) => {
  try {
    return resolveScopes(tenantScopes, run);
  } catch (error) {
    throw error instanceof UnreadableScope ? unreadable(error) : error;
  }
};

const textOrList = (text: string | undefined, list: readonly string[]): string | null => text ?? idsJson(list);

/** `ScopeResolver`: which policies apply to a run. */
export const scopeResolver = driver(ScopeResolverService, {
  resolveApplicablePolicies: read({ context: required() }, async (db, request) => {
    const context = request.context as RunContext;
    const resolution = resolve(await db.rows(scopesOfTenant, [context.tenantId]), context);
    const resolutionTimestamp = isoText(new Date());
    return {
      ...resolution,
      context,
      resolutionTimestamp,
      snapshot: jsonToValue(resolutionSnapshot(resolution, context, resolutionTimestamp)),
    };
  }),
  matchesScope: compute({ scope: required(), context: required() }, (request) => {
    const scope = request.scope!;
    try {
      const matches = matchesScope(
        {
          policyId: scope.policyId,
          scopeType: lowerEnumText(ScopeTypeSchema, scope.scopeType),
          agentIdsJson: textOrList(scope.agentIdsJson, scope.agentIds),
          apiKeyIdsJson: textOrList(scope.apiKeyIdsJson, scope.apiKeyIds),
          humanActorIdsJson: textOrList(scope.humanActorIdsJson, scope.humanActorIds),
        },
        request.context!,
      );
      return { matches };
    } catch (error) {
      if (!(error instanceof UnreadableScope)) throw error;
      throw invalidArgument([{ field: 'scope', description: `must be readable: ${error.message}` }]);
    }
  }),
  getScopeForPolicy: read({}, async (db, { policyId, tenantId }) => ({
    scope: await db.row(scopeOfPolicy, [tenantId, policyId]),
  })),
  createScope: write(
    {
      policy_id: fits(PolicyScope, 'policy_id'),
      tenant_id: fits(PolicyScope, 'tenant_id'),
      created_by: fits(PolicyScope, 'created_by'),
    },
    async (db, request) => ({
      scope: await db.one(insertScope, [
        newScopeId(),
        request.policyId,
        request.tenantId,
        lowerEnumText(ScopeTypeSchema, request.scopeType ?? ScopeType.ALL_RUNS),
        idsJson(request.agentIds),
        idsJson(request.apiKeyIds),
        idsJson(request.humanActorIds),
        request.description,
        request.createdBy,
      ]),
    }),
  ),
  updateScope: write(
    {
      updates: byMask,
      update_mask: required(all(mask(PolicyScopePatchSchema.fields.map(({ name }) => name)), filled)),
    },
    async (db, { tenantId, scopeId, updates, updateMask }) => {
      const { paths } = updateMask!;
      const values = patchValues(namedValues(PolicyScopePatchSchema, updates, paths));
      return { scope: await db.row(updateScope, [tenantId, scopeId, paths, ...values]) };
    },
    patchCheck(PolicyScopePatchSchema, {}, (name) => name === PolicyScopePatchSchema.field.scopeType.name),
  ),
  deleteScope: write({}, async (db, { tenantId, scopeId }) => ({
    rowsAffected: await db.execute(deleteScope, [tenantId, scopeId]),
  })),
  fetchScopes: read({ limit: page, offset: page }, async (db, { tenantId, policyId, limit = 100, offset = 0 }) => {
    const query = scopes([nonEmpty(policyId)], limit, offset, [tenantId]);
    return { scopes: await db.rows(query.statement, query.params) };
  }),
});
