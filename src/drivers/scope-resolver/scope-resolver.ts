import { randomBytes } from 'node:crypto';
import { invalidArgument, type RpcError, refuse } from '../../contract/errors.ts';
import { page, required } from '../../contract/rules.ts';
import { type Notes, type Row, statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { jsonToValue } from '../../database/values.ts';
import { PolicyScope } from '../../entities/policy-scope.ts';
import {
  CreateScopeRequestSchema,
  PolicyScopePatchSchema,
  PolicyScopeSchema,
  type RunContext,
  ScopeResolverService,
  ScopeTypeSchema,
} from '../../gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import type { StringList } from '../../gen/hoc/cus/policies/v1/types_pb.ts';
import { affected, one, row, rows } from '../../statements/answers.ts';
import { cell, cells } from '../../statements/cells.ts';
import { lowerEnumText } from '../../statements/codecs.ts';
import { where } from '../../statements/filters.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import { patch } from '../../statements/patch.ts';
import { projection } from '../../statements/projection.ts';
import { compute, driver, read, write } from '../driver.ts';
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

const of = columnsOf(PolicyScope);
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
const testable = cells<StoredScope & { readonly scopeId: string }>({
  scopeId: cell.text(of('scope_id')),
  policyId: cell.text(of('policy_id')),
  scopeType: cell.text(of('scope_type')),
  agentIdsJson: cell.textOrNull(of('agent_ids_json')),
  apiKeyIdsJson: cell.textOrNull(of('api_key_ids_json')),
  humanActorIdsJson: cell.textOrNull(of('human_actor_ids_json')),
});

const scopesOfTenant = statement(
  'scope_resolver.scopes_of_tenant',
  `select ${testable.columns} from ${table(PolicyScope)} where ${of('tenant_id')} = $1 order by ${of('id')}`,
  testable,
);

const scopeOfPolicy = statement(
  'scope_resolver.scope_of_policy',
  `select ${stored.columns} from ${table(PolicyScope)}
  where ${of('tenant_id')} = $1 and ${of('policy_id')} = $2 order by ${of('id')} limit 1`,
  scopeOf,
);

const scopes = list('scope_resolver.scopes', {
  entity: PolicyScope,
  base: { tenantId: where.exactText(`${of('tenant_id')} = ?`) },
  filters: { policyId: where.text(`${of('policy_id')} = ?`) },
  order: ['id'],
  paged: true,
  reading: { expressions: stored.expressions, map: scopeOf },
});

const columns = {
  agent_ids: 'agent_ids_json',
  api_key_ids: 'api_key_ids_json',
  human_actor_ids: 'human_actor_ids_json',
} as const;

const newScope = insert(PolicyScope, CreateScopeRequestSchema, {
  columns,
  binders: { agent_ids: idsJson, api_key_ids: idsJson, human_actor_ids: idsJson },
  defaults: { scope_type: `'all_runs'` },
  given: ['scope_id'],
  textOf: lowerEnumText,
});

const insertScope = newScope.statement('scope_resolver.create_scope', `returning ${stored.columns}`, scopeOf);

const ofScope = `${of('tenant_id')} = $1 and ${of('scope_id')} = $2`;

const idsOf = ({ values }: StringList): string | null => idsJson(values);

const scopePatch = patch(PolicyScope, PolicyScopePatchSchema, {
  columns,
  binders: { agent_ids: idsOf, api_key_ids: idsOf, human_actor_ids: idsOf },
  textOf: lowerEnumText,
});

const updateScope = statement(
  'scope_resolver.update_scope',
  `update ${table(PolicyScope)} set ${scopePatch.assignments(3)}, ${of('updated_at')} = now()
  where ${ofScope} returning ${stored.columns}`,
  scopeOf,
);

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
  getScopeForPolicy: read(
    {},
    row('scope', ({ policyId, tenantId }) => scopeOfPolicy.with(tenantId, policyId)),
  ),
  createScope: write(
    newScope.rules,
    one('scope', (request) => insertScope(request, { scope_id: newScopeId() })),
  ),
  updateScope: write(
    scopePatch.rules,
    row('scope', (request) => updateScope.with(request.tenantId, request.scopeId, ...scopePatch.params(request))),
    scopePatch.check,
  ),
  deleteScope: write(
    {},
    affected(({ tenantId, scopeId }) => deleteScope.with(tenantId, scopeId)),
  ),
  fetchScopes: read(
    { limit: page, offset: page },
    rows('scopes', ({ tenantId, policyId, limit = 100, offset }, walk) =>
      scopes({ tenantId, policyId }, walk, { limit, offset }),
    ),
  ),
});
