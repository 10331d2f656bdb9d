import { create } from '@bufbuild/protobuf';
import { TimestampSchema } from '@bufbuild/protobuf/wkt';
import { page, type Rule, type Rules } from '../contract/rules.ts';
import { count, statement } from '../database/statement.ts';
import { column, table } from '../database/table.ts';
import { isTimestampInRange } from '../database/values.ts';
import { PolicyProposal } from '../entities/policy-proposal.ts';
import { ProposalVersion } from '../entities/proposal-version.ts';
import {
  type GetProposalDetailRequestSchema,
  ProposalDetailSchema,
  ProposalForReviewSchema,
  ProposalOnPageSchema,
  ProposalsReadService,
  ProposalVersionSchema,
  ReviewedProposalSchema,
} from '../gen/hoc/cus/policies/v1/proposals_read_pb.ts';
import { each, one, row, rows } from '../statements/answers.ts';
import { cell, cells } from '../statements/cells.ts';
import { documentOr, elementsOf } from '../statements/documents.ts';
import { listed } from '../statements/element-rows.ts';
import { filteredCount, where } from '../statements/filters.ts';
import { fits } from '../statements/fits.ts';
import { list } from '../statements/lists.ts';
import { projection } from '../statements/projection.ts';
import { driver, read } from './driver.ts';

const feedbackIds = column(PolicyProposal, 'triggering_feedback_ids');
const createdAt = column(PolicyProposal, 'created_at');
const expressions = {
  proposed_rule: documentOr('{}', column(PolicyProposal, 'proposed_rule')),
  triggering_feedback_ids: documentOr('[]', feedbackIds),
  triggering_feedback_count: elementsOf(feedbackIds),
  provenance_count: elementsOf(feedbackIds),
  // Not every PostgreSQL takes an infinite instant from another.
  days_pending: `case
    when isfinite(${createdAt}) then floor(extract(epoch from statement_timestamp() - ${createdAt}) / 86400)::double precision
    when ${createdAt} > statement_timestamp() then '-Infinity'
    else 'Infinity'
  end`,
};
const forReview = projection(ProposalForReviewSchema, PolicyProposal, { expressions });
const reviewed = projection(ReviewedProposalSchema, PolicyProposal, { expressions });
const onPage = projection(ProposalOnPageSchema, PolicyProposal, { expressions });
const detail = projection(ProposalDetailSchema, PolicyProposal, { expressions });
const version = projection(ProposalVersionSchema, ProposalVersion, {
  expressions: { rule_snapshot: documentOr('{}', column(ProposalVersion, 'rule_snapshot')) },
});

const newestFirst = ['created_at desc', 'id desc'] as const;

const proposals = list('proposals_read.proposals', {
  entity: PolicyProposal,
  base: {
    tenantId: where.exactText('tenant_id = ?'),
    status: where.exactText('status = ?'),
    includeSynthetic: where.flag('(?::boolean or not is_synthetic)'),
  },
  filters: {
    proposalType: where.text('proposal_type = ?'),
    daysOld: where.number('created_at <= statement_timestamp() - make_interval(days => ?::integer)'),
  },
  order: newestFirst,
  paged: true,
  reading: forReview,
});

const drafts = statement(
  'proposals_read.drafts',
  `select count(*) from ${table(PolicyProposal)} where tenant_id = $1 and status = 'draft' and not is_synthetic`,
  count,
);

const proposalOfTenant = statement(
  'proposals_read.proposal_of_tenant',
  `select ${reviewed.columns} from ${table(PolicyProposal)} where tenant_id = $1 and id = $2::uuid`,
  reviewed,
);

const pageFilters = {
  tenantId: where.text('tenant_id = ?'),
  status: where.text('status = ?'),
  proposalType: where.text('proposal_type = ?'),
};

const pages = list('proposals_read.pages', {
  entity: PolicyProposal,
  filters: pageFilters,
  order: newestFirst,
  paged: true,
  reading: onPage,
});

const total = filteredCount('proposals_read.total', {
  select: `select count(*) from ${table(PolicyProposal)}`,
  filters: pageFilters,
});

/** Proposals of one status and type. */
interface Group {
  readonly status: string;
  readonly proposalType: string;
  readonly size: bigint;
}

const group = cells<Group>({
  status: cell.text('status'),
  proposalType: cell.text('proposal_type'),
  size: cell.whole('count(*)'),
});

