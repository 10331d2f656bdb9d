import { type ColumnOf, column, columnList, firstText, projection, table } from '../../database/projection.ts';
import { statement } from '../../database/statement.ts';
import { PolicyProvenance } from '../../entities/policy-provenance.ts';
import { ProvenanceEntrySchema } from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { read, write } from '../driver.ts';
import { filteredList, nonEmpty } from '../filters.ts';
import { fits, page, required } from '../rules.ts';
import { each } from '../streams.ts';
import type { Part } from './contract.ts';

const of = (name: ColumnOf<typeof PolicyProvenance>): string => column(PolicyProvenance, name);
const entry = projection(ProvenanceEntrySchema, PolicyProvenance);

const insertProvenance = statement(
  'policy_engine.insert_provenance',
  `insert into ${table(PolicyProvenance)} (${columnList(PolicyProvenance, [
    'policy_id',
    'policy_type',
    'action',
    'changed_by',
    'policy_version',
    'reason',
  ])})
  values ($1::uuid, $2, $3, $4, $5, $6)
  returning ${of('id')}`,
  firstText,
);

const provenance = filteredList('policy_engine.provenance', {
  select: `select ${entry.columns} from ${table(PolicyProvenance)}`,
  filters: [`${of('policy_version')} = ?`],
  order: `${of('changed_at')} desc, ${of('id')} desc`,
  map: entry.map,
});

/** Who changed which policy, and why. */
export const provenanceRpcs = {
  insertProvenance: write(
    {
      policy_id: fits(PolicyProvenance, 'policy_id'),
      policy_type: required(fits(PolicyProvenance, 'policy_type')),
      action: required(fits(PolicyProvenance, 'action')),
      changed_by: required(fits(PolicyProvenance, 'changed_by')),
      policy_version: required(fits(PolicyProvenance, 'policy_version')),
    },
    async (db, request) => ({
      provenanceId: await db.one(insertProvenance, [
        request.policyId,
        request.policyType,
        request.action,
        request.changedBy,
        request.policyVersion,
        request.reason,
      ]),
      rowsAffected: 1n,
    }),
  ),
  fetchProvenance: read({ limit: page }, async (db, { policyVersion, limit = 50 }) => {
    const query = provenance([nonEmpty(policyVersion)], limit);
    return { provenance: await db.rows(query.statement, query.params) };
  }),
  streamProvenance: read({}, (db, { policyVersion }) => {
    const query = provenance([nonEmpty(policyVersion)], null);
    return each(db.stream(query.statement, query.params), 'provenance');
  }),
} satisfies Part;
