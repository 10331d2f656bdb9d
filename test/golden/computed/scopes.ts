import { ScopeResolverService } from '../../../src/gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import { type Operation, operation } from '../operations.ts';
import { asked, type Computation, type Data } from './subject.ts';

const SCOPES = 'public.policy_scopes';
const LISTS = ['agent_ids_json', 'api_key_ids_json', 'human_actor_ids_json'];

/** Rows as they would have been loaded: the key says in which order. */
const stored = (scopes: Data[]): Data[] =>
  scopes.map((scope, index) => ({
    ...Object.fromEntries(LISTS.map((name) => [name, null])),
    ...scope,
    // Below every generated key.
    id: index - scopes.length,
    scope_id: `scope-${index}`,
  }));

const resolve: Computation = async ({ context, scopes }, subject) => {
  await subject.tables.clear(SCOPES);
  await subject.tables.insert(SCOPES, stored(scopes), subject.reader);
  return asked(subject, operation('scope_resolver', 'resolve_applicable_policies'), { context }, (response) => {
    const { resolution_timestamp: _at, matching_policy_ids, ...rest } = response.fields.get('snapshot') as Data;
    return { ...rest, matching_policy_ids: [...matching_policy_ids].sort() };
  });
};

const createScope: Operation = {
  driver: 'scope_resolver',
  name: 'create_scope',
  kind: 'write',
  method: ScopeResolverService.method.createScope,
};

const create =
  (kind: 'all_runs' | 'agent' | 'api_key' | 'human_actor'): Computation =>
  ({ ids, ...args }, subject) =>
    asked(
      subject,
      createScope,
      { ...args, scope_type: kind, ...(ids === undefined ? {} : { [`${kind}_ids`]: ids }) },
      (response) => response.fields.get('scope')!,
    );

export const scopes: Readonly<Record<string, Computation>> = {
  'ScopeResolver.resolve_applicable_policies': resolve,
  'PolicyScope.create_all_runs_scope': create('all_runs'),
  'PolicyScope.create_agent_scope': create('agent'),
  'PolicyScope.create_api_key_scope': create('api_key'),
  'PolicyScope.create_human_actor_scope': create('human_actor'),
};
