import { createHash } from 'node:crypto';
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { MAX_LEVELS } from '../../src/database/values.ts';
import { pythonJson } from '../../src/statements/python-json.ts';
import { compact, EVENTS, remove } from './compaction.ts';
import { Row, wholeText } from './compare.ts';
import type { Call } from './format.ts';
import { type Answer, isNameColumn, type Operation } from './operations.ts';
import { expectRefused } from './refused.ts';
import { enumHolds, type StoredTexts } from './requests.ts';
import { RULE_DIFFERENCES } from './rule-differences.ts';
import { isOddUuid, isUuid, plainUuid } from './uuids.ts';
import { Generated, type Golden, Instant, isMap, parseInstant, type Reader } from './values.ts';
import { type GoldenRow as Arguments, meets, type World } from './world.ts';

/** A call about to be made. */
export interface Situation {
  readonly called: Operation;
  readonly call: Call;
  readonly args: Arguments;
  readonly world: World;
  readonly reader: Reader;
  readonly storedTexts: StoredTexts;
  /** Calls the same RPC with other arguments. */
  readonly ask: (args: Arguments) => Promise<Answer>;
}

/** Our answer where it is deliberately not the original's. */
export type Ours =
  /** Refused with this gRPC code; `afterwards` says what is wrong with what the refusal left behind. */
  | { readonly code: string; readonly afterwards?: () => Promise<string[]> }
  /** Answered with this. */
  | { readonly result: Golden }
  /** Answered so that this finds nothing wrong. */
  | { readonly check: (response: Row) => Promise<string[]> };

/** A deliberate difference, recognised by what a call does and how the original took it. */
export interface Difference {
  /** Its line in DIFFERENCES.md begins with this. */
  readonly line: string;
  readonly applies: (situation: Situation) => boolean;
  /** Our answer, worked out before the call is made. */
  readonly ours: (situation: Situation) => Promise<Ours>;
}

const succeeds = ({ call }: Situation): boolean => call.error === undefined;

const is = ({ called }: Situation, driver: string, name: string): boolean =>
  called.driver === driver && called.name === name;

const CANDIDATES = 'public.recovery_candidates';
const AUDIT = 'public.recovery_candidates_audit';
const PROVENANCE = 'm10_recovery.suggestion_provenance';
const QUEUE = 'm10_recovery.work_queue';
const ACTIONS = 'm10_recovery.suggestion_action';

const INT64 = 2 ** 63;
const INT_RANGES: Readonly<Record<number, number>> = { [ScalarType.INT32]: 2 ** 31, [ScalarType.INT64]: INT64 };

/** Whether a value is in a text of the arguments, at any depth. */
const hasNul = (value: Golden): boolean => {
  if (typeof value === 'string') return value.includes('\0');
  if (Array.isArray(value)) return value.some(hasNul);
  return isMap(value) && Object.values(value).some(hasNul);
};

const textOf = (value: Golden): string =>
  JSON.stringify(value, (_key, each) => (typeof each === 'bigint' ? String(each) : each));

const equals = (left: Golden, right: Golden): boolean => textOf(left) === textOf(right);

const hasNonFinite = (value: Golden): boolean => {
  if (typeof value === 'number') return !Number.isFinite(value);
  if (Array.isArray(value)) return value.some(hasNonFinite);
  return isMap(value) && Object.values(value).some(hasNonFinite);
};

/** Fields of a message and what the arguments say for them, those of a patch included. */
const given = (desc: DescMessage, args: Arguments): (readonly [DescField, Golden])[] =>
  desc.fields.flatMap((field) => {
    const value = args[field.name];
    if (value === undefined) return [];
    const isPatch = field.fieldKind === 'message' && field.message.typeName.endsWith('Patch') && isMap(value);
    return isPatch ? given(field.message, value) : [[field, value] as const];
  });

const isDouble = (field: DescField): boolean => field.fieldKind === 'scalar' && field.scalar === ScalarType.DOUBLE;

