import { defineTable, int, jsonb, serial, text, timestamptz } from './columns.ts';
import { TENANT } from './owner.ts';

/** A frozen copy of the policies and thresholds of a tenant. The id of a snapshot is not unique. */
export const Snapshot = defineTable(
  'policy.snapshots',
  {
    id: serial().primary(),
    snapshot_id: text(),
    tenant_id: text().nullable(),
    policies: jsonb().nullable(),
    thresholds: jsonb().nullable(),
    policy_count: int().nullable(),
    integrity_hash: text().nullable(),
    created_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: TENANT,
    changes: ['insert'],
    indexes: { ix_snapshots_snapshot_id: ['snapshot_id', 'created_at desc', 'id desc'] },
  },
);
