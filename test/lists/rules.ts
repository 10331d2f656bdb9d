import fc from 'fast-check';
import {
  EnforcementMode,
  RuleScope,
  RuleSource,
  RuleStatus,
} from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { PolicyRulesReadService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import {
  asText,
  bounds,
  descending,
  inOrder,
  instants,
  type ListModel,
  limits,
  list,
  names,
  type Order,
  offsets,
  optional,
  rowsOf,
  type StoredRow,
  type World,
  wanted,
} from './model.ts';

const RULES = 'public.policy_rules';
const VERDICTS = 'public.policy_rule_integrity';
const TRIGGERS = 'public.policy_enforcements';

const DAY = 86_400_000;
/** Days ago; those before the thirtieth no longer count. */
const triggered = fc.array(fc.constantFrom(0.5, 3, 29.9, 30.1, 90), { maxLength: 3 });

const textOf = (values: object, value: number): string =>
  Object.entries(values).find(([, number]) => number === value)![0];

const storedTexts = (values: object): string[] => Object.keys(values).filter((name) => name !== 'UNSPECIFIED');
const one = (values: object) => fc.constantFrom(...storedTexts(values));
const chosenOf = <T extends number>(values: Record<string, T>) =>
  fc.constantFrom(...storedTexts(values).map((name) => values[name]!));

const world = rowsOf({
  id: fc.tuple(fc.constantFrom('r', 'R', 'ä', 'r-'), fc.nat(999)).map(([start, end]) => `${start}${end}`),
  tenant_id: fc.constantFrom('t', 'T'),
  name: names,
  status: fc.constantFrom('ACTIVE', 'ACTIVE', 'RETIRED'),
  enforcement_mode: one(EnforcementMode),
  scope: one(RuleScope),
  source: one(RuleSource),
  rule_type: names,
  created_at: instants,
  verdict: fc.constantFrom(true, true, false),
  triggered,
}).map((rows): World => {
  const now = Date.now();
  return {
    [RULES]: rows.map(({ verdict: _verdict, triggered: _triggered, ...rule }) => rule),
    [VERDICTS]: rows
      .filter(({ verdict }) => verdict)
      .map(({ id }) => ({ id, rule_id: id, integrity_status: 'VERIFIED', integrity_score: '1.000', hash_root: 'h' })),
    [TRIGGERS]: rows.flatMap(({ id, tenant_id, triggered: days }) =>
      days.map((ago: number, index: number) => ({
        id: `${id}/${index}`,
        tenant_id,
        rule_id: id,
        action_taken: 'BLOCKED',
        triggered_at: new Date(now - ago * DAY).toISOString(),
      })),
    ),
  };
});

const recent = (row: StoredRow, { [TRIGGERS]: triggers }: World): string[] =>
  triggers!
    .filter((each) => each['rule_id'] === row['id'] && Date.parse(each['triggered_at']) >= Date.now() - 30 * DAY)
    .map((each) => each['triggered_at']);

/** Latest trigger first, rules without one last. */
const lastTriggered =
  (stored: World): Order =>
  (left, right) => {
    const [a, b] = [left, right].map((row) => recent(row, stored).sort().at(-1) ?? '');
    return a === b ? 0 : a! > b! ? -1 : 1;
  };

/** Lists of rules. */
export const ruleLists: readonly ListModel[] = [
  list(PolicyRulesReadService.method.fetchPolicyRules, {
    table: RULES,
    world,
    request: fc
      .tuple(
        fc.constantFrom('t', 't', 'T', 'T', ''),
        optional({
          status: chosenOf(RuleStatus),
          enforcementMode: chosenOf(EnforcementMode),
          scope: chosenOf(RuleScope),
          source: chosenOf(RuleSource),
          ruleType: wanted,
          createdAfter: bounds,
          createdBefore: bounds,
          limit: limits,
          offset: offsets,
        }),
      )
      .map(([tenantId, rest]) => ({ tenantId, ...rest })),
    chosen: (row, request, stored) => {
      const { tenantId, status = RuleStatus.ACTIVE, enforcementMode, scope, source, ruleType } = request;
      const { createdAfter, createdBefore } = request;
      return (
        stored[VERDICTS]!.some((verdict) => verdict['rule_id'] === row['id']) &&
        row['tenant_id'] === tenantId &&
        row['status'] === textOf(RuleStatus, status) &&
        (enforcementMode === undefined || row['enforcement_mode'] === textOf(EnforcementMode, enforcementMode)) &&
        (scope === undefined || row['scope'] === textOf(RuleScope, scope)) &&
        (source === undefined || row['source'] === textOf(RuleSource, source)) &&
        (ruleType === undefined || row['rule_type'] === ruleType) &&
        (!createdAfter || row['created_at'] >= asText(createdAfter as never)) &&
        (!createdBefore || row['created_at'] <= asText(createdBefore as never))
      );
    },
    order: (stored: World) => inOrder(lastTriggered(stored), descending('created_at'), descending('id')),
    limit: 20,
    keyOfRow: (row) => row['id'],
    keyOfItem: (item) => item['ruleId'],
    beside: {
      answered: ({ items }) => items.map(({ triggerCount30d }) => triggerCount30d),
      expected: (_chosen, page, stored) => page.map((row) => BigInt(recent(row, stored).length)),
    },
  }),
];
