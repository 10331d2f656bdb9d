import { defineTable, int, serial, timestamptz, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** How a tenant ranks one of its policies and settles its conflicts. */
export const PolicyPrecedence = defineTable(
  'public.policy_precedence',
  {
    id: serial().primary(),
    policy_id: varchar(64),
    tenant_id: varchar(64),
    precedence: int().defaultRaw('100'),
    conflict_strategy: varchar(32).defaultRaw("'most_restrictive'"),
    bind_at: varchar(32).defaultRaw("'run_start'"),
    failure_mode: varchar(32).defaultRaw("'fail_closed'"),
    created_at: timestamptz().defaultRaw('now()'),
    updated_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: TENANT,
    changes: ['insert', 'update', 'delete'],
    checks: {
      ck_policy_precedence_strategy: "conflict_strategy in ('most_restrictive', 'explicit_priority', 'fail_closed')",
      ck_policy_precedence_bind_at: "bind_at in ('run_start', 'first_token', 'each_step')",
      ck_policy_precedence_failure_mode: "failure_mode in ('fail_closed', 'fail_open')",
    },
    uniqueIndexes: { uq_policy_precedence_tenant_policy: ['tenant_id', 'policy_id'] },
    indexes: { ix_policy_precedence_tenant_id: ['tenant_id'] },
  },
);
