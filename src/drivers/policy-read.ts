import { required } from '../contract/rules.ts';
import { statement } from '../database/statement.ts';
import { column, table } from '../database/table.ts';
import { timestampToText } from '../database/values.ts';
import { DefaultGuardrail } from '../entities/default-guardrail.ts';
import { ProxyCall } from '../entities/proxy-call.ts';
import { Tenant } from '../entities/tenant.ts';
import {
  GetUsageSumSinceResponseSchema,
  GuardrailSchema,
  PolicyReadService,
  TenantBudgetSettingsSchema,
} from '../gen/hoc/cus/policies/v1/policy_read_pb.ts';
import { each, response, row, rows } from '../statements/answers.ts';
import { list } from '../statements/lists.ts';
import { projection, rowsOf } from '../statements/projection.ts';
import { driver, read } from './driver.ts';

const settings = projection(TenantBudgetSettingsSchema, Tenant, { expressions: { tenant_id: column(Tenant, 'id') } });
const guardrail = projection(GuardrailSchema, DefaultGuardrail);

const budgetSettings = statement(
  'policy_read.budget_settings',
  `select ${settings.columns} from ${table(Tenant)} where id = $1`,
  settings,
);

const usageSum = statement(
  'policy_read.usage_sum',
  `select coalesce(trunc(sum(cost_cents)), 0) from ${table(ProxyCall)} where tenant_id = $1 and created_at >= $2::timestamptz`,
  rowsOf(GetUsageSumSinceResponseSchema),
);

const guardrailById = statement(
  'policy_read.guardrail_by_id',
  `select ${guardrail.columns} from ${table(DefaultGuardrail)} where id = $1`,
  guardrail,
);

const allGuardrails = list('policy_read.all_guardrails', {
  entity: DefaultGuardrail,
  order: ['priority', 'id collate "C"'],
  reading: guardrail,
});

/** `PolicyReadDriver`: budgets, usage and default guardrails. */
export const policyRead = driver(PolicyReadService, {
  getTenantBudgetSettings: read(
    {},
    row('settings', ({ tenantId }) => budgetSettings.with(tenantId)),
  ),
  getUsageSumSince: read(
    { since: required() },
    response(({ tenantId, since }) => usageSum.with(tenantId, timestampToText(since!))),
  ),
  getGuardrailById: read(
    {},
    row('guardrail', ({ guardrailId }) => guardrailById.with(guardrailId)),
  ),
  listAllGuardrails: read({}, rows('guardrails', allGuardrails)),
  streamAllGuardrails: read({}, each('guardrail', allGuardrails)),
});
