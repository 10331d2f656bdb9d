import { type ColumnOf, column, columnList, firstText, projection, table } from '../../database/projection.ts';
import { statement } from '../../database/statement.ts';
import { jsonText, timestampToText } from '../../database/values.ts';
import { Evaluation } from '../../entities/evaluation.ts';
import {
  EvaluationSchema,
  type FetchEvaluationsRequest,
  type StreamEvaluationsRequest,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { read, write } from '../driver.ts';
import { filteredList, nonEmpty } from '../filters.ts';
import { fits, page, required } from '../rules.ts';
import { each } from '../streams.ts';
import type { Part } from './contract.ts';

const of = (name: ColumnOf<typeof Evaluation>): string => column(Evaluation, name);
const evaluation = projection(EvaluationSchema, Evaluation);

const insertEvaluation = statement(
  'policy_engine.insert_evaluation',
  `insert into ${table(Evaluation)} (${columnList(Evaluation, [
    'id',
    'action_type',
    'agent_id',
    'tenant_id',
    'request_context',
    'decision',
    'decision_reason',
    'modifications',
    'evaluation_ms',
    'policies_checked',
    'rules_matched',
    'evaluated_at',
  ])})
  values ($1::uuid, $2, $3, $4, $5::jsonb, $6, $7, $8::jsonb, $9, $10, $11, $12)
  returning ${of('id')}`,
  firstText,
);

const evaluations = filteredList('policy_engine.evaluations', {
  select: `select ${evaluation.columns} from ${table(Evaluation)}`,
  filters: [
    `${of('action_type')} = ?`,
    `${of('agent_id')} = ?`,
    `${of('tenant_id')} = ?`,
    `${of('decision')} = ?`,
    `${of('evaluated_at')} >= ?::timestamptz`,
  ],
  order: `${of('evaluated_at')} desc, ${of('id')} desc`,
  map: evaluation.map,
});

const evaluationById = statement(
  'policy_engine.evaluation_by_id',
  `select ${evaluation.columns} from ${table(Evaluation)} where ${of('id')} = $1::uuid`,
  evaluation.map,
);

const matching = (request: FetchEvaluationsRequest | StreamEvaluationsRequest, limit: number | null) =>
  evaluations(
    [
      nonEmpty(request.actionType),
      nonEmpty(request.agentId),
      nonEmpty(request.tenantId),
      nonEmpty(request.decision),
      request.since && timestampToText(request.since),
    ],
    limit,
  );

/** What was decided about actions. */
export const evaluationRpcs = {
  insertEvaluation: write(
    {
      evaluation_id: fits(Evaluation, 'id'),
      action_type: required(fits(Evaluation, 'action_type')),
      agent_id: fits(Evaluation, 'agent_id'),
      tenant_id: fits(Evaluation, 'tenant_id'),
      request_context: required(),
      decision: required(fits(Evaluation, 'decision')),
      policies_checked: required(),
      evaluated_at: required(),
    },
    async (db, request) => ({
      evaluationId: await db.one(insertEvaluation, [
        request.evaluationId,
        request.actionType,
        request.agentId,
        request.tenantId,
        jsonText(request.requestContext),
        request.decision,
        request.decisionReason,
        jsonText(request.modifications),
        request.evaluationMs,
        request.policiesChecked,
        request.rulesMatched?.values,
        timestampToText(request.evaluatedAt!),
      ]),
      rowsAffected: 1n,
    }),
  ),
  fetchEvaluations: read({ limit: page }, async (db, request) => {
    const query = matching(request, request.limit ?? 100);
    return { evaluations: await db.rows(query.statement, query.params) };
  }),
  streamEvaluations: read({}, (db, request) => {
    const query = matching(request, null);
    return each(db.stream(query.statement, query.params), 'evaluation');
  }),
  fetchEvaluationById: read({ evaluation_id: fits(Evaluation, 'id') }, async (db, { evaluationId }) => ({
    evaluation: await db.row(evaluationById, [evaluationId]),
  })),
} satisfies Part;
