import { defineTable, int, jsonb, numeric, text, timestamptz, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** A bound on spending, rate or another measure. */
export const Limit = defineTable(
  'public.limits',
  {
    id: varchar().primary(),
    tenant_id: varchar(255),
    name: varchar(256),
    description: text().nullable(),
    limit_category: varchar(16),
    limit_type: varchar(32),
    scope: varchar(16).defaultRaw("'TENANT'"),
    scope_id: varchar().nullable(),
    max_value: numeric(18, 4),
    reset_period: varchar(16).nullable(),
    next_reset_at: timestamptz().nullable(),
    window_seconds: int().nullable(),
    measurement_window_seconds: int().nullable(),
    enforcement: varchar(16).defaultRaw("'BLOCK'"),
    consequence: varchar(16).nullable(),
    status: varchar(16).defaultRaw("'ACTIVE'"),
    created_at: timestamptz().defaultRaw('now()'),
    updated_at: timestamptz().defaultRaw('now()'),
    params: jsonb().defaultRaw("'{}'"),
  },
  {
    rows: TENANT,
    checks: {
      ck_limits_category: "limit_category in ('BUDGET', 'RATE', 'THRESHOLD')",
      ck_limits_scope: "scope in ('GLOBAL', 'TENANT', 'PROJECT', 'AGENT', 'PROVIDER')",
      ck_limits_reset_period: "reset_period in ('DAILY', 'WEEKLY', 'MONTHLY', 'NONE')",
      ck_limits_enforcement: "enforcement in ('BLOCK', 'WARN', 'REJECT', 'QUEUE', 'DEGRADE', 'ALERT')",
      ck_limits_consequence: "consequence in ('ALERT', 'INCIDENT', 'ABORT')",
      ck_limits_status: "status in ('ACTIVE', 'DISABLED')",
    },
    indexes: {
      ix_limits_tenant_category: ['tenant_id', 'limit_category'],
      ix_limits_tenant_scope: ['tenant_id', 'scope'],
      ix_limits_tenant_status: ['tenant_id', 'status'],
      ix_limits_category: ['limit_category'],
      ix_limits_scope: ['scope'],
      ix_limits_threshold_active: {
        on: ['tenant_id', 'limit_category'],
        where: "limit_category = 'THRESHOLD' and status = 'ACTIVE'",
      },
      ix_limits_active_scope: { on: ['tenant_id', 'scope', 'scope_id', 'limit_category'], where: "status = 'ACTIVE'" },
      ix_limits_tenant_status_type: [
        'tenant_id',
        'status',
        'limit_type collate "C"',
        'scope collate "C"',
        'id collate "C"',
      ],
      ix_limits_tenant_type: ['tenant_id', 'limit_type collate "C"', 'id collate "C"'],
    },
  },
);
