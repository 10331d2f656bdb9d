import { page, uuid } from '../../contract/rules.ts';
import type { Session } from '../../database/session.ts';
import { firstText, type Statement, statement } from '../../database/statement.ts';
import { columnList, columnsOf, table } from '../../database/table.ts';
import { PolicySetVersion } from '../../entities/policy-set-version.ts';
import {
  InsertPolicyVersionRequestSchema,
  type PolicyEngineService,
  PolicySetVersionSchema,
  PolicySetVersionSnapshotsSchema,
  PolicySetVersionStateSchema,
  PolicySetVersionSummarySchema,
  type PolicySetVersion as VersionMessage,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { affected, one, row, rows } from '../../statements/answers.ts';
import { fits } from '../../statements/fits.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(PolicySetVersion);
const from = table(PolicySetVersion);
const NEWEST_FIRST = `${of('created_at')} desc, ${of('id')} desc`;

const version = projection(PolicySetVersionSchema, PolicySetVersion);
const summary = projection(PolicySetVersionSummarySchema, PolicySetVersion);
const state = projection(PolicySetVersionStateSchema, PolicySetVersion);
const snapshots = projection(PolicySetVersionSnapshotsSchema, PolicySetVersion);

const versions = (name: string, ...always: string[]) =>
  list(`policy_engine.${name}`, {
    entity: PolicySetVersion,
    always,
    order: ['created_at desc', 'id desc'],
    paged: true,
    reading: version,
  });

const allVersions = versions('policy_versions');
const versionsInStanding = versions('policy_versions_not_rolled_back', `${of('rolled_back_at')} is null`);

const activeVersion = statement(
  'policy_engine.current_active_version',
  `select ${summary.columns} from ${from} where ${of('is_active')} order by ${NEWEST_FIRST} limit 1`,
  summary,
);

const versionById = statement(
  'policy_engine.policy_version_by_id',
  `select ${summary.columns} from ${from} where ${of('id')} = $1::uuid`,
  summary,
);

/** $1: the id or null, $2: the version text. A row with the id comes first. */
const TARGET_MATCH = `${of('id')} = $1::uuid or ${of('version')} = $2::text`;
const TARGET_ORDER = `coalesce(${of('id')} = $1::uuid, false) desc, ${NEWEST_FIRST}`;

const versionByIdOrVersion = statement(
  'policy_engine.policy_version_by_id_or_version',
  `select ${state.columns} from ${from} where ${TARGET_MATCH} order by ${TARGET_ORDER} limit 1`,
  state,
);

const versionForRollback = statement(
  'policy_engine.version_for_rollback',
  `select ${snapshots.columns} from ${from} where ${of('version')} = $1 order by ${NEWEST_FIRST} limit 1`,
  snapshots,
);

const deactivateAll = statement(
  'policy_engine.deactivate_all_versions',
  `update ${from} set ${of('is_active')} = false`,
);

const newVersion = insert(PolicySetVersion, InsertPolicyVersionRequestSchema, {
  columns: { version_id: 'id' },
  constants: { is_active: 'true' },
});

const insertVersion = newVersion.statement('policy_engine.insert_policy_version', `returning ${of('id')}`, firstText);

const markRolledBack = statement(
  'policy_engine.mark_version_rolled_back',
  `update ${from} set ${of('rolled_back_at')} = now(), ${of('rolled_back_by')} = $1 where ${of('is_active')}`,
);

const activate = statement(
  'policy_engine.activate_version',
  `update ${from} set ${of('is_active')} = true where ${of('version')} = $1`,
);

// A row lock cannot keep another transaction from activating a row that this one never sees.
const lockVersions = statement('policy_engine.lock_versions', `lock table ${from} in share row exclusive mode`);

/**
 * Activates the target alone. Every row is rewritten, so that a transaction whose snapshot is older than somebody's
 * activation fails with a serialization error instead of leaving two versions active: where no version was active, the
 * rows whose values change may all be ones that it does not see.
 *
 * @param others assignments to the versions that were active besides the target, as values of the two stamps.
 */
const exclusively = (name: string, others: { readonly at: string; readonly by: string }): Statement<VersionMessage> =>
  statement(
    name,
    `with present as materialized (select ${columnList(PolicySetVersion, ['id', 'version', 'created_at', 'is_active'])} from ${from} for update),
    target as (select ${of('id')} from present where ${TARGET_MATCH} order by ${TARGET_ORDER} limit 1),
    written as (
      update ${from} v set
        ${of('is_active')} = v.id = target.id,
        ${of('rolled_back_at')} = case when v.id = target.id then null when present.is_active then ${others.at}
          else ${of('rolled_back_at', 'v')} end,
        ${of('rolled_back_by')} = case when v.id = target.id then null when present.is_active then ${others.by}
          else ${of('rolled_back_by', 'v')} end
      from target, present
      where present.id = v.id
      returning ${projection(PolicySetVersionSchema, PolicySetVersion, { alias: 'v' }).columns},
        present.is_active or v.id = target.id as changed
    )
    select ${version.columns} from written where changed`,
    version,
  );

const activateExclusively = exclusively('policy_engine.activate_version_exclusively', {
  at: of('rolled_back_at', 'v'),
  by: of('rolled_back_by', 'v'),
});

const rollBackTo = exclusively('policy_engine.roll_back_to_version', { at: 'now()', by: '$3::varchar' });

/** Parameters of {@link TARGET_MATCH}. */
const target = (idOrVersion: string): [string | null, string] => [uuid(idOrVersion) ? null : idOrVersion, idOrVersion];

/** What became of the versions: the one now active, and how many others changed. */
const switched = async (
  db: Session,
  change: Statement<VersionMessage>,
  params: readonly (string | null | undefined)[],
) => {
  await db.execute(lockVersions, []);
  const changed = await db.rows(change, params);
  return {
    policyVersion: changed.find(({ isActive }) => isActive),
    others: BigInt(changed.filter(({ isActive }) => !isActive).length),
    rowsAffected: BigInt(changed.length),
  };
};

/** Versions of the policy set. */
export const versionRpcs = {
  fetchPolicyVersions: read(
    { limit: page },
    rows('policyVersions', ({ includeInactive, limit = 20 }, walk) =>
      (includeInactive ? allVersions : versionsInStanding)({}, walk, { limit }),
    ),
  ),
  fetchCurrentActiveVersion: read(
    {},
    row('policyVersion', () => activeVersion.with()),
  ),
  fetchPolicyVersionById: read(
    { version_id: fits(PolicySetVersion, 'id') },
    row('policyVersion', ({ versionId }) => versionById.with(versionId)),
  ),
  fetchPolicyVersionByIdOrVersion: read(
    {},
    row('policyVersion', ({ versionId }) => versionByIdOrVersion.with(...target(versionId))),
  ),
  fetchVersionForRollback: read(
    {},
    row('policyVersion', (request) => versionForRollback.with(request.version)),
  ),
  deactivateAllVersions: write(
    {},
    affected(() => deactivateAll.with()),
  ),
  insertPolicyVersion: write(newVersion.rules, one('versionId', insertVersion, { rowsAffected: 1n })),
  markVersionRolledBack: write(
    { by: fits(PolicySetVersion, 'rolled_back_by') },
    affected(({ by }) => markRolledBack.with(by)),
  ),
  activateVersion: write(
    {},
    affected((request) => activate.with(request.version)),
  ),
  activateVersionExclusively: write({}, async (db, { versionId }) => {
    const { others, ...rest } = await switched(db, activateExclusively, target(versionId));
    return { ...rest, deactivated: others };
  }),
  rollBackToVersion: write({ by: fits(PolicySetVersion, 'rolled_back_by') }, async (db, { versionId, by }) => {
    const { others, ...rest } = await switched(db, rollBackTo, [...target(versionId), by]);
    return { ...rest, rolledBack: others };
  }),
} satisfies Part<typeof PolicyEngineService>;
