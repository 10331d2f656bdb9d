import { createHash } from 'node:crypto';
import { refuse } from '../../contract/errors.ts';
import { pythonJson } from '../../statements/python-json.ts';

/** How several limits or actions become one. */
export type Strategy = 'most_restrictive' | 'explicit_priority' | 'fail_closed';

/** A limit that a policy asks for. */
export interface Limit {
  readonly policyId: string;
  readonly value: number;
}

/** A breach action that a policy asks for. */
export interface Action {
  readonly policyId: string;
  readonly action: string;
}

/** A stored precedence of one of the tenant's policies. */
export interface PrecedenceRow {
  readonly policyId: string;
  readonly precedence: number;
  /** As stored; only that of the first policy has to be known. */
  readonly conflictStrategy: string;
}

/** What the policies of a run ask for; an absent list is an empty one. */
export interface ArbitrationInput {
  readonly tokenLimits?: readonly Limit[];
  readonly costLimits?: readonly Limit[];
  readonly burnRateLimits?: readonly Limit[];
  readonly breachActions?: readonly Action[];
}

/** What was settled. */
export interface Arbitration {
  readonly policyIds: string[];
  readonly precedenceOrder: number[];
  /** Null for none alone. */
  readonly settledTokenLimit: number | null;
  readonly settledCostLimitCents: number | null;
  /** Fraction cut off; null for none and for 0. May exceed 64 bits. */
  readonly effectiveTokenLimit: bigint | null;
  /** Fraction cut off; null for none and for 0. May exceed 64 bits. */
  readonly effectiveCostLimitCents: bigint | null;
  readonly effectiveBurnRateLimit: number | null;
  readonly effectiveBreachAction: string;
  readonly conflictsResolved: number;
  readonly resolutionStrategy: Strategy;
  /** What the hash is over. */
  readonly snapshot: string;
  readonly snapshotHash: string;
}

/** Precedence of a policy without a row. */
const DEFAULT_PRECEDENCE = 100;
const DEFAULT_ACTION = 'stop';
const STRATEGIES: readonly string[] = ['most_restrictive', 'explicit_priority', 'fail_closed'] satisfies Strategy[];
const SEVERITIES: ReadonlyMap<string, number> = new Map([
  ['pause', 1],
  ['stop', 2],
  ['kill', 3],
]);
const HASH_DIGITS = 16;

/** Precedence by policy id. */
export type Precedences = ReadonlyMap<string, number>;

const ranked = <T extends { readonly policyId: string }>(asked: readonly T[], precedences: Precedences): T[] => {
  const rank = ({ policyId }: T): number => precedences.get(policyId) ?? DEFAULT_PRECEDENCE;
  return asked.toSorted((left, right) => rank(left) - rank(right));
};

/** The settled limit, null for none, and how many gave way. */
export const resolveLimitConflict = (
  limits: readonly Limit[],
  strategy: Strategy,
  precedences: Precedences,
): [value: number | null, conflicts: number] => {
  const [first] = strategy === 'explicit_priority' ? ranked(limits, precedences) : limits;
  if (!first) return [null, 0];
  const smallest = (least: number, { value }: Limit): number => (value < least ? value : least);
  const value = strategy === 'explicit_priority' ? first.value : limits.reduce(smallest, first.value);
  return [value, limits.length - 1];
};

/** The settled action, `stop` for none, and how many gave way. An unknown action is milder than any known one. */
export const resolveActionConflict = (
  actions: readonly Action[],
  strategy: Strategy,
  precedences: Precedences,
): [action: string, conflicts: number] => {
  const severity = ({ action }: Action): number => SEVERITIES.get(action) ?? 0;
  const severest = actions.toSorted((left, right) => severity(right) - severity(left));
  const [chosen] = strategy === 'explicit_priority' ? ranked(actions, precedences) : severest;
  return chosen ? [chosen.action, actions.length - 1] : [DEFAULT_ACTION, 0];
};

const strategyOf = (stored: string | undefined): Strategy => {
  if (stored === undefined) return 'most_restrictive';
  if (STRATEGIES.includes(stored)) return stored as Strategy;
  throw refuse('UNKNOWN_CONFLICT_STRATEGY', `'${stored}' is not a valid ConflictStrategy`, {
    metadata: { conflict_strategy: stored },
  });
};

const whole = (limit: number | null): bigint | null => (limit ? BigInt(Math.trunc(limit)) : null);

/**
 * Orders policies by precedence and settles what they ask for.
 *
 * @param rows precedences of the policies, of their tenant alone.
 * @throws FAILED_PRECONDITION `UNKNOWN_CONFLICT_STRATEGY` when the first policy's row holds none of the strategies.
 */
export const arbitrate = (
  policyIds: readonly string[],
  rows: readonly PrecedenceRow[],
  input: ArbitrationInput = {},
): Arbitration => {
  const precedences: Precedences = new Map(rows.map(({ policyId, precedence }) => [policyId, precedence]));
  const sorted = ranked(
    policyIds.map((policyId) => ({ policyId })),
    precedences,
  ).map(({ policyId }) => policyId);
  const strategy = strategyOf(rows.find(({ policyId }) => policyId === sorted[0])?.conflictStrategy);
  const [token, tokenConflicts] = resolveLimitConflict(input.tokenLimits ?? [], strategy, precedences);
  const [cost, costConflicts] = resolveLimitConflict(input.costLimits ?? [], strategy, precedences);
  const [burnRate, burnRateConflicts] = resolveLimitConflict(input.burnRateLimits ?? [], strategy, precedences);
  const [action, actionConflicts] = resolveActionConflict(input.breachActions ?? [], strategy, precedences);
  const snapshot = pythonJson({
    policy_ids: sorted,
    effective_limits: { token, cost, burn_rate: burnRate },
    effective_action: action,
    strategy,
  });
  return {
    policyIds: sorted,
    precedenceOrder: sorted.map((policyId) => precedences.get(policyId) ?? DEFAULT_PRECEDENCE),
    settledTokenLimit: token,
    settledCostLimitCents: cost,
    effectiveTokenLimit: whole(token),
    effectiveCostLimitCents: whole(cost),
    effectiveBurnRateLimit: burnRate,
    effectiveBreachAction: action,
    conflictsResolved: tokenConflicts + costConflicts + burnRateConflicts + actionConflicts,
    resolutionStrategy: strategy,
    snapshot,
    snapshotHash: createHash('sha256').update(snapshot).digest('hex').slice(0, HASH_DIGITS),
  };
};