/** Not finite, or the text of a number that is not. */
const isNonFinite = ([field, value]: readonly [DescField, Golden]): boolean =>
  isDouble(field) && typeof value === 'string' && /^\s*[+-]?(nan|inf(inity)?)\s*$/i.test(value);

const INTEGER = /^\s*-?\d+\s*$/;

/** Whether the JSON form of a number reads a text. */
const isNumber = (text: string): boolean => text !== '' && text.trim() === text && Number.isFinite(Number(text));

/** Whether a value is not of a field's type although the original may have taken it. */
const isMisfit = ([field, value]: readonly [DescField, Golden]): boolean => {
  if (value === null) return false;
  if (field.fieldKind === 'scalar') {
    if (field.scalar === ScalarType.BOOL) return typeof value !== 'boolean';
    if (field.scalar === ScalarType.STRING)
      return ['number', 'bigint', 'boolean'].includes(typeof value) || Array.isArray(value);
    const text = typeof value === 'boolean' ? '' : String(value);
    if (field.scalar === ScalarType.INT64) return !INTEGER.test(text);
    if (field.scalar === ScalarType.INT32) return !isNumber(text) || !Number.isInteger(Number(text));
    return isDouble(field) && !isNumber(text);
  }
  if (field.fieldKind !== 'message') return false;
  switch (field.message.typeName) {
    case 'google.protobuf.Timestamp':
      return !(value instanceof Instant) && !parseInstant(String(value));
    case 'hoc.cus.policies.v1.StringList':
      return !Array.isArray(value) || value.some((each) => typeof each !== 'string');
    default:
      return false;
  }
};

/** Whether a document goes beyond what a Value carries: a number beyond any double, or too many levels. */
const isBeyond = (json: unknown, levels = MAX_LEVELS): boolean => {
  if (typeof json === 'number') return !Number.isFinite(json);
  if (typeof json !== 'object' || json === null) return false;
  return levels === 0 || Object.values(json).some((each) => isBeyond(each, levels - 1));
};

const isBeyondDocuments = ([field, value]: readonly [DescField, Golden]): boolean => {
  if (field.fieldKind !== 'message' || field.message.typeName !== 'google.protobuf.Value') return false;
  try {
    return isBeyond(typeof value === 'string' ? JSON.parse(value) : value);
  } catch {
    return false;
  }
};

/** Ids that the engine's driver looks rows up by. */
const ENGINE_ID = /^(violation|ceiling|rule|version|conflict|policy)_id$/;
const TAKES_ANY_TEXT = 'fetch_policy_version_by_id_or_version';

const nullIds = ({ called, args }: Situation): string[] =>
  called.driver === 'policy_engine_driver' && called.name !== TAKES_ANY_TEXT
    ? Object.keys(args).filter((name) => args[name] === null && ENGINE_ID.test(name))
    : [];

/** A map without a change is not looked at any further. */
const changesNothing = ({ args }: Situation): boolean => {
  const { updates } = args;
  return isMap(updates) ? Object.keys(updates).length === 0 : updates === null;
};

const fieldOf = ({ called }: Situation, name: string): DescField | undefined =>
  called.method.input.fields.find((field) => field.name === name);

/** Arguments whose text the closed set of their field does not hold. */
const outsideSets = (situation: Situation): string[] =>
  Object.entries(situation.args).flatMap(([name, value]) => {
    const field = fieldOf(situation, name);
    const outside =
      field?.fieldKind === 'enum' && typeof value === 'string' && !enumHolds(field.enum, value, situation.storedTexts);
    return outside ? [name] : [];
  });

/** Defaults of arguments for which the original tells null from leaving them out. */
const DEFAULTS: Readonly<Record<string, Arguments>> = {
  'policy_engine_driver.fetch_dependency_edges': { active_only: true },
  'policy_rules_read_driver.fetch_policy_rules': { status: 'ACTIVE' },
  'policy_rules_read_driver.count_policy_rules': { status: 'ACTIVE' },
  'proposals_read_driver.fetch_proposals': { status: 'draft' },
  'recovery_matcher.get_candidates': { status: 'pending' },
  'recovery_matcher.count_candidates': { status: 'pending' },
};

