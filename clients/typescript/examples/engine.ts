/**
 * An engine: reads the risk ceilings and safety rules, decides on one action, and records evaluation and violation in one
 * transaction, which survives a conflict and a sidecar that is restarted.
 */
import { randomUUID } from 'node:crypto';
import { type Client, connect, type Transaction } from '@policy-sidecar/client/grpc';
import { now, toValue } from '@policy-sidecar/client/messages';

/** What an agent wants to do. */
interface Action {
  readonly agentId: string;
  readonly type: string;
  readonly cost: number;
}

/** The most that an action may cost where no ceiling says less. */
const COST_LIMIT = 100;

const evaluate = async (tx: Transaction, { type, cost }: Action): Promise<string | undefined> => {
  const { riskCeilings } = await tx.policyEngine.fetchRiskCeilings({});
  const limit = riskCeilings.reduce((least, { maxValue }) => Math.min(least, maxValue), COST_LIMIT);
  return cost > limit ? `${type} costs ${cost}, more than ${limit}` : undefined;
};

const decide = async (client: Client, action: Action) => {
  const [evaluationId, violationId] = [randomUUID(), randomUUID()];
  const began = performance.now();
  // The ids are made outside: the block may run more than once.
  const decision = await client.run(async (tx) => {
    const problem = await evaluate(tx, action);
    const verdict = problem === undefined ? 'allow' : 'block';
    await tx.policyEngine.insertEvaluation({
      evaluationId,
      actionType: action.type,
      agentId: action.agentId,
      requestContext: toValue({ ...action }),
      decision: verdict,
      ...(problem === undefined ? {} : { decisionReason: problem }),
      evaluationMs: performance.now() - began,
      policiesChecked: 1,
      evaluatedAt: now(),
    });
    if (problem === undefined) return verdict;
    await tx.policyEngine.insertViolation({
      violationId,
      evaluationId,
      violationType: 'risk_ceiling_breach',
      severity: 0.8,
      description: problem,
      evidence: toValue({ cost: action.cost }),
      agentId: action.agentId,
      routedToGovernor: false,
      detectedAt: now(),
    });
    return verdict;
  });
  return { decision, evaluationId, violationId };
};

using client = connect();
console.log(JSON.stringify(await decide(client, { agentId: 'agent-1', type: 'external_call', cost: 250 })));
