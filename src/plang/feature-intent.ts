/** What a feature does to the world, and the transactions it may run in. */
export const FEATURE_INTENTS = {
  pure_query: ['READ_ONLY'],
  state_mutation: ['ATOMIC_WRITE', 'LOCKED_MUTATION'],
  external_side_effect: ['ATOMIC_WRITE'],
  recoverable_operation: ['LOCKED_MUTATION'],
} as const;
export type FeatureIntent = keyof typeof FEATURE_INTENTS;

export type TransactionIntent = 'READ_ONLY' | 'ATOMIC_WRITE' | 'LOCKED_MUTATION';
export type RetryPolicy = 'never' | 'safe' | 'dangerous';

/** A declaration that contradicts itself; the name is the original's error class. */
export class IntentError extends Error {
  constructor(name: 'IntentConsistencyError' | 'RetryPolicyError', message: string) {
    super(message);
    this.name = name;
  }
}

const REQUIRED_RETRY: Partial<Record<FeatureIntent, RetryPolicy>> = {
  external_side_effect: 'never',
  recoverable_operation: 'safe',
};

const shown = (intent: FeatureIntent): string => `FeatureIntent.${intent.toUpperCase()}`;

/** @throws IntentError when the feature may not run in such a transaction. */
export const validateIntentConsistency = (feature: FeatureIntent, transaction: TransactionIntent): void => {
  const allowed: readonly TransactionIntent[] = FEATURE_INTENTS[feature];
  if (allowed.includes(transaction)) return;
  const list = allowed.map((each) => `'${each}'`).join(', ');
  throw new IntentError(
    'IntentConsistencyError',
    `TransactionIntent.${transaction} is not allowed for ${shown(feature)}. Allowed: [${list}]`,
  );
};

/** @throws IntentError when the feature may not be retried that way. */
export const validateRetryPolicy = (feature: FeatureIntent, retry: RetryPolicy): void => {
  const required = REQUIRED_RETRY[feature];
  if (required === undefined || retry === required) return;
  if (feature === 'external_side_effect' && retry === 'safe') {
    throw new IntentError('RetryPolicyError', `RetryPolicy.SAFE is forbidden for ${shown(feature)}`);
  }
  throw new IntentError(
    'RetryPolicyError',
    `${shown(feature)} requires RetryPolicy.${required.toUpperCase()}, got ${retry.toUpperCase()}`,
  );
};
