import { create } from '@bufbuild/protobuf';
import { FieldMaskSchema } from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from 'vitest';
import { between, page, type Rules, requestCheck, required, uuid } from '../../src/contract/rules.ts';
import type { Row } from '../../src/database/statement.ts';
import { column, columnList } from '../../src/database/table.ts';
import { read, write } from '../../src/drivers/driver.ts';
import { PolicyPrecedence } from '../../src/entities/policy-precedence.ts';
import { PolicyRule } from '../../src/entities/policy-rule.ts';
import { PolicyScope } from '../../src/entities/policy-scope.ts';
import { Violation } from '../../src/entities/violation.ts';
import { Health, type HealthListRequest } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { BindAt, PolicyPrecedencePatchSchema } from '../../src/gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import {
  type FetchViolationsRequest,
  InsertViolationRequestSchema,
  type PolicyEngineService,
} from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import {
  CreateRuleRequestSchema,
  PolicyRulePatchSchema,
  type PolicyRulesService,
} from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { PolicyScopePatchSchema } from '../../src/gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import { type ControlRpcs, controlEndpoints } from '../../src/server/endpoint.ts';
import { cell, cells } from '../../src/statements/cells.ts';
import { lowerEnumText } from '../../src/statements/codecs.ts';
import { where } from '../../src/statements/filters.ts';
import { fits } from '../../src/statements/fits.ts';
import { insert } from '../../src/statements/insert.ts';
import { list as listOf } from '../../src/statements/lists.ts';
import { patch } from '../../src/statements/patch.ts';
import { WHOLE } from '../../src/statements/places.ts';

type FetchViolations = (typeof PolicyEngineService)['method']['fetchViolations'];
type AddRule = (typeof PolicyRulesService)['method']['addRule'];

describe('rules', () => {
  test('of a misspelt field do not compile, and are refused when the module loads', () => {
    // @ts-expect-error: a misspelt field
    read<FetchViolations>({ limits: page }, () => ({}));
    // @ts-expect-error: a misspelt field of the message in a field
    write<AddRule>({ 'rule.nmae': required() }, () => ({}));
    // @ts-expect-error: a misspelt field of a table of rules
    const rules: Rules<typeof InsertViolationRequestSchema> = { violation_ids: uuid };
    expect(() => requestCheck(InsertViolationRequestSchema, rules)).toThrow('has no field violation_ids');
  });

  test('on text do not compile for what is none', () => {
    // @ts-expect-error: a rule on text for a number
    read<FetchViolations>({ limit: fits(Violation, 'agent_id') }, () => ({}));
    // @ts-expect-error: a rule on numbers for a text
    read<FetchViolations>({ agent_id: between(0, 1) }, () => ({}));
    // @ts-expect-error: a rule on text for an enum of a nested message
    write<AddRule>({ 'rule.scope': required(fits(PolicyRule, 'scope')) }, () => ({}));
    expect(fits(Violation, 'evaluation_id')('x')).toBe('must be a UUID');
  });

  test('that fit compile', () => {
    expect(read<FetchViolations>({ limit: page, agent_id: fits(Violation, 'agent_id') }, () => ({})).kind).toBe('read');
    expect(write<AddRule>({ rule: required(), 'rule.name': required() }, () => ({})).kind).toBe('write');
  });
});

const reading = { expressions: [], map: (row: Row) => row };

const list = listOf('types_test.violations', {
  entity: Violation,
  filters: { agentId: where.text('agent_id = ?'), severityMin: where.number('severity >= ?') },
  order: ['detected_at', 'id'],
  paged: true,
  reading,
});

test('a list in the order of a column that its table does not have does not compile, and fails when it loads', () => {
  expect(() =>
    // @ts-expect-error: a misspelt column
    listOf('types_test.misspelt', { entity: Violation, order: ['detectedAt desc', 'id'], reading }),
  ).toThrow('has no column detectedAt');
});

describe('filters', () => {
  test('have no places that could be swapped', () => {
    const request = { agentId: 'a', severityMin: 0.5 } as FetchViolationsRequest;
    // @ts-expect-error: values in an order
    list(['a', 0.5]);
    // @ts-expect-error: values that belong to each other's filters
    expect(() => list({ agentId: request.severityMin, severityMin: request.agentId })).not.toThrow();
    // @ts-expect-error: a filter that the list does not have
    list({ agent: 'a' });
    expect(list(request).params).toEqual(['a', 0.5, undefined, 0]);
    expect(list({ severityMin: 0.5, agentId: 'a' }, WHOLE, { limit: 3 }).params).toEqual(['a', 0.5, 3, 0]);
  });
});

