import fc from 'fast-check';
import { PolicyArbitratorService } from '../../src/gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import { CandidateStatus, RecoveryMatcherService } from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { ScopeResolverService } from '../../src/gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import {
  ascending,
  descending,
  inOrder,
  instants,
  type ListModel,
  limits,
  list,
  matches,
  names,
  offsets,
  only,
  optional,
  rowsOf,
  wanted,
} from './model.ts';

const keys = fc.integer({ min: 1, max: 2 ** 31 - 1 });
const policies = fc.constantFrom('p', 'P', 'ä', 'p-', 'p1', '');

const STATUSES = new Map<CandidateStatus, string>([
  [CandidateStatus.PENDING, 'pending'],
  [CandidateStatus.APPROVED, 'approved'],
  [CandidateStatus.REJECTED, 'rejected'],
  [CandidateStatus.ALL, ''],
]);

/** Lists of recovery candidates, scopes and precedences. */
export const recoveryLists: readonly ListModel[] = [
  list(RecoveryMatcherService.method.getCandidates, {
    table: 'public.recovery_candidates',
    world: only(
      'public.recovery_candidates',
      rowsOf({
        id: keys,
        suggestion: names,
        confidence: fc.constantFrom(0, 0.5, 1),
        decision: fc.constantFrom('pending', 'approved', 'rejected'),
        created_at: instants,
      }).chain((rows) =>
        fc
          .uniqueArray(fc.uuid(), { minLength: rows.length, maxLength: rows.length })
          .map((failures) => rows.map((row, index) => ({ ...row, failure_match_id: failures[index] }))),
      ),
    ),
    request: optional({
      status: fc.constantFrom(...STATUSES.keys()),
      limit: limits,
      offset: offsets,
    }),
    chosen: (row, { status = CandidateStatus.PENDING }) =>
      status === CandidateStatus.ALL || row['decision'] === STATUSES.get(status as CandidateStatus),
    order: inOrder(descending('created_at'), descending('id')),
    limit: 50,
  }),
  list(ScopeResolverService.method.fetchScopes, {
    table: 'public.policy_scopes',
    world: only('public.policy_scopes', rowsOf({ id: keys, scope_id: names, policy_id: names, tenant_id: names })).map(
      (world) => ({
        'public.policy_scopes': world['public.policy_scopes']!.map((row) => ({ ...row, scope_id: `s${row['id']}` })),
      }),
    ),
    request: fc
      .tuple(wanted, optional({ policyId: wanted, limit: limits, offset: offsets }))
      .map(([tenantId, rest]) => ({ tenantId, ...rest })),
    chosen: (row, { tenantId, policyId }) => row['tenant_id'] === tenantId && matches(row['policy_id'], policyId),
    order: ascending('id'),
    limit: 100,
  }),
  list(PolicyArbitratorService.method.fetchPrecedences, {
    table: 'public.policy_precedence',
    world: only(
      'public.policy_precedence',
      rowsOf({ policy_id: policies, tenant_id: names }, (row) => `${row['tenant_id']}/${row['policy_id']}`),
    ),
    request: fc
      .tuple(wanted, optional({ policyIds: fc.array(policies, { maxLength: 4 }), limit: limits, offset: offsets }))
      .map(([tenantId, rest]) => ({ tenantId, ...rest })),
    chosen: (row, { tenantId, policyIds = [] }) =>
      row['tenant_id'] === tenantId && (policyIds.length === 0 || policyIds.includes(row['policy_id'])),
    order: ascending('policy_id'),
    limit: 100,
    keyOfRow: (row) => [row['tenant_id'], row['policy_id']],
    keyOfItem: (item) => [item['tenantId'], item['policyId']],
  }),
];
