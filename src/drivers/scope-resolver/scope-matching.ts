import { byCodePoint, type PythonJson, parsePythonJson, pythonJson } from '../../statements/python-json.ts';

/** A scope as stored: its type and its ids are texts that may be anything. */
export interface StoredScope {
  readonly policyId: string;
  readonly scopeType: string;
  /** JSON text of a list; null or empty for none. */
  readonly agentIdsJson: string | null;
  readonly apiKeyIdsJson: string | null;
  readonly humanActorIdsJson: string | null;
}

/** What is known of a run. An absent id matches nothing, an empty text is an id. */
export interface Run {
  readonly tenantId: string;
  readonly agentId?: string | undefined;
  readonly apiKeyId?: string | undefined;
  readonly humanActorId?: string | undefined;
}

/** The policies that apply to a run. */
export interface Resolution {
  /** Without duplicates, by code point. */
  readonly matchingPolicyIds: string[];
  /** The four lists below have an entry for each matching scope, in the order of the scopes. */
  readonly allRunsPolicies: string[];
  readonly agentPolicies: string[];
  readonly apiKeyPolicies: string[];
  readonly humanActorPolicies: string[];
  readonly scopesEvaluated: number;
}

/** A scope that cannot be tested. */
export class UnreadableScope extends Error {}

/** Text to store for ids; null for none. */
export const idsJson = (ids: readonly string[]): string | null => (ids.length === 0 ? null : pythonJson(ids));

const decoded = (text: string | null): unknown => {
  if (!text) return [];
  try {
    return parsePythonJson(text);
  } catch {
    throw new UnreadableScope('the stored ids are not JSON');
  }
};

/** Texts of a stored list; empty where the text is no list. */
export const listedIds = (text: string | null | undefined): string[] => {
  try {
    const ids = decoded(text ?? null);
    return Array.isArray(ids) ? ids.filter((id) => typeof id === 'string') : [];
  } catch {
    return [];
  }
};

/** Python's `in`: an element of a list, a key of an object, a part of a text. */
const contains = (text: string | null, id: string | undefined): boolean => {
  if (id === undefined) return false;
  const ids = decoded(text);
  if (Array.isArray(ids) || typeof ids === 'string') return ids.includes(id);
  if (typeof ids === 'object' && ids !== null) return Object.hasOwn(ids, id);
  throw new UnreadableScope('the stored ids are no list');
};

/**
 * Whether a scope takes in a run.
 *
 * @throws UnreadableScope for an unknown type, and for ids that are no list when the run has an id of that kind.
 */
export const matchesScope = (scope: StoredScope, run: Run): boolean => {
  switch (scope.scopeType) {
    case 'all_runs':
      return true;
    case 'agent':
      return contains(scope.agentIdsJson, run.agentId);
    case 'api_key':
      return contains(scope.apiKeyIdsJson, run.apiKeyId);
    case 'human_actor':
      return contains(scope.humanActorIdsJson, run.humanActorId);
    default:
      throw new UnreadableScope(`'${scope.scopeType}' is not a valid ScopeType`);
  }
};

/**
 * Tests the scopes of a tenant against a run.
 *
 * @throws UnreadableScope from the first scope that cannot be tested, with `cause` set to it.
 */
export const resolveScopes = (scopes: readonly StoredScope[], run: Run): Resolution => {
  const matching = scopes.filter((scope) => {
    try {
      return matchesScope(scope, run);
    } catch (error) {
      throw new UnreadableScope((error as Error).message, { cause: scope });
    }
  });
  const policiesOf = (type: string): string[] =>
    matching.filter(({ scopeType }) => scopeType === type).map(({ policyId }) => policyId);
  return {
    matchingPolicyIds: [...new Set(matching.map(({ policyId }) => policyId))].sort(byCodePoint),
    allRunsPolicies: policiesOf('all_runs'),
    agentPolicies: policiesOf('agent'),
    apiKeyPolicies: policiesOf('api_key'),
    humanActorPolicies: policiesOf('human_actor'),
    scopesEvaluated: scopes.length,
  };
};

/** Instant as ISO 8601 with offset, microseconds left out when they are 0. */
export const isoText = (instant: Date): string => {
  const fraction = instant.getUTCMilliseconds() === 0 ? '' : `.${instant.toISOString().slice(20, 23)}000`;
  return `${instant.toISOString().slice(0, 19)}${fraction}+00:00`;
};

/** The document that the original stores of a resolution. */
export const resolutionSnapshot = (resolution: Resolution, run: Run, at: string): PythonJson => ({
  matching_policy_ids: resolution.matchingPolicyIds,
  all_runs_policies: resolution.allRunsPolicies,
  agent_policies: resolution.agentPolicies,
  api_key_policies: resolution.apiKeyPolicies,
  human_actor_policies: resolution.humanActorPolicies,
  context: {
    tenant_id: run.tenantId,
    agent_id: run.agentId ?? null,
    api_key_id: run.apiKeyId ?? null,
    human_actor_id: run.humanActorId ?? null,
  },
  scopes_evaluated: resolution.scopesEvaluated,
  resolution_timestamp: at,
});