describe('cells', () => {
  test('that are swapped, forgotten or not known do not compile', () => {
    interface Known {
      readonly id: string;
      readonly severity: number;
    }
    const id = cell.text(column(Violation, 'id'));
    const severity = cell.number(column(Violation, 'severity'));
    // @ts-expect-error: two cells in each other's place
    cells<Known>({ id: severity, severity: id });
    // @ts-expect-error: a cell that is missing
    cells<Known>({ id });
    // @ts-expect-error: a cell that nobody knows
    cells<Known>({ id, severity, nmae: id });
    const known = cells<Known>({ severity, id });
    expect(known.columns).toBe('"severity", "id"');
    expect(known.map(['0.5', 'a'], { add: () => {} })).toEqual({ id: 'a', severity: 0.5 });
  });
});

describe('columns', () => {
  test('that are misspelt do not compile, and are refused when the module loads', () => {
    // @ts-expect-error: a misspelt column
    expect(() => column(Violation, 'nmae')).toThrow('has no column nmae');
    // @ts-expect-error: a misspelt column among others
    expect(() => columnList(Violation, ['id', 'nmae'])).toThrow('has no column nmae');
  });
});

describe('inserts', () => {
  test('of a misspelt field or column do not compile', () => {
    const columns = { violation_id: 'id' } as const;
    expect(() =>
      // @ts-expect-error: a field is stored in a misspelt column
      insert(Violation, InsertViolationRequestSchema, { columns: { violation_id: 'di' } }),
    ).toThrow('policy.violations has no column di');
    // @ts-expect-error: a default of a misspelt field
    insert(Violation, InsertViolationRequestSchema, { columns, defaults: { sevrity: '0' } });
    expect(() =>
      // @ts-expect-error: a constant of a misspelt column
      insert(Violation, InsertViolationRequestSchema, { columns, constants: { resovled: 'true' } }),
    ).toThrow('policy.violations has no column resovled');
    // @ts-expect-error: a number is bound as if it were a text
    insert(Violation, InsertViolationRequestSchema, { columns, binders: { severity: (text: string) => text } });
  });

  test('have the rules that their fields can be held against', () => {
    const { rules, statement } = insert(PolicyRule, CreateRuleRequestSchema, { defaults: { scope: `'TENANT'` } });
    const asked = statement('types_test.rule', 'returning id')(create(CreateRuleRequestSchema, { name: 'a' }));
    expect(asked.statement.text).toMatch(/^insert into .* returning id$/);
    expect(asked.statement.text).toContain("coalesce($6::character varying, 'TENANT')");
    expect(rules.tenant_id?.('x'.repeat(256))).toBe('must have at most 255 characters');
    // Of a closed set, the length of the stored text says nothing.
    expect(rules.scope).toBeUndefined();
    expect(Object.keys(rules).toSorted()).toEqual(
      [
        'created_at',
        'enforcement_mode',
        'id',
        'name',
        'rule_type',
        'source',
        'status',
        'tenant_id',
        'updated_at',
      ].toSorted(),
    );
  });
});

describe('control RPCs', () => {
  const check = { handle: () => ({}) };
  const list = { handle: () => ({}) };
  const watch = { handle: async function* () {} };

  test('that are missing, or in each other’s place, do not compile', () => {
    // @ts-expect-error: an RPC that is missing
    expect(() => controlEndpoints(Health, { check, list })).toThrow();
    // @ts-expect-error: an RPC that the service does not have
    const known: ControlRpcs<typeof Health> = { check, list, watch, wacth: watch };
    expect(controlEndpoints(Health, known).map(({ name }) => name)).toEqual([
      'Health/Check',
      'Health/List',
      'Health/Watch',
    ]);
    // @ts-expect-error: one answer where a stream is due
    controlEndpoints(Health, { check, list, watch: check });
    // @ts-expect-error: a stream where one answer is due
    controlEndpoints(Health, { check: watch, list, watch });
  });

  test('of another’s request, or of a misspelt field, do not compile', () => {
    const other = { handle: (_request: HealthListRequest) => ({}) };
    // @ts-expect-error: a handler of another RPC's request
    controlEndpoints(Health, { check: other, list, watch });
    // @ts-expect-error: a misspelt field of the request
    controlEndpoints(Health, { check: { handle: ({ servcie }) => servcie }, list, watch });
    // @ts-expect-error: a misspelt field of the answer
    controlEndpoints(Health, { check: { handle: () => ({ staus: 1 }) }, list, watch });
    expect(() =>
      // @ts-expect-error: a rule of a misspelt field
      controlEndpoints(Health, { check: { rules: { servcie: uuid }, ...check }, list, watch }),
    ).toThrow('has no field servcie');
    // @ts-expect-error: a rule on numbers for a text
    controlEndpoints(Health, { check: { rules: { service: between(0, 1) }, ...check }, list, watch });
    expect(controlEndpoints(Health, { check: { rules: { service: uuid }, ...check }, list, watch })).toHaveLength(3);
  });
});

