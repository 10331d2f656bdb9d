import { statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { PolicyConflict } from '../../entities/policy-conflict.ts';
import {
  type FetchConflictsRequest,
  InsertConflictRequestSchema,
  PolicyConflictSchema,
  type PolicyEngineService,
  type StreamConflictsRequest,
  UnresolvedConflictSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { affected, each, one, rows } from '../../statements/answers.ts';
import { where } from '../../statements/filters.ts';
import { fits } from '../../statements/fits.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import type { Walk } from '../../statements/places.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(PolicyConflict);
const from = table(PolicyConflict);
const conflict = projection(PolicyConflictSchema, PolicyConflict);
const unresolved = projection(UnresolvedConflictSchema, PolicyConflict);

// A constant condition lets PostgreSQL use the index of the rows that meet it, whatever the parameters.
const conflicts = (name: string, ...always: string[]) =>
  list(`policy_engine.${name}`, {
    entity: PolicyConflict,
    always,
    filters: { severityMin: where.number(`${of('severity')} >= ?`) },
    order: ['detected_at', 'id'],
    reading: conflict,
  });

const allConflicts = conflicts('conflicts');
const openConflicts = conflicts('open_conflicts', `not ${of('resolved')}`);

const unresolvedConflicts = list('policy_engine.unresolved_conflicts', {
  entity: PolicyConflict,
  always: [`not ${of('resolved')}`],
  order: ['detected_at', 'id'],
  reading: unresolved,
});

const resolveConflict = statement(
  'policy_engine.resolve_conflict',
  `update ${from} set ${of('resolved')} = true, ${of('resolution')} = $2, ${of('resolved_by')} = $3,
    ${of('resolved_at')} = now()
  where ${of('id')} = $1::uuid`,
);

/** A conflict whose detector does not say how severe it is lies in the middle. */
const newConflict = insert(PolicyConflict, InsertConflictRequestSchema, { defaults: { severity: '0.5' } });

const insertConflict = newConflict.statement(
  'policy_engine.insert_conflict',
  `returning ${conflict.columns}`,
  conflict,
);

const matching = (request: FetchConflictsRequest | StreamConflictsRequest, walk: Walk) =>
  (request.includeResolved ? allConflicts : openConflicts)(request, walk);

/** Conflicts between policies: found, listed, settled. */
export const conflictRpcs = {
  fetchConflicts: read({}, rows('conflicts', matching)),
  streamConflicts: read({}, each('conflict', matching)),
  fetchUnresolvedConflicts: read({}, rows('conflicts', unresolvedConflicts)),
  streamUnresolvedConflicts: read({}, each('conflict', unresolvedConflicts)),
  resolveConflict: write(
    { conflict_id: fits(PolicyConflict, 'id'), resolved_by: fits(PolicyConflict, 'resolved_by') },
    affected(({ conflictId, resolution, resolvedBy }) => resolveConflict.with(conflictId, resolution, resolvedBy)),
  ),
  insertConflict: write(newConflict.rules, one('conflict', insertConflict, { rowsAffected: 1n })),
} satisfies Part<typeof PolicyEngineService>;