const nullDefaults = ({ called, args }: Situation): Arguments =>
  Object.fromEntries(
    Object.entries(DEFAULTS[`${called.driver}.${called.name}`] ?? {}).filter(([name]) => args[name] === null),
  );

/** Arguments that are a fraction, or out of range, where their field takes a whole number. */
const misfits = (situation: Situation): string[] =>
  Object.entries(situation.args).flatMap(([name, value]) => {
    const range = INT_RANGES[fieldOf(situation, name)?.scalar ?? 0];
    if (range === undefined || (typeof value !== 'number' && typeof value !== 'bigint')) return [];
    const whole = typeof value === 'bigint' || Number.isInteger(value);
    // A limit beyond the greatest one asks for all rows, too.
    if (whole && name === 'limit' && value >= 0 && value < INT64) return [];
    return whole && value >= -range && value < range ? [] : [name];
  });

/** Columns of a candidate that hold no NULL. */
const FILLED = ['confidence', 'decision', 'suggestion'];

/** New values of a candidate that no row holds: without a row the original does not look at them. */
const unholdable = (situation: Situation): string[] => {
  if (!is(situation, 'recovery_write_driver', 'update_recovery_candidate')) return [];
  const patch = fieldOf(situation, 'updates')!.message!;
  return Object.entries(situation.args['fields'] as Arguments).flatMap(([name, value]) => {
    const { enum: set } = patch.fields.find((field) => field.name === name) ?? {};
    const outside = set && typeof value === 'string' && !enumHolds(set, value, situation.storedTexts);
    const wide = name === 'confidence' && typeof value === 'number' && !(value >= 0 && value <= 1);
    return outside || wide || (value === null && FILLED.includes(name)) ? [name] : [];
  });
};

/** Ids of a call that must name a row. */
const NAMED: Readonly<Record<string, string>> = {
  enqueue_evaluation_db_fallback: 'candidate_id',
  insert_suggestion_provenance: 'suggestion_id',
};

/** Columns of a map of changes that the patch does not have. */
const unknownColumns = ({ method }: Operation, args: Arguments): string[] => {
  const changes = args['updates'] ?? args['fields'];
  const patch = method.input.fields.find(({ name }) => name === 'updates')?.message;
  if (!patch || !isMap(changes ?? null)) return [];
  return Object.keys(changes as object).filter((name) => !patch.fields.some((field) => field.name === name));
};

const invalid: Ours = { code: 'INVALID_ARGUMENT' };

/** Same answer as another call: the fields agree one by one. */
const sameAs = async (answer: Promise<Answer>): Promise<Ours> => {
  const other = await answer;
  if ('refusal' in other) return { code: other.refusal.code };
  const expected = wholeText(other.response);
  return {
    check: async (response) =>
      wholeText(response) === expected ? [] : [`answered ${wholeText(response)}, expected ${expected}`],
  };
};

/** What a stored `explain` reads as: JSON text is decoded once more where it is JSON. */
const explained = (stored: Golden): Golden => {
  if (typeof stored !== 'string') return stored || {};
  try {
    return JSON.parse(stored) || {};
  } catch {
    return stored || {};
  }
};

const byId = async (world: World, table: string, id: Golden): Promise<Arguments | undefined> =>
  (await world.rows(table)).find((row) => Number(row['id']) === Number(id));

/** What is left of a refused change that the original made: the columns it names, and when the row last changed. */
const refusedChange = async ({ args, world }: Situation, table: string, changes: Arguments): Promise<Ours> => {
  const id = args['candidate_id']!;
  const before = await byId(world, table, id);
  world.expectAmended(table, async (rows) => {
    const now = before && (await byId(world, table, id));
    return rows.map((row) => {
      if (!now || row['id'] !== id) return row;
      const kept = Object.entries(changes).filter(([name, value]) => name in row && equals(row[name]!, value));
      const touched = !equals(now['updated_at']!, before['updated_at']!);
      return {
        ...row,
        ...Object.fromEntries(kept.map(([name]) => [name, before[name]!])),
        ...('updated_at' in row && !touched ? { updated_at: before['updated_at']! } : {}),
      };
    });
  });
  return {
    code: 'INVALID_ARGUMENT',
    afterwards: async () =>
      before && !equals(before, (await byId(world, table, id)) ?? null) ? ['the refused change was made'] : [],
  };
};

