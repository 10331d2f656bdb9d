import { resolveActionConflict, resolveLimitConflict } from '../../../src/drivers/policy-arbitrator/arbitration.ts';
import { operation } from '../operations.ts';
import { asked, type Computation, type Data, plain } from './subject.ts';

const PRECEDENCE = 'public.policy_precedence';

/** The whole table is the case's; the call takes its own rows from there. */
const arbitrate: Computation = async ({ precedence_rows, ...args }, subject) => {
  await subject.tables.clear(PRECEDENCE);
  await subject.tables.insert(PRECEDENCE, precedence_rows, subject.reader);
  return asked(subject, operation('arbitrator', 'arbitrate'), args);
};

const precedencesOf = (rows: Data[]): Map<string, number> =>
  new Map(rows.map(({ policy_id, precedence }) => [policy_id, precedence]));

const limitConflict: Computation = ({ limits, strategy, precedence_rows = [] }) =>
  plain(
    resolveLimitConflict(
      limits.map(({ policy_id, value }: Data) => ({ policyId: policy_id, value })),
      strategy,
      precedencesOf(precedence_rows),
    ),
  );

const actionConflict: Computation = ({ actions, strategy, precedence_rows = [] }) =>
  plain(
    resolveActionConflict(
      actions.map(({ policy_id, action }: Data) => ({ policyId: policy_id, action })),
      strategy,
      precedencesOf(precedence_rows),
    ),
  );

export const arbitration: Readonly<Record<string, Computation>> = {
  'PolicyArbitrator.arbitrate': arbitrate,
  'PolicyArbitrator._resolve_limit_conflict': limitConflict,
  'PolicyArbitrator._resolve_action_conflict': actionConflict,
};
