import { page } from '../../contract/rules.ts';
import { firstText, statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { Evaluation } from '../../entities/evaluation.ts';
import {
  EvaluationSchema,
  InsertEvaluationRequestSchema,
  type PolicyEngineService,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { each, one, row, rows } from '../../statements/answers.ts';
import { where } from '../../statements/filters.ts';
import { fits } from '../../statements/fits.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(Evaluation);
const evaluation = projection(EvaluationSchema, Evaluation);

const newEvaluation = insert(Evaluation, InsertEvaluationRequestSchema, { columns: { evaluation_id: 'id' } });

const insertEvaluation = newEvaluation.statement('policy_engine.insert_evaluation', `returning ${of('id')}`, firstText);

const evaluations = list('policy_engine.evaluations', {
  entity: Evaluation,
  filters: {
    actionType: where.text(`${of('action_type')} = ?`),
    agentId: where.text(`${of('agent_id')} = ?`),
    tenantId: where.text(`${of('tenant_id')} = ?`),
    decision: where.text(`${of('decision')} = ?`),
    since: where.instant(`${of('evaluated_at')} >= ?::timestamptz`),
  },
  order: ['evaluated_at desc', 'id desc'],
  paged: true,
  reading: evaluation,
});

const evaluationById = statement(
  'policy_engine.evaluation_by_id',
  `select ${evaluation.columns} from ${table(Evaluation)} where ${of('id')} = $1::uuid`,
  evaluation,
);

/** What was decided about actions. */
export const evaluationRpcs = {
  insertEvaluation: write(newEvaluation.rules, one('evaluationId', insertEvaluation, { rowsAffected: 1n })),
  fetchEvaluations: read(
    { limit: page },
    rows('evaluations', (request, walk) => evaluations(request, walk, { limit: request.limit ?? 100 })),
  ),
  streamEvaluations: read({}, each('evaluation', evaluations)),
  fetchEvaluationById: read(
    { evaluation_id: fits(Evaluation, 'id') },
    row('evaluation', ({ evaluationId }) => evaluationById.with(evaluationId)),
  ),
} satisfies Part<typeof PolicyEngineService>;
