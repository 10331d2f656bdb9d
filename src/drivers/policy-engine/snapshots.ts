import { statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { Snapshot } from '../../entities/snapshot.ts';
import {
  InsertSnapshotRequestSchema,
  type PolicyEngineService,
  PolicySetSnapshotSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { affected, row } from '../../statements/answers.ts';
import { insert } from '../../statements/insert.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(Snapshot);
const snapshot = projection(PolicySetSnapshotSchema, Snapshot);

const snapshotById = statement(
  'policy_engine.snapshot_by_id',
  `select ${snapshot.columns} from ${table(Snapshot)} where ${of('snapshot_id')} = $1
  order by ${of('created_at')} desc, ${of('id')} desc limit 1`,
  snapshot,
);

const newSnapshot = insert(Snapshot, InsertSnapshotRequestSchema, { constants: { created_at: 'now()' } });

const insertSnapshot = newSnapshot.statement('policy_engine.insert_snapshot');

/** Stored snapshots of a policy set. */
export const snapshotRpcs = {
  fetchSnapshotById: read(
    {},
    row('snapshot', ({ snapshotId }) => snapshotById.with(snapshotId)),
  ),
  insertSnapshot: write(newSnapshot.rules, affected(insertSnapshot)),
} satisfies Part<typeof PolicyEngineService>;