/** What the decision of a candidate leaves that the original has refused or undone. */
const decidedAnyway = async ({ args, world }: Situation): Promise<Ours> => {
  const id = args['candidate_id']!;
  const before = (await byId(world, CANDIDATES, id))!;
  const decision = args['decision'] ?? 'approved';
  const note = args['note'] ?? '';
  const now = new Generated('timestamp');
  const changes: Arguments = {
    decision,
    approved_by_human: args['approved_by'] ?? null,
    approved_at: now,
    review_note: note,
    updated_at: now,
  };
  const trail: Arguments = {
    id: new Generated('id'),
    candidate_id: id,
    action: decision,
    actor: args['approved_by'] ?? null,
    old_decision: before['decision']!,
    new_decision: decision,
    note,
    created_at: now,
  };
  world.expectAmended(CANDIDATES, (rows) =>
    rows.map((row) => {
      // What a later call has changed once more is as in the original.
      const left = Object.entries(changes).filter(([name]) => name in row && equals(row[name]!, before[name]!));
      return row['id'] === id ? { ...row, ...Object.fromEntries(left) } : row;
    }),
  );
  world.expectAmended(AUDIT, (rows, where) => (meets(trail, where) ? [...rows, trail] : rows));
  const { updated_at: _at, ...shown } = changes;
  return {
    check: async (response) => {
      const candidate = response.fields.get('candidate');
      if (!(candidate instanceof Row)) return ['answered without the candidate'];
      const { fields } = candidate;
      const wrong = Object.entries({ ...shown, explain: explained(before['explain']!) }).filter(
        ([name, value]) =>
          !(value instanceof Generated ? fields.get(name) : sameText(fields.get(name) as Golden, value)),
      );
      return wrong.map(([name]) => `${name} is ${JSON.stringify(fields.get(name))}`);
    },
  };
};

/** Equal, letter case aside: an enum's text is upper case. */
const sameText = (actual: Golden, expected: Golden): boolean => {
  const text = (actual as { text?: string } | null)?.text;
  return text === undefined ? equals(actual, expected) : text === String(expected).toUpperCase();
};

interface AskedLimit {
  readonly value: number;
}

/** The forms in which a limit of a list may have been hashed: as a double, and where it is whole as an integer. */
const hashedForms = (limits: Golden): string[][] => {
  const values = ((limits ?? []) as unknown as AskedLimit[]).map(({ value }) => Number(value));
  const forms = values.map((value) => [pythonJson(value), ...(Number.isInteger(value) ? [String(value)] : [])]);
  return forms.length === 0 ? [['null']] : forms;
};

/**
 * The hash with every limit as a double, where the golden one is of the same limits with integers among them. Which limit
 * won and in which form is found by trying.
 */
export const hashOfDoubles = (input: Arguments, result: Arguments): string | undefined => {
  const [burns, costs, tokens] = ['burn_rate_limits', 'cost_limits', 'token_limits'].map((name) =>
    hashedForms(input[name] ?? null),
  ) as [string[][], string[][], string[][]];
  const hash = (burn: string, cost: string, token: string): string => {
    const text =
      `{"effective_action": ${pythonJson(result['effective_breach_action'] as string)}, "effective_limits": ` +
      `{"burn_rate": ${burn}, "cost": ${cost}, "token": ${token}}, "policy_ids": ` +
      `${pythonJson(result['policy_ids'] as string[])}, "strategy": ${pythonJson(result['resolution_strategy'] as string)}}`;
    return createHash('sha256').update(text).digest('hex').slice(0, 16);
  };
  for (const burn of burns)
    for (const cost of costs)
      for (const token of tokens)
        for (const [b, c, t] of product(burn, cost, token))
          if (hash(b, c, t) === result['snapshot_hash']) return hash(burn[0]!, cost[0]!, token[0]!);
  return undefined;
};

