import { firstText, statement } from '../../database/statement.ts';
import { type ColumnOf, column, table } from '../../database/table.ts';
import { PolicyDependency } from '../../entities/policy-dependency.ts';
import {
  DependencyEdgeSchema,
  InsertDependencyRequestSchema,
  PolicyDependencySchema,
  TypedDependencyEdgeSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { each, one, rows } from '../../statements/answers.ts';
import { insert } from '../../statements/insert.ts';
import { projection } from '../../statements/projection.ts';
import { read, write } from '../driver.ts';
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
  fetchDependencies: read(
    {},
    rows('dependencies', () => dependencies.with()),
  ),
  streamDependencies: read(
    {},
    each('dependency', () => dependencies.with()),
  ),
  fetchDependencyEdges: read(
    {},
    rows('edges', ({ activeOnly }) => edges(activeOnly).with()),
  ),
  streamDependencyEdges: read(
    {},
    each('edge', ({ activeOnly }) => edges(activeOnly).with()),
  ),
  fetchDependencyEdgesWithType: read(
    {},
    rows('edges', () => typedEdges.with()),
  ),
  streamDependencyEdgesWithType: read(
    {},
    each('edge', () => typedEdges.with()),
  ),
  insertDependency: write(
    newDependency.rules,
    one('dependencyId', (request) => insertDependency.with(...newDependency.params(request)), { rowsAffected: 1n }),
  ),
} satisfies Part;
