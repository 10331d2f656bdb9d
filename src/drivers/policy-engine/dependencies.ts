import { firstText } from '../../database/statement.ts';
import { columnsOf } from '../../database/table.ts';
import { PolicyDependency } from '../../entities/policy-dependency.ts';
import {
  DependencyEdgeSchema,
  type FetchDependencyEdgesRequest,
  InsertDependencyRequestSchema,
  PolicyDependencySchema,
  type PolicyEngineService,
  type StreamDependencyEdgesRequest,
  TypedDependencyEdgeSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { each, one, rows } from '../../statements/answers.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import type { Walk } from '../../statements/places.ts';
import { projection, type Selected } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(PolicyDependency);
const dependency = projection(PolicyDependencySchema, PolicyDependency);
const edge = projection(DependencyEdgeSchema, PolicyDependency);
const typedEdge = projection(TypedDependencyEdgeSchema, PolicyDependency);

const oldestFirst = <T>(name: string, reading: Selected<T>, ...always: string[]) =>
  list(`policy_engine.${name}`, { entity: PolicyDependency, always, order: ['created_at', 'id'], reading });

const dependencies = oldestFirst('dependencies', dependency);
const allEdges = oldestFirst('dependency_edges', edge);
const activeEdges = oldestFirst('active_dependency_edges', edge, of('is_active'));
const typedEdges = oldestFirst('dependency_edges_with_type', typedEdge, of('is_active'));

const newDependency = insert(PolicyDependency, InsertDependencyRequestSchema);

const insertDependency = newDependency.statement('policy_engine.insert_dependency', `returning ${of('id')}`, firstText);

const edges = ({ activeOnly = true }: FetchDependencyEdgesRequest | StreamDependencyEdgesRequest, walk: Walk) =>
  (activeOnly ? activeEdges : allEdges)({}, walk);

/** The dependency graph between policies, as stored. */
export const dependencyRpcs = {
  fetchDependencies: read({}, rows('dependencies', dependencies)),
  streamDependencies: read({}, each('dependency', dependencies)),
  fetchDependencyEdges: read({}, rows('edges', edges)),
  streamDependencyEdges: read({}, each('edge', edges)),
  fetchDependencyEdgesWithType: read({}, rows('edges', typedEdges)),
  streamDependencyEdgesWithType: read({}, each('edge', typedEdges)),
  insertDependency: write(newDependency.rules, one('dependencyId', insertDependency, { rowsAffected: 1n })),
} satisfies Part<typeof PolicyEngineService>;
