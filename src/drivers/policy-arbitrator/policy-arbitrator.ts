import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { invalidArgument } from '../../contract/errors.ts';
import { page, required } from '../../contract/rules.ts';
import { statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { PolicyPrecedence } from '../../entities/policy-precedence.ts';
import {
  type ArbitrateRequest,
  ConflictStrategy,
  CreatePrecedenceRequestSchema,
  PolicyArbitratorService,
  type PolicyLimit,
  PolicyPrecedencePatchSchema,
  PolicyPrecedenceSchema,
} from '../../gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import { affected, one, row, rows } from '../../statements/answers.ts';
import { cell, cells } from '../../statements/cells.ts';
import { lowerEnumText } from '../../statements/codecs.ts';
import { where } from '../../statements/filters.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import { patch } from '../../statements/patch.ts';
import { projection } from '../../statements/projection.ts';
import { driver, read, write } from '../driver.ts';
import {
  type Arbitration,
  type ArbitrationInput,
  arbitrate,
  type Limit,
  type PrecedenceRow,
  type Strategy,
} from './arbitration.ts';

const of = columnsOf(PolicyPrecedence);
const precedence = projection(PolicyPrecedenceSchema, PolicyPrecedence, { key: ['tenant_id', 'policy_id'] });
const ofPolicy = `${of('tenant_id')} = $1 and ${of('policy_id')} = $2`;

// The strategy is read as text: only that of the policy that goes first has to be known.
const precedenceRow = cells<PrecedenceRow>({
  policyId: cell.text(of('policy_id')),
  precedence: cell.number(of('precedence')),
  conflictStrategy: cell.text(of('conflict_strategy')),
});

const rowsOfPolicies = statement(
  'policy_arbitrator.rows_of_policies',
  `select ${precedenceRow.columns} from ${table(PolicyPrecedence)}
  where ${of('tenant_id')} = $1 and ${of('policy_id')} = any($2::text[])`,
  precedenceRow,
);

const newPrecedence = insert(PolicyPrecedence, CreatePrecedenceRequestSchema, {
  defaults: {
    precedence: '100',
    conflict_strategy: `'most_restrictive'`,
    bind_at: `'run_start'`,
    failure_mode: `'fail_closed'`,
  },
  textOf: lowerEnumText,
});

const insertPrecedence = newPrecedence.statement(
  'policy_arbitrator.create_precedence',
  `returning ${precedence.columns}`,
  precedence,
);

const precedencePatch = patch(PolicyPrecedence, PolicyPrecedencePatchSchema, { textOf: lowerEnumText });

const updatePrecedence = statement(
  'policy_arbitrator.update_precedence',
  `update ${table(PolicyPrecedence)} set ${precedencePatch.assignments(3)}, ${of('updated_at')} = now()
  where ${ofPolicy} returning ${precedence.columns}`,
  precedence,
);

const deletePrecedence = statement(
  'policy_arbitrator.delete_precedence',
  `delete from ${table(PolicyPrecedence)} where ${ofPolicy}`,
);

const precedences = list('policy_arbitrator.precedences', {
  entity: PolicyPrecedence,
  base: { tenantId: where.exactText(`${of('tenant_id')} = ?`) },
  filters: { policyIds: where.texts(`${of('policy_id')} = any(?::text[])`) },
  order: ['policy_id collate "C"'],
  paged: true,
  reading: precedence,
});

const limits = (given: readonly PolicyLimit[]): Limit[] =>
  given.map(({ policyId, value }) => ({ policyId, value: value! }));

const inputOf = ({ arbInput }: ArbitrateRequest): ArbitrationInput | undefined =>
  arbInput && {
    tokenLimits: limits(arbInput.tokenLimits),
    costLimits: limits(arbInput.costLimits),
    burnRateLimits: limits(arbInput.burnRateLimits),
    breachActions: arbInput.breachActions,
  };

const fitsInt64 = (limit: bigint | null): boolean => limit === null || limit === BigInt.asIntN(64, limit);

/** The settled limits as the response can carry them. */
const carried = (settled: Arbitration) => {
  const { effectiveTokenLimit, effectiveCostLimitCents, effectiveBurnRateLimit } = settled;
  const { settledTokenLimit, settledCostLimitCents } = settled;
  const problems = [
    ...(fitsInt64(effectiveTokenLimit) ? [] : ['arb_input.token_limits']),
    ...(fitsInt64(effectiveCostLimitCents) ? [] : ['arb_input.cost_limits']),
  ].map((field) => ({ field, description: 'must settle on a limit that fits an int64' }));
  if (problems.length > 0) throw invalidArgument(problems);
  return {
    ...(effectiveTokenLimit === null ? {} : { effectiveTokenLimit }),
    ...(effectiveCostLimitCents === null ? {} : { effectiveCostLimitCents }),
    ...(effectiveBurnRateLimit === null ? {} : { effectiveBurnRateLimit }),
    ...(settledTokenLimit === null ? {} : { settledTokenLimit }),
    ...(settledCostLimitCents === null ? {} : { settledCostLimitCents }),
  };
};

const STRATEGIES: Readonly<Record<Strategy, ConflictStrategy>> = {
  most_restrictive: ConflictStrategy.MOST_RESTRICTIVE,
  explicit_priority: ConflictStrategy.EXPLICIT_PRIORITY,
  fail_closed: ConflictStrategy.FAIL_CLOSED,
};

/** `PolicyArbitrator`: which policy goes first, and what they settle on. */
export const policyArbitrator = driver(PolicyArbitratorService, {
  arbitrate: read(
    {
      'arb_input.token_limits.value': required(),
      'arb_input.cost_limits.value': required(),
      'arb_input.burn_rate_limits.value': required(),
    },
    async (db, request) => {
      const { policyIds, tenantId } = request;
      const rows = policyIds.length === 0 ? [] : await db.rows(rowsOfPolicies, [tenantId, policyIds]);
      const settled = arbitrate(policyIds, rows, inputOf(request));
      return {
        policyIds: settled.policyIds,
        precedenceOrder: settled.precedenceOrder,
        ...carried(settled),
        effectiveBreachAction: settled.effectiveBreachAction,
        conflictsResolved: settled.conflictsResolved,
        resolutionStrategy: STRATEGIES[settled.resolutionStrategy],
        arbitrationTimestamp: timestampFromDate(new Date()),
        snapshotHash: settled.snapshotHash,
      };
    },
  ),
  createPrecedence: write(newPrecedence.rules, one('precedence', insertPrecedence)),
  updatePrecedence: write(
    precedencePatch.rules,
    row('precedence', (request) =>
      updatePrecedence.with(request.tenantId, request.policyId, ...precedencePatch.params(request)),
    ),
    precedencePatch.check,
  ),
  deletePrecedence: write(
    {},
    affected(({ tenantId, policyId }) => deletePrecedence.with(tenantId, policyId)),
  ),
  fetchPrecedences: read(
    { limit: page, offset: page },
    rows('precedences', ({ tenantId, policyIds, limit = 100, offset }, walk) =>
      precedences({ tenantId, policyIds }, walk, { limit, offset }),
    ),
  ),
});
