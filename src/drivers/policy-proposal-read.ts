import { page, type Rules } from '../contract/rules.ts';
import { count, firstFlag, firstText, statement } from '../database/statement.ts';
import { table } from '../database/table.ts';
import { PatternFeedback } from '../entities/pattern-feedback.ts';
import { PolicyProposal } from '../entities/policy-proposal.ts';
import { PolicyRule } from '../entities/policy-rule.ts';
import { ProposalVersion } from '../entities/proposal-version.ts';
import {
  type FetchProposalStatusRequestSchema,
  PolicyProposalReadService,
  PolicyProposalSchema,
  PolicyProposalSummarySchema,
  PolicyRuleNameSchema,
  UnacknowledgedFeedbackSchema,
} from '../gen/hoc/cus/policies/v1/policy_proposal_read_pb.ts';
import { each, one, row, rows } from '../statements/answers.ts';
import { where } from '../statements/filters.ts';
import { fits } from '../statements/fits.ts';
import { list } from '../statements/lists.ts';
import { projection } from '../statements/projection.ts';
import { driver, read } from './driver.ts';

const feedback = projection(UnacknowledgedFeedbackSchema, PatternFeedback);
const proposal = projection(PolicyProposalSchema, PolicyProposal);
const summary = projection(PolicyProposalSummarySchema, PolicyProposal);
const ruleName = projection(PolicyRuleNameSchema, PolicyRule);

const unacknowledged = list('policy_proposal_read.feedback', {
  entity: PatternFeedback,
  always: ['not acknowledged'],
  filters: { tenantId: where.text('tenant_id = ?'), feedbackType: where.text('pattern_type = ?') },
  order: ['created_at', 'id'],
  reading: feedback,
});

const proposalById = statement(
  'policy_proposal_read.proposal_by_id',
  `select ${proposal.columns} from ${table(PolicyProposal)} where id = $1::uuid`,
  proposal,
);

const proposalStatus = statement(
  'policy_proposal_read.proposal_status',
  `select status from ${table(PolicyProposal)} where id = $1::uuid`,
  firstText,
);

const versionCount = statement(
  'policy_proposal_read.version_count',
  `select count(*) from ${table(ProposalVersion)} where proposal_id = $1::uuid`,
  count,
);

const proposals = list('policy_proposal_read.proposals', {
  entity: PolicyProposal,
  filters: { tenantId: where.text('tenant_id = ?'), status: where.text('status = ?') },
  order: ['created_at desc', 'id desc'],
  paged: true,
  reading: summary,
});

const ruleExists = statement(
  'policy_proposal_read.rule_exists',
  `select exists (select from ${table(PolicyRule)} where id = $1)`,
  firstFlag,
);

const ruleById = statement(
  'policy_proposal_read.rule_by_id',
  `select ${ruleName.columns} from ${table(PolicyRule)} where id = $1 and tenant_id = $2`,
  ruleName,
);

const named: Rules<typeof FetchProposalStatusRequestSchema> = { proposal_id: fits(PolicyProposal, 'id') };

/** `PolicyProposalReadDriver`: feedback, proposals, and the rules they may become. */
export const policyProposalRead = driver(PolicyProposalReadService, {
  fetchUnacknowledgedFeedback: read({}, rows('feedback', unacknowledged)),
  streamUnacknowledgedFeedback: read({}, each('feedback', unacknowledged)),
  fetchProposalById: read(
    named,
    row('proposal', ({ proposalId }) => proposalById.with(proposalId)),
  ),
  fetchProposalStatus: read(
    named,
    row('status', ({ proposalId }) => proposalStatus.with(proposalId)),
  ),
  countVersionsForProposal: read(
    named,
    one('count', ({ proposalId }) => versionCount.with(proposalId)),
  ),
  fetchProposals: read(
    { limit: page },
    rows('proposals', (request, walk) => proposals(request, walk, { limit: request.limit ?? 50 })),
  ),
  checkRuleExists: read(
    {},
    one('exists', ({ ruleId }) => ruleExists.with(ruleId)),
  ),
  fetchRuleById: read(
    {},
    row('rule', ({ ruleId, tenantId }) => ruleById.with(ruleId, tenantId)),
  ),
});
