import { firstText, statement } from '../../database/statement.ts';
import { type ColumnOf, column, table } from '../../database/table.ts';
import { PolicyDependency } from '../../entities/policy-dependency.ts';
import {
  DependencyEdgeSchema,
  InsertDependencyRequestSchema,
  PolicyDependencySchema,
  TypedDependencyEdgeSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { insert } from '../../statements/insert.ts';
import { projection } from '../../statements/projection.ts';
import { read, write } from '../driver.ts';
import { each } from '../streams.ts';
import type { Part } from './contract.ts';

const of = (name: ColumnOf<typeof PolicyDependency>): string => column(PolicyDependency, name);
const from = table(PolicyDependency);
const dependency = projection(PolicyDependencySchema, PolicyDependency);
const edge = projection(DependencyEdgeSchema, PolicyDependency);
const typedEdge = projection(TypedDependencyEdgeSchema, PolicyDependency);

const dependencies = statement(
  'policy_engine.dependencies',
  `select ${dependency.columns} from ${from} order by ${of('created_at')}, ${of('id')}`,
  dependency,
);

const allEdges = statement(
  'policy_engine.dependency_edges',
  `select ${edge.columns} from ${from} order by ${of('created_at')}, ${of('id')}`,
  edge,
);

const activeEdges = statement(
  'policy_engine.active_dependency_edges',
  `select ${edge.columns} from ${from} where ${of('is_active')} order by ${of('created_at')}, ${of('id')}`,
  edge,
);

const typedEdges = statement(
  'policy_engine.dependency_edges_with_type',
  `select ${typedEdge.columns} from ${from} where ${of('is_active')} order by ${of('created_at')}, ${of('id')}`,
  typedEdge,
);

const newDependency = insert(PolicyDependency, InsertDependencyRequestSchema);

const insertDependency = statement(
  'policy_engine.insert_dependency',
  `${newDependency.text} returning ${of('id')}`,
  firstText,
);

const edges = (activeOnly = true) => (activeOnly ? activeEdges : allEdges);

/** The dependency graph between policies, as stored. */
export const dependencyRpcs = {
  fetchDependencies: read({}, async (db) => ({ dependencies: await db.rows(dependencies, []) })),
  streamDependencies: read({}, (db) => each(db.stream(dependencies, []), 'dependency')),
  fetchDependencyEdges: read({}, async (db, { activeOnly }) => ({ edges: await db.rows(edges(activeOnly), []) })),
  streamDependencyEdges: read({}, (db, { activeOnly }) => each(db.stream(edges(activeOnly), []), 'edge')),
  fetchDependencyEdgesWithType: read({}, async (db) => ({ edges: await db.rows(typedEdges, []) })),
  streamDependencyEdgesWithType: read({}, (db) => each(db.stream(typedEdges, []), 'edge')),
  insertDependency: write(newDependency.rules, async (db, request) => ({
    dependencyId: await db.one(insertDependency, newDependency.params(request)),
    rowsAffected: 1n,
  })),
} satisfies Part;
