import { bigint, bool, defineTable, int, text, timestamptz, varchar } from './columns.ts';

/** A customer of the platform. */
export const Tenant = defineTable(
  'public.tenants',
  {
    id: varchar(255).primary(),
    name: varchar(255),
    slug: varchar(100),
    clerk_org_id: varchar(100).nullable(),
    plan: varchar(50).defaultRaw("'free'"),
    billing_email: varchar(255).nullable(),
    stripe_customer_id: varchar(100).nullable(),
    max_workers: int().defaultRaw('3'),
    max_runs_per_day: int().defaultRaw('100'),
    max_concurrent_runs: int().defaultRaw('5'),
    max_tokens_per_month: bigint().defaultRaw('1000000'),
    max_api_keys: int().defaultRaw('5'),
    runs_today: int().defaultRaw('0'),
    runs_this_month: int().defaultRaw('0'),
    tokens_this_month: bigint().defaultRaw('0'),
    last_run_reset_at: timestamptz().nullable(),
    status: varchar(50).defaultRaw("'active'"),
    suspended_reason: text().nullable(),
    created_at: timestamptz().nullable().defaultRaw('now()'),
    updated_at: timestamptz().nullable().defaultRaw('now()'),
    frozen_at: timestamptz().nullable(),
    frozen_by: varchar(100).nullable(),
    freeze_reason: text().nullable(),
    is_synthetic: bool().defaultRaw('false'),
    synthetic_scenario_id: text().nullable(),
    onboarding_state: int().defaultRaw('0'),
    budget_limit_cents: int().defaultRaw('10000'),
    budget_period: varchar(16).defaultRaw("'daily'"),
  },
  {
    uniques: { tenants_slug_key: ['slug'], tenants_clerk_org_id_key: ['clerk_org_id'] },
    indexes: {
      ix_tenants_plan: ['plan'],
      ix_tenants_onboarding_state: ['onboarding_state'],
      ix_tenants_synthetic: { on: ['is_synthetic', 'synthetic_scenario_id'], where: 'is_synthetic' },
    },
  },
);
