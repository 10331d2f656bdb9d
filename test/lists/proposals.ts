import fc from 'fast-check';
import { PolicyProposalReadService } from '../../src/gen/hoc/cus/policies/v1/policy_proposal_read_pb.ts';
import { ProposalsReadService } from '../../src/gen/hoc/cus/policies/v1/proposals_read_pb.ts';
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
  type StoredRow,
  type World,
  wanted,
} from './model.ts';

const read = PolicyProposalReadService.method;
const review = ProposalsReadService.method;
const TABLE = 'public.policy_proposals';

const DAY = 86_400_000;
/** Ages on either side of a whole number of days, further from it than the test takes. */
const ages = fc
  .constantFrom(0.5, 0.9, 1.1, 6.9, 7.1, 30.5)
  .map((days) => `${new Date(Date.now() - days * DAY).toISOString().slice(0, 23)}000Z`);

const statuses = fc.constantFrom('draft', 'approved', 'rejected', 'Draft');

const proposals = only(
  TABLE,
  rowsOf({
    id: fc.uuid(),
    tenant_id: names,
    proposal_name: names,
    proposal_type: names,
    rationale: fc.constant('r'),
    proposed_rule: fc.constant({}),
    status: statuses,
    created_at: fc.oneof(instants, ages),
    is_synthetic: fc.boolean(),
  }),
);

const newestFirst = inOrder(descending('created_at'), descending('id'));

const tally = (rows: readonly StoredRow[], column: string): Record<string, bigint> => {
  const sizes: Record<string, bigint> = {};
  for (const row of rows) sizes[row[column]] = (sizes[row[column]] ?? 0n) + 1n;
  return sizes;
};

const pending = (world: World, tenantId: string): bigint =>
  BigInt(
    world[TABLE]!.filter((row) => row['tenant_id'] === tenantId && row['status'] === 'draft' && !row['is_synthetic'])
      .length,
  );

/** Proposals that several versions may share. */
const OWNERS = ['00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-00000000000b'];

/** Lists of proposals, of their versions, and of the feedback behind them. */
export const proposalLists: readonly ListModel[] = [
  list(read.fetchUnacknowledgedFeedback, {
    table: 'public.pattern_feedback',
    world: only(
      'public.pattern_feedback',
      rowsOf({
        id: fc.uuid(),
        tenant_id: names,
        pattern_type: names,
        description: fc.constant('d'),
        acknowledged: fc.boolean(),
        created_at: instants,
      }),
    ),
    request: optional({ tenantId: wanted, feedbackType: wanted }),
    chosen: (row, { tenantId, feedbackType }) =>
      !row['acknowledged'] && matches(row['tenant_id'], tenantId) && matches(row['pattern_type'], feedbackType),
    order: inOrder(ascending('created_at'), ascending('id')),
  }),
  list(read.fetchProposals, {
    table: TABLE,
    world: proposals,
    request: optional({ tenantId: wanted, status: fc.oneof(statuses, wanted), limit: limits }),
    chosen: (row, { tenantId, status }) => matches(row['tenant_id'], tenantId) && matches(row['status'], status),
    order: newestFirst,
    limit: 50,
  }),
  list(review.fetchProposals, {
    table: TABLE,
    world: proposals,
    request: fc
      .tuple(
        wanted,
        optional({
          status: fc.oneof(statuses, wanted),
          proposalType: wanted,
          daysOld: fc.constantFrom(0, 1, 7, 400),
          includeSynthetic: fc.boolean(),
          limit: limits,
          offset: offsets,
        }),
      )
      .map(([tenantId, rest]) => ({ tenantId, ...rest })),
    chosen: (row, { tenantId, status = 'draft', proposalType, daysOld, includeSynthetic }) =>
      row['tenant_id'] === tenantId &&
      row['status'] === status &&
      matches(row['proposal_type'], proposalType) &&
      (!daysOld || Date.parse(row['created_at']) <= Date.now() - daysOld * DAY) &&
      (includeSynthetic || !row['is_synthetic']),
    order: newestFirst,
    limit: 50,
    beside: {
      answered: ({ pendingCount }) => pendingCount,
      expected: (_chosen, _page, world, { tenantId }) => pending(world, tenantId ?? ''),
    },
  }),
  list(review.listProposalsPaginated, {
    table: TABLE,
    world: proposals,
    request: optional({
      tenantId: wanted,
      status: fc.oneof(statuses, wanted),
      proposalType: wanted,
      limit: limits,
      offset: offsets,
    }),
    chosen: (row, { tenantId, status, proposalType }) =>
      matches(row['tenant_id'], tenantId) &&
      matches(row['status'], status) &&
      matches(row['proposal_type'], proposalType),
    order: newestFirst,
    limit: 50,
    beside: {
      answered: ({ total, byStatus, byType }) => ({ total, byStatus, byType }),
      expected: (chosen, page) => ({
        total: BigInt(chosen.length),
        byStatus: tally(page, 'status'),
        byType: tally(page, 'proposal_type'),
      }),
    },
  }),
  list(review.listProposalVersions, {
    table: 'public.policy_versions',
    world: rowsOf({
      id: fc.uuid(),
      proposal_id: fc.constantFrom(...OWNERS),
      version: fc.constantFrom(1, 2, 3, 10),
      rule_snapshot: fc.constant({}),
    }).map((rows) => ({
      [TABLE]: OWNERS.map((id) => ({
        id,
        tenant_id: 't',
        proposal_name: 'n',
        proposal_type: 'custom',
        rationale: 'r',
        proposed_rule: {},
      })),
      'public.policy_versions': rows,
    })),
    request: fc.record({ proposalId: fc.constantFrom(...OWNERS, '00000000-0000-0000-0000-000000000000') }),
    chosen: (row, { proposalId }) => row['proposal_id'] === proposalId,
    order: inOrder(descending('version'), descending('id')),
  }),
];