const product = (burn: string[], cost: string[], token: string[]): [string, string, string][] =>
  burn.flatMap((b) => cost.flatMap((c) => token.map((t): [string, string, string] => [b, c, t])));

/** Whether a settled limit is beyond 64 bits. */
export const exceedsInt64 = (result: Arguments): boolean =>
  ['effective_token_limit', 'effective_cost_limit_cents'].some((name) => {
    const limit = Number(result[name]);
    return limit >= INT64 || limit < -INT64;
  });

/** Refused, with nothing of what the original did. */
const refused = async ({ called, args, world }: Situation): Promise<Ours> => {
  await expectRefused(called, args, world);
  return { code: 'INVALID_ARGUMENT' };
};

/** Every deliberate difference that golden cases show. There are few. */
export const DIFFERENCES: readonly Difference[] = [
  ...RULE_DIFFERENCES,
  {
    line: '`fetch_policy_version_by_id_or_version`',
    applies: (situation) =>
      is(situation, 'policy_engine_driver', 'fetch_policy_version_by_id_or_version') &&
      situation.call.error?.sqlstate === '22P02' &&
      !isUuid(situation.args['version_id'] as string),
    ours: async ({ args, world }) => {
      const versions = (await world.rows('policy.policy_versions')).filter(
        ({ version }) => version === args['version_id'],
      );
      const newest = versions.sort((left, right) =>
        (left['created_at'] as { micros: bigint }).micros < (right['created_at'] as { micros: bigint }).micros ? 1 : -1,
      )[0];
      return {
        result: newest ? [newest['id']!, newest['version']!, newest['policy_hash']!, newest['is_active']!] : null,
      };
    },
  },
  {
    line: '`compact_temporal_events`',
    applies: (situation) =>
      /^(delete_old|cap)_temporal_events$/.test(situation.called.name) &&
      succeeds(situation) &&
      Object.values(situation.args).every((value) => value === null || INTEGER.test(String(value))),
    ours: async ({ called, args, world, call }) => {
      const diverged = world.contentOf(EVENTS) !== undefined;
      const removed = await remove(world, called.name, args);
      return { result: diverged ? removed : (call.result as number) };
    },
  },
  {
    line: '`fetch_active_policies_for_integrity`',
    applies: (situation) =>
      is(situation, 'policy_engine_driver', 'fetch_active_policies_for_integrity') &&
      (/^42/.test(situation.call.error?.sqlstate ?? '') ||
        (succeeds(situation) && !isNameColumn(situation.args['table']!, situation.args['name_col']!))),
    ours: async () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: 'every operation: NaN and infinity',
    applies: (situation) =>
      succeeds(situation) &&
      (hasNonFinite(situation.args) || given(situation.called.method.input, situation.args).some(isNonFinite)),
    ours: async (situation) => {
      if (!is(situation, 'recovery_write_driver', 'insert_suggestion_provenance')) return refused(situation);
      situation.world.expectAmended(PROVENANCE, (rows) =>
        rows.filter((row) => !hasNonFinite(row['confidence_before'] ?? null)),
      );
      return invalid;
    },
  },
  {
    line: '`compact_temporal_events`',
    applies: (situation) =>
      is(situation, 'policy_engine_driver', 'compact_temporal_events') &&
      [undefined, '21000'].includes(situation.call.error?.sqlstate) &&
      Object.values(situation.args).every((value) => INTEGER.test(String(value))),
    ours: async ({ args, world, call }) => {
      const [compactHours, retentionHours] = [Number(args['compact_hours']), Number(args['retention_hours'])];
      const diverged = call.error !== undefined || world.contentOf(EVENTS) !== undefined;
      const removed = await compact(world, compactHours, retentionHours, diverged ? 'fails' : 'succeeds');
      return { result: diverged ? removed : (call.result as number) };
    },
  },
  {
    line: 'every operation of the asynchronous drivers: UUID spellings',
    applies: ({ call, called, args }) =>
      call.error?.client_side === true && called.kind === 'read' && Object.values(args).some(isOddUuid),
    ours: ({ args, ask }) => {
      const bare = Object.entries(args).map(
        ([name, value]) => [name, isOddUuid(value) ? plainUuid(value) : value] as const,
      );
      return sameAs(ask(Object.fromEntries(bare)));
    },
  },
  {
    line: 'every operation: a text outside a closed set',
    applies: (situation) =>
      succeeds(situation) && situation.called.kind === 'read' && outsideSets(situation).length > 0,
    ours: async () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: (situation) => succeeds(situation) && Object.keys(nullDefaults(situation)).length > 0,
    ours: (situation) => sameAs(situation.ask({ ...situation.args, ...nullDefaults(situation) })),
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: ({ call, called, args }) =>
      `${called.driver}.${called.name}` === 'recovery_write_driver.insert_suggestion_provenance' &&
      call.error?.sqlstate === '23502' &&
      args['actor'] === null,
    ours: async (situation) => {
      const { args, world } = situation;
      const { details_json, ...given } = args;
      // With an actor the original would have gone on, to what else is wrong.
      if (details_json === null || args['event_type'] === null || !args['suggestion_id']) return invalid;
      if (outsideSets(situation).length > 0) return invalid;
      const action = args['action_id'];
      const missing =
        !(await byId(world, CANDIDATES, args['suggestion_id']!)) ||
        (action != null && !(await byId(world, ACTIONS, action)));
      if (missing) return { code: 'FAILED_PRECONDITION' };
      const row: Arguments = {
        ...given,
        id: new Generated('id'),
        details: JSON.parse(details_json as string),
        rule_id: null,
        confidence_after: null,
        actor: 'api',
        actor_type: 'system',
        created_at: new Generated('timestamp'),
        duration_ms: null,
      };
      world.expectAmended(PROVENANCE, (rows, where) => (meets(row, where) ? [...rows, row] : rows));
      return { result: null };
    },
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: (situation) =>
      is(situation, 'recovery_matcher', 'approve_candidate') && succeeds(situation) && situation.args['note'] === null,
    ours: async ({ args, call, reader, world }) => {
      const id = args['candidate_id'];
      const noted = (key: string, column: string) => (row: Arguments) =>
        row[key] === id && row[column] === null ? { ...row, [column]: '' } : row;
      world.expectAmended(CANDIDATES, (rows) => rows.map(noted('id', 'review_note')));
      world.expectAmended(AUDIT, (rows) => rows.map(noted('candidate_id', 'note')));
      world.expectAnswers(noted('id', 'review_note'));
      return { result: { ...(reader.read(call.result!) as Arguments), review_note: '' } };
    },
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: (situation) =>
      is(situation, 'recovery_matcher', 'approve_candidate') &&
      situation.call.error?.exception === 'ValueError' &&
      situation.args['decision'] === null,
    ours: async (situation) =>
      (await byId(situation.world, CANDIDATES, situation.args['candidate_id']!))
        ? decidedAnyway(situation)
        : { code: 'NOT_FOUND' },
  },
  {
    line: '`get_candidate_by_idempotency_key`: null',
    applies: (situation) =>
      is(situation, 'recovery_write_driver', 'get_candidate_by_idempotency_key') &&
      succeeds(situation) &&
      situation.args['idempotency_key'] === null,
    ours: async () => invalid,
  },
  {
    line: '`enqueue_evaluation_db_fallback`, `insert_suggestion_provenance`: an id of 0',
    applies: ({ call, called, args }) =>
      called.driver === 'recovery_write_driver' &&
      [undefined, '23503'].includes(call.error?.sqlstate) &&
      args[NAMED[called.name] ?? ''] === 0,
    ours: async ({ called, world }) => {
      if (called.name in NAMED) world.expectAmended(QUEUE, (rows) => rows.filter((row) => row['candidate_id'] !== 0));
      return invalid;
    },
  },
  {
    line: '`update_recovery_candidate`',
    applies: (situation) =>
      is(situation, 'recovery_write_driver', 'update_recovery_candidate') &&
      situation.call.error?.sqlstate === '42601' &&
      Object.keys(situation.args['fields'] as object).length === 0,
    ours: async () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: '`update_risk_ceiling`, `update_safety_rule`, `update_recovery_candidate`: columns',
    applies: ({ called, args }) => unknownColumns(called, args).length > 0,
    ours: async (situation) => {
      if (!succeeds(situation)) return invalid;
      return is(situation, 'recovery_write_driver', 'update_recovery_candidate')
        ? refusedChange(situation, CANDIDATES, situation.args['fields'] as Arguments)
        : refused(situation);
    },
  },
  {
    line: '`fetch_temporal_metric_sum`, `delete_old_temporal_events`, `compact_temporal_events`: numbers',
    applies: (situation) =>
      succeeds(situation) &&
      /^(fetch_temporal_metric_sum|(delete_old|compact)_temporal_events)$/.test(situation.called.name) &&
      Object.entries(situation.args).some(
        ([name, value]) => /_(seconds|hours)$/.test(name) && value !== null && !INTEGER.test(String(value)),
      ),
    ours: refused,
  },
  {
    line: 'every operation: JSON documents',
    applies: (situation) =>
      succeeds(situation) && given(situation.called.method.input, situation.args).some(isBeyondDocuments),
    ours: refused,
  },
  {
    line: '`get_candidates`, `approve_candidate`',
    applies: (situation) =>
      is(situation, 'recovery_matcher', 'approve_candidate') && situation.call.error?.exception === 'JSONDecodeError',
    ours: decidedAnyway,
  },
  {
    line: '`get_candidates`, `approve_candidate`',
    applies: (situation) =>
      is(situation, 'recovery_matcher', 'get_candidates') && situation.call.error?.exception === 'JSONDecodeError',
    ours: async ({ world }) => ({
      check: async (response) => {
        const stored = new Map((await world.rows('public.recovery_candidates')).map((row) => [String(row['id']), row]));
        const listed = response.values.find(Array.isArray) as readonly Row[];
        const wrong = listed.filter(({ fields }) => {
          const expected = explained(stored.get(String(fields.get('id')))!['explain']!);
          return JSON.stringify(fields.get('explain')) !== JSON.stringify(expected);
        });
        return listed.length === 0 || wrong.length > 0
          ? ['a row failed the list, or its explain is not as stored']
          : [];
      },
    }),
  },
  {
    line: '`arbitrate`',
    applies: (situation) =>
      is(situation, 'arbitrator', 'arbitrate') &&
      succeeds(situation) &&
      exceedsInt64(situation.reader.read(situation.call.result!) as Arguments),
    ours: async () => invalid,
  },
  {
    line: '`arbitrate`',
    applies: ({ args, call, called, reader }) => {
      if (called.driver !== 'arbitrator' || !isMap(args['arb_input'] ?? null) || call.error) return false;
      const result = reader.read(call.result!) as Arguments;
      const ofDoubles = hashOfDoubles(args['arb_input'] as Arguments, result);
      return ofDoubles !== undefined && ofDoubles !== result['snapshot_hash'];
    },
    ours: async ({ args, call, reader }) => {
      const result = reader.read(call.result!) as Arguments;
      return { result: { ...result, snapshot_hash: hashOfDoubles(args['arb_input'] as Arguments, result)! } };
    },
  },
  {
    line: 'every operation: a value that its field cannot hold',
    applies: (situation) =>
      succeeds(situation) &&
      (misfits(situation).length > 0 ||
        given(situation.called.method.input, situation.args).some(isMisfit) ||
        (nullIds(situation).length > 0 && !changesNothing(situation)) ||
        hasNul(situation.args) ||
        unholdable(situation).length > 0),
    ours: refused,
  },
];

/** The difference that a call shows, if it does. */
export const differenceOf = (situation: Situation): Difference | undefined =>
  DIFFERENCES.find(({ applies }) => applies(situation));
