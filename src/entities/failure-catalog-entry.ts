import { defineTable, double, doubleArray, text, timestamptz } from './columns.ts';
import { EVERYBODY } from './owner.ts';

/** A known failure, its recovery and its embedding. */
export const FailureCatalogEntry = defineTable(
  'public.failure_catalog',
  {
    id: text().primary(),
    error_code: text(),
    error_pattern: text().nullable(),
    recovery_action: text().nullable(),
    success_rate: double().nullable(),
    embedding: doubleArray().nullable(),
    created_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: EVERYBODY,
    changes: ['insert', 'update'],
    checks: { failure_catalog_success_rate_check: 'success_rate >= 0 and success_rate <= 1' },
    indexes: { idx_fc_error_code: ['error_code'] },
  },
);
