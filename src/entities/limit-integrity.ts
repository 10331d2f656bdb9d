import { defineTable, numeric, timestamptz, varchar } from './columns.ts';

/** The verdict on a limit, at most one a limit. */
export const LimitIntegrity = defineTable(
  'public.limit_integrity',
  {
    id: varchar().primary(),
    limit_id: varchar(),
    integrity_status: varchar(16),
    integrity_score: numeric(5, 4),
    computed_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: { of: 'parent', column: 'limit_id', parent: 'public.limits' },
    foreignKeys: { limit_integrity_limit_id_fkey: { on: 'limit_id', to: 'public.limits', onDelete: 'cascade' } },
    uniques: { limit_integrity_limit_id_key: ['limit_id'] },
    checks: {
      ck_limit_integrity_status: "integrity_status in ('VERIFIED', 'DEGRADED', 'FAILED')",
      ck_limit_integrity_score: 'integrity_score >= 0 and integrity_score <= 1',
    },
    indexes: { ix_limit_integrity_status: ['integrity_status'], ix_limit_integrity_computed_at: ['computed_at'] },
  },
);
