import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { invalidArgument } from '../contract/errors.ts';
import { type ColumnOf, column, columnList, lowerEnumText, projection, table } from '../database/projection.ts';
import { statement } from '../database/statement.ts';
import { PolicyPrecedence } from '../entities/policy-precedence.ts';
import {
  type ArbitrateRequest,
  BindAt,
  BindAtSchema,
  ConflictStrategy,
  ConflictStrategySchema,
  FailureMode,
  FailureModeSchema,
  PolicyArbitratorService,
  type PolicyLimit,
  PolicyPrecedencePatchSchema,
  PolicyPrecedenceSchema,
} from '../gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import { type Arbitration, type ArbitrationInput, arbitrate, type Limit, type Strategy } from './arbitration.ts';
import { driver, read, write } from './driver.ts';
import { filteredList } from './filters.ts';
import { byMask, notNull, patchAssignments, patchCheck, patchParams } from './patch.ts';
import { all, filled, fits, mask, page, required } from './rules.ts';

const of = (name: ColumnOf<typeof PolicyPrecedence>): string => column(PolicyPrecedence, name);
const precedence = projection(PolicyPrecedenceSchema, PolicyPrecedence, { key: ['tenant_id', 'policy_id'] });
const ofPolicy = `${of('tenant_id')} = $1 and ${of('policy_id')} = $2`;

// The strategy is read as text: only that of the policy that goes first has to be known.
const rowsOfPolicies = statement(
  'policy_arbitrator.rows_of_policies',
  `select ${of('policy_id')}, ${of('precedence')}, ${of('conflict_strategy')} from ${table(PolicyPrecedence)}
  where ${of('tenant_id')} = $1 and ${of('policy_id')} = any($2::text[])`,
  (row) => ({ policyId: row[0]!, precedence: Number(row[1]), conflictStrategy: row[2]! }),
);

const insertPrecedence = statement(
  'policy_arbitrator.create_precedence',
  `insert into ${table(PolicyPrecedence)}
    (${columnList(PolicyPrecedence, ['tenant_id', 'policy_id', 'precedence', 'conflict_strategy', 'bind_at', 'failure_mode'])})
  values ($1, $2, $3, $4, $5, $6)
  returning ${precedence.columns}`,
  precedence.map,
);

const patchPaths = PolicyPrecedencePatchSchema.fields.map(({ name }) => name);

const updatePrecedence = statement(
  'policy_arbitrator.update_precedence',
  `update ${table(PolicyPrecedence)} set ${patchAssignments(PolicyPrecedence, PolicyPrecedencePatchSchema, 3)},
    ${of('updated_at')} = now()
  where ${ofPolicy} returning ${precedence.columns}`,
  precedence.map,
);

const deletePrecedence = statement(
  'policy_arbitrator.delete_precedence',
  `delete from ${table(PolicyPrecedence)} where ${ofPolicy}`,
);

const precedences = filteredList('policy_arbitrator.precedences', {
  select: `select ${precedence.columns} from ${table(PolicyPrecedence)}`,
  base: [`${of('tenant_id')} = ?`],
  filters: [`${of('policy_id')} = any(?::text[])`],
  order: `${of('policy_id')} collate "C"`,
  map: precedence.map,
});

const DEFAULT_PRECEDENCE = 100;

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
const carried = ({ effectiveTokenLimit, effectiveCostLimitCents }: Arbitration) => {
  const problems = [
    ...(fitsInt64(effectiveTokenLimit) ? [] : ['arb_input.token_limits']),
    ...(fitsInt64(effectiveCostLimitCents) ? [] : ['arb_input.cost_limits']),
  ].map((field) => ({ field, description: 'must settle on a limit that fits an int64' }));
  if (problems.length > 0) throw invalidArgument(problems);
  return {
    ...(effectiveTokenLimit === null ? {} : { effectiveTokenLimit }),
    ...(effectiveCostLimitCents === null ? {} : { effectiveCostLimitCents }),
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
        ...(settled.effectiveBurnRateLimit === null ? {} : { effectiveBurnRateLimit: settled.effectiveBurnRateLimit }),
        effectiveBreachAction: settled.effectiveBreachAction,
        conflictsResolved: settled.conflictsResolved,
        resolutionStrategy: STRATEGIES[settled.resolutionStrategy],
        arbitrationTimestamp: timestampFromDate(new Date()),
        snapshotHash: settled.snapshotHash,
      };
    },
  ),
  createPrecedence: write(
    { policy_id: fits(PolicyPrecedence, 'policy_id'), tenant_id: fits(PolicyPrecedence, 'tenant_id') },
    async (db, request) => ({
      precedence: await db.one(insertPrecedence, [
        request.tenantId,
        request.policyId,
        request.precedence ?? DEFAULT_PRECEDENCE,
        lowerEnumText(ConflictStrategySchema, request.conflictStrategy ?? ConflictStrategy.MOST_RESTRICTIVE),
        lowerEnumText(BindAtSchema, request.bindAt ?? BindAt.RUN_START),
        lowerEnumText(FailureModeSchema, request.failureMode ?? FailureMode.FAIL_CLOSED),
      ]),
    }),
  ),
  updatePrecedence: write(
    { updates: byMask, update_mask: required(all(mask(patchPaths), filled)) },
    async (db, { tenantId, policyId, updates, updateMask }) => {
      const values = patchParams(PolicyPrecedencePatchSchema, updates, updateMask!.paths, lowerEnumText);
      return { precedence: await db.row(updatePrecedence, [tenantId, policyId, ...values]) };
    },
    patchCheck(PolicyPrecedencePatchSchema, {}, notNull(PolicyPrecedence)),
  ),
  deletePrecedence: write({}, async (db, { tenantId, policyId }) => ({
    rowsAffected: await db.execute(deletePrecedence, [tenantId, policyId]),
  })),
  fetchPrecedences: read(
    { limit: page, offset: page },
    async (db, { tenantId, policyIds, limit = 100, offset = 0 }) => {
      const query = precedences([policyIds.length === 0 ? undefined : policyIds], limit, offset, [tenantId]);
      return { precedences: await db.rows(query.statement, query.params) };
    },
  ),
});