describe('patches', () => {
  test('of a misspelt field or column do not compile', () => {
    const columns = { agent_ids: 'agent_ids_json', api_key_ids: 'api_key_ids_json' } as const;
    expect(() =>
      // @ts-expect-error: a field is stored in a misspelt column
      patch(PolicyScope, PolicyScopePatchSchema, { columns: { ...columns, human_actor_ids: 'human_json' } }),
    ).toThrow('public.policy_scopes has no column human_json');
    expect(() =>
      // @ts-expect-error: a rule of a misspelt field
      patch(PolicyRule, PolicyRulePatchSchema, { rules: { nmae: uuid } }),
    ).toThrow('has no field nmae');
    // @ts-expect-error: a misspelt field that is never NULL
    patch(PolicyRule, PolicyRulePatchSchema, { neverNull: ['desription'] });
    // @ts-expect-error: a clock of a misspelt field
    patch(PolicyRule, PolicyRulePatchSchema, { clocks: { retired: 1 } });
  });

  test('hold what the mask names against its column, and against rules that are laid over', () => {
    const long = 'x'.repeat(300);
    const updates = create(PolicyRulePatchSchema, { name: long, ruleType: long, createdBy: long });
    const request = { updates, updateMask: create(FieldMaskSchema, { paths: ['name', 'created_by', 'status'] }) };
    const { check } = patch(PolicyRule, PolicyRulePatchSchema, {
      rules: { created_by: uuid },
      neverNull: ['description'],
    });
    expect(check(request)).toEqual([
      { field: 'updates.name', description: 'must have at most 256 characters' },
      { field: 'updates.created_by', description: 'must be a UUID' },
      { field: 'updates.status', description: 'must be set' },
    ]);
    expect(check({ updateMask: create(FieldMaskSchema, { paths: ['description', 'scope_id'] }) })).toEqual([
      { field: 'updates.description', description: 'must be set' },
    ]);
  });

  test('change columns by their own names, from the parameter on that they are told', () => {
    const { assignments, params } = patch(PolicyPrecedence, PolicyPrecedencePatchSchema, {
      columns: { bind_at: 'failure_mode', failure_mode: 'bind_at' },
      binders: { precedence: (value: number) => value + 1 },
      clocks: { precedence: 9 },
      textOf: lowerEnumText,
    });
    expect(assignments(4).split(', ').slice(0, 3)).toEqual([
      `"precedence" = case when $9::boolean then now() when 'precedence' = any($4::text[]) then $5::integer else "precedence" end`,
      `"conflict_strategy" = case when 'conflict_strategy' = any($4::text[]) then $6::character varying else "conflict_strategy" end`,
      `"failure_mode" = case when 'bind_at' = any($4::text[]) then $7::character varying else "failure_mode" end`,
    ]);
    const updates = create(PolicyPrecedencePatchSchema, { precedence: 1, bindAt: BindAt.EACH_STEP });
    const updateMask = create(FieldMaskSchema, { paths: ['precedence', 'failure_mode'] });
    expect(params({ updates, updateMask })).toEqual([
      ['precedence', 'failure_mode'],
      2,
      undefined,
      undefined,
      undefined,
    ]);
    const every = create(FieldMaskSchema, { paths: ['*'] });
    expect(params({ updates, updateMask: every }).slice(1)).toEqual([2, undefined, 'each_step', undefined]);
  });
});
