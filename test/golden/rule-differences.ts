import { type DescField, ScalarType } from '@bufbuild/protobuf';
import { wholeText } from './compare.ts';
import type { Difference, Ours, Situation } from './differences.ts';
import { isOddUuid, plainUuid } from './uuids.ts';
import { Decimal, Generated, type Golden, isMap } from './values.ts';
import { type GoldenRow, meets } from './world.ts';

const RULES = 'public.policy_rules';
const PROPOSALS = 'public.policy_proposals';
const VERSIONS = 'public.policy_versions';

const calls = ({ called }: Situation, ...operations: readonly string[]): boolean =>
  operations.includes(`${called.driver}.${called.name}`);

const succeeds = ({ call }: Situation): boolean => call.error === undefined;

const verdictOf = (args: GoldenRow): GoldenRow =>
  (isMap(args['integrity'] ?? null) ? args['integrity'] : args) as GoldenRow;

const isNonFinite = (score: Golden): boolean =>
  score instanceof Decimal ? /^[+-]?(nan|inf)/i.test(score.text) : typeof score === 'number' && !Number.isFinite(score);

/** The drivers of proposals, rules, limits, tenants and guardrails. */
const OWN = /^(proposals_read|policy_proposal_(read|write)|policy_(read|rules|rules_read|graph))_driver$/;

const changesIdentity = (situation: Situation): boolean => {
  const { updates = null } = situation.args;
  return (
    calls(situation, 'policy_rules_driver.set_fields') && isMap(updates) && ('id' in updates || 'tenant_id' in updates)
  );
};

const INTEGER_TEXT = /^-?\d+$/;

/** Whether an argument is not of its field's type: the original takes what is as good as nothing, or converts it if it can. */
const isMisfit = ({ scalar }: DescField, value: Golden): boolean => {
  const type = typeof value;
  if (scalar === ScalarType.STRING) return type === 'number' || type === 'boolean';
  if (scalar === ScalarType.INT32)
    return type === 'boolean' || (type === 'string' && !INTEGER_TEXT.test(String(value)));
  return scalar === ScalarType.BOOL && (type === 'number' || type === 'string');
};

/** Required texts that are null. */
const nullTexts = ({ called, args }: Situation): string[] =>
  called.method.input.fields
    .filter(({ name, proto }) => args[name] === null && /_id$/.test(name) && !proto.proto3Optional)
    .map(({ name }) => name);

const refusedOr = async ({ args, ask, called }: Situation, names: readonly string[]): Promise<Ours> => {
  if (names.includes('proposal_id')) return { code: 'INVALID_ARGUMENT' };
  const answer = await ask({ ...args, ...Object.fromEntries(names.map((name) => [name, ''])) });
  if ('refusal' in answer) return { code: answer.refusal.code };
  const expected = wholeText(answer.response);
  return {
    check: async (response) =>
      wholeText(response) === expected ? [] : [`${called.name} answers ${wholeText(response)}, expected ${expected}`],
  };
};