const groups = (name: string, where = '') =>
  statement(
    `proposals_read.${name}`,
    `select ${group.columns} from ${table(PolicyProposal)} ${where} group by status, proposal_type`,
    group,
  );

const allGroups = groups('groups');
const groupsOfTenant = groups('groups_of_tenant', 'where tenant_id = $1');

const proposalDetail = statement(
  'proposals_read.detail',
  `select ${detail.columns} from ${table(PolicyProposal)} where id = $1::uuid`,
  detail,
);

const versions = list('proposals_read.versions', {
  entity: ProposalVersion,
  base: { proposalId: where.exactText('proposal_id = ?::uuid') },
  order: ['version desc', 'id desc'],
  reading: version,
});

/** Adds up sizes by key. */
const tally = <T>(
  items: readonly T[],
  key: (item: T) => string,
  size: (item: T) => bigint = () => 1n,
): Record<string, bigint> => {
  const sums = new Map<string, bigint>();
  for (const item of items) sums.set(key(item), (sums.get(key(item)) ?? 0n) + size(item));
  return Object.fromEntries(sums);
};

/** Rounds to one decimal; an exact tie goes to the even digit. */
const roundToTenth = (percent: number): number =>
  Number.isInteger(percent * 4) && (percent * 4) % 4 === 1 ? Math.floor(percent) + 0.2 : Number(percent.toFixed(1));

/** Days that lead from now to an instant of the years 1 to 9999. */
const age: Rule<number> = (days) => {
  const seconds = BigInt(Math.floor(Date.now() / 1000) - days * 86_400);
  const instant = create(TimestampSchema, { seconds });
  return isTimestampInRange(instant) ? undefined : 'must lead to an instant of the years 1 to 9999';
};

const named: Rules<typeof GetProposalDetailRequestSchema> = { proposal_id: fits(PolicyProposal, 'id') };

/** `ProposalsReadDriver`: proposals and their versions for those who review them. */
export const proposalsRead = driver(ProposalsReadService, {
  fetchProposals: read({ days_old: age, limit: page, offset: page }, async (db, request, { size }, walk) => {
    const query = proposals(
      { ...request, status: request.status ?? 'draft', daysOld: request.daysOld || undefined },
      walk,
      { limit: request.limit ?? 50, offset: request.offset },
    );
    return {
      ...(await listed(db, query, walk, ProposalForReviewSchema, size)),
      pendingCount: await db.one(drafts, [request.tenantId]),
    };
  }),
  fetchProposalById: read(
    named,
    row('proposal', ({ tenantId, proposalId }) => proposalOfTenant.with(tenantId, proposalId)),
  ),
  countDraftProposals: read(
    {},
    one('count', ({ tenantId }) => drafts.with(tenantId)),
  ),
  listProposalsPaginated: read({ limit: page, offset: page }, async (db, request, { size }, walk) => {
    const counted = total(request);
    const query = pages(request, walk, { limit: request.limit ?? 50, offset: request.offset });
    const { items, nextPageToken } = await listed(db, query, walk, ProposalOnPageSchema, size);
    return {
      total: await db.one(counted.statement, counted.params),
      items,
      byStatus: tally(items, ({ status }) => status),
      byType: tally(items, ({ proposalType }) => proposalType),
      nextPageToken,
    };
  }),
  getProposalStats: read({}, async (db, { tenantId }) => {
    const found = await (tenantId ? db.rows(groupsOfTenant, [tenantId]) : db.rows(allGroups, []));
    const size = ({ size: of }: Group): bigint => of;
    const byStatus = tally(found, ({ status }) => status, size);
    const { approved = 0n, rejected = 0n, draft = 0n } = byStatus;
    const decided = approved + rejected;
    return {
      total: found.reduce((sum, group) => sum + group.size, 0n),
      byStatus,
      byType: tally(found, ({ proposalType }) => proposalType, size),
      reviewed: decided,
      pending: draft,
      approvalRatePercent: decided === 0n ? 0 : roundToTenth((Number(approved) / Number(decided)) * 100),
    };
  }),
  getProposalDetail: read(
    named,
    row('proposal', ({ proposalId }) => proposalDetail.with(proposalId)),
  ),
  listProposalVersions: read(named, rows('versions', versions)),
  streamProposalVersions: read(named, each('version', versions)),
});
