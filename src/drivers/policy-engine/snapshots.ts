import { type ColumnOf, column, columnList, projection, table } from '../../database/projection.ts';
import { statement } from '../../database/statement.ts';
import { jsonText } from '../../database/values.ts';
import { Snapshot } from '../../entities/snapshot.ts';
import { PolicySetSnapshotSchema } from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { read, write } from '../driver.ts';
import { required } from '../rules.ts';
import type { Part } from './contract.ts';

const of = (name: ColumnOf<typeof Snapshot>): string => column(Snapshot, name);
const snapshot = projection(PolicySetSnapshotSchema, Snapshot);

const snapshotById = statement(
  'policy_engine.snapshot_by_id',
  `select ${snapshot.columns} from ${table(Snapshot)} where ${of('snapshot_id')} = $1
  order by ${of('created_at')} desc, ${of('id')} desc limit 1`,
  snapshot.map,
);

const insertSnapshot = statement(
  'policy_engine.insert_snapshot',
  `insert into ${table(Snapshot)} (${columnList(Snapshot, [
    'snapshot_id',
    'tenant_id',
    'policies',
    'thresholds',
    'policy_count',
    'integrity_hash',
    'created_at',
  ])})
  values ($1, $2, $3::jsonb, $4::jsonb, $5, $6, now())`,
);

/** Stored snapshots of a policy set. */
export const snapshotRpcs = {
  fetchSnapshotById: read({}, async (db, { snapshotId }) => ({ snapshot: await db.row(snapshotById, [snapshotId]) })),
  insertSnapshot: write({ snapshot_id: required() }, async (db, request) => ({
    rowsAffected: await db.execute(insertSnapshot, [
      request.snapshotId,
      request.tenantId,
      jsonText(request.policies),
      jsonText(request.thresholds),
      request.policyCount,
      request.integrityHash,
    ]),
  })),
} satisfies Part;