/** Deliberate differences of the operations on rules and proposals. */
export const RULE_DIFFERENCES: readonly Difference[] = [
  {
    line: 'every operation: NaN and infinity',
    applies: (situation) =>
      succeeds(situation) &&
      calls(situation, 'policy_rules_driver.create_integrity', 'policy_rules_driver.add_integrity') &&
      isNonFinite(verdictOf(situation.args)['integrity_score'] ?? null),
    ours: async ({ args, world }) => {
      const { id } = verdictOf(args);
      world.expectUndone((row) => (isMap(row) && row['id'] === id ? undefined : row));
      return { code: 'INVALID_ARGUMENT' };
    },
  },
  {
    line: 'every operation of the asynchronous drivers: UUID spellings',
    applies: (situation) =>
      situation.call.error?.client_side === true &&
      calls(situation, 'policy_proposal_write_driver.update_proposal_status') &&
      isOddUuid(situation.args['proposal_id'] ?? null),
    ours: async ({ args, world }) => {
      const { reviewed_at = null, reviewed_by = null, review_notes = null, effective_from = null } = args;
      const decided = { status: args['new_status']!, reviewed_at, reviewed_by, review_notes, effective_from };
      const id = plainUuid(args['proposal_id'] as string);
      world.expectAmended(PROPOSALS, (rows) => rows.map((row) => (row['id'] === id ? { ...row, ...decided } : row)));
      return { result: (await world.rows(PROPOSALS)).some((row) => row['id'] === id) };
    },
  },
  {
    line: 'every operation of the asynchronous drivers: UUID spellings',
    applies: (situation) =>
      situation.call.error?.client_side === true &&
      calls(situation, 'policy_proposal_write_driver.create_version') &&
      isOddUuid(situation.args['proposal_id'] ?? null),
    ours: async ({ args, world }) => {
      const { proposal_id, version_number, ...rest } = args;
      const id = plainUuid(proposal_id as string);
      if ((await world.rows(PROPOSALS)).every((row) => row['id'] !== id)) return { code: 'FAILED_PRECONDITION' };
      const created = {
        ...rest,
        id: new Generated('uuid'),
        proposal_id: id,
        version: version_number!,
        created_at: new Generated('timestamp'),
        is_current: false,
      };
      world.expectAmended(VERSIONS, (rows, where) => (meets(created, where) ? [...rows, created] : rows));
      return { result: new Generated('uuid') };
    },
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: (situation) =>
      succeeds(situation) &&
      calls(situation, 'policy_proposal_write_driver.create_policy_rule') &&
      situation.args['is_synthetic'] === null,
    ours: async ({ args, world }) => {
      world.expectAmended(RULES, (rows) =>
        rows.map((row) =>
          row['id'] === args['rule_id'] && row['is_synthetic'] === null ? { ...row, is_synthetic: false } : row,
        ),
      );
      return { result: args['rule_id']! };
    },
  },
  {
    line: '`create_proposal`, retiring a rule: null',
    applies: (situation) =>
      succeeds(situation) &&
      calls(situation, 'policy_proposal_write_driver.create_proposal') &&
      situation.args['triggering_feedback_ids'] === null,
    ours: async ({ args, call, reader, world }) => {
      const withList = (row: GoldenRow): GoldenRow =>
        row['proposal_name'] === args['proposal_name'] && row['triggering_feedback_ids'] === null
          ? { ...row, triggering_feedback_ids: [] }
          : row;
      world.expectAmended(PROPOSALS, (rows) => rows.map(withList));
      world.expectAnswers(withList);
      return { result: reader.read(call.result!) };
    },
  },
  {
    line: '`create_proposal`, retiring a rule: null',
    applies: (situation) =>
      succeeds(situation) &&
      calls(situation, 'policy_rules_driver.retire') &&
      (situation.args['by'] === null || situation.args['reason'] === null),
    ours: async ({ args, world }) => {
      const columns = { retired_by: args['by'], retirement_reason: args['reason'] };
      const emptied = Object.entries(columns).filter(([, value]) => value === null);
      const withTexts = (row: GoldenRow): GoldenRow => {
        const left = emptied.filter(([name]) => row['id'] === args['rule_id'] && row[name] === null);
        return { ...row, ...Object.fromEntries(left.map(([name]) => [name, ''])) };
      };
      world.expectAmended(RULES, (rows) => rows.map(withTexts));
      world.expectAnswers(withTexts);
      return { check: async ({ values }) => (values[0] === null ? ['no rule was retired'] : []) };
    },
  },
  {
    line: 'a tracked rule',
    applies: (situation) => succeeds(situation) && changesIdentity(situation),
    ours: async ({ args, world }) => {
      const before = (await world.rows(RULES)).find((row) => row['id'] === args['rule_id']);
      const { id = null } = args['updates'] as GoldenRow;
      const isChanged = (row: GoldenRow): boolean => row['id'] === args['rule_id'] || row['id'] === id;
      if (before) world.expectAmended(RULES, (rows) => rows.map((row) => (isChanged(row) ? before : row)));
      return { code: 'INVALID_ARGUMENT' };
    },
  },
  {
    line: 'every operation: a value that its field cannot hold',
    applies: (situation) =>
      (succeeds(situation) || situation.call.error?.exception !== undefined) &&
      situation.called.kind === 'read' &&
      OWN.test(situation.called.driver) &&
      situation.called.method.input.fields.some((field) => isMisfit(field, situation.args[field.name] ?? null)),
    ours: async () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: 'proposals, rules, tenants and guardrails: a null id',
    applies: (situation) => succeeds(situation) && OWN.test(situation.called.driver) && nullTexts(situation).length > 0,
    ours: (situation) => refusedOr(situation, nullTexts(situation)),
  },
];
