import { page } from '../../contract/rules.ts';
import { firstText, statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { Violation } from '../../entities/violation.ts';
import {
  InsertViolationRequestSchema,
  type PolicyEngineService,
  PolicyViolationSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { affected, each, one, row, rows } from '../../statements/answers.ts';
import { where } from '../../statements/filters.ts';
import { fits } from '../../statements/fits.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(Violation);
const violation = projection(PolicyViolationSchema, Violation);

const newViolation = insert(Violation, InsertViolationRequestSchema, { columns: { violation_id: 'id' } });

const insertViolation = newViolation.statement('policy_engine.insert_violation', `returning ${of('id')}`, firstText);

const violations = list('policy_engine.violations', {
  entity: Violation,
  filters: {
    violationType: where.text(`${of('violation_type')} = ?`),
    agentId: where.text(`${of('agent_id')} = ?`),
    tenantId: where.text(`${of('tenant_id')} = ?`),
    severityMin: where.number(`${of('severity')} >= ?`),
    since: where.instant(`${of('detected_at')} >= ?::timestamptz`),
  },
  order: ['detected_at desc', 'id desc'],
  paged: true,
  reading: violation,
});

const violationById = statement(
  'policy_engine.violation_by_id',
  `select ${violation.columns} from ${table(Violation)} where ${of('id')} = $1::uuid`,
  violation,
);

const acknowledge = statement(
  'policy_engine.acknowledge_violation',
  `update ${table(Violation)} set ${of('acknowledged_at')} = now(), ${of('acknowledgement_notes')} = $2
  where ${of('id')} = $1::uuid`,
);

/** What evaluations found to be against a policy. */
export const violationRpcs = {
  insertViolation: write(newViolation.rules, one('violationId', insertViolation, { rowsAffected: 1n })),
  fetchViolations: read(
    { limit: page },
    rows('violations', (request, walk) => violations(request, walk, { limit: request.limit ?? 100 })),
  ),
  streamViolations: read({}, each('violation', violations)),
  fetchViolationById: read(
    { violation_id: fits(Violation, 'id') },
    row('violation', ({ violationId }) => violationById.with(violationId)),
  ),
  updateViolationAcknowledged: write(
    { violation_id: fits(Violation, 'id') },
    affected(({ violationId, notes }) => acknowledge.with(violationId, notes)),
  ),
} satisfies Part<typeof PolicyEngineService>;
