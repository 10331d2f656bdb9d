import { page } from '../../contract/rules.ts';
import { firstText } from '../../database/statement.ts';
import { columnsOf } from '../../database/table.ts';
import { PolicyProvenance } from '../../entities/policy-provenance.ts';
import {
  InsertProvenanceRequestSchema,
  type PolicyEngineService,
  ProvenanceEntrySchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { each, one, rows } from '../../statements/answers.ts';
import { where } from '../../statements/filters.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(PolicyProvenance);
const entry = projection(ProvenanceEntrySchema, PolicyProvenance);

const newEntry = insert(PolicyProvenance, InsertProvenanceRequestSchema);

const insertProvenance = newEntry.statement('policy_engine.insert_provenance', `returning ${of('id')}`, firstText);

const provenance = list('policy_engine.provenance', {
  entity: PolicyProvenance,
  filters: { policyVersion: where.text(`${of('policy_version')} = ?`) },
  order: ['changed_at desc', 'id desc'],
  paged: true,
  reading: entry,
});

/** Who changed which policy, and why. */
export const provenanceRpcs = {
  insertProvenance: write(newEntry.rules, one('provenanceId', insertProvenance, { rowsAffected: 1n })),
  fetchProvenance: read(
    { limit: page },
    rows('provenance', ({ policyVersion, limit = 50 }, walk) => provenance({ policyVersion }, walk, { limit })),
  ),
  streamProvenance: read({}, each('provenance', provenance)),
} satisfies Part<typeof PolicyEngineService>;
