import type { DescField } from '@bufbuild/protobuf';
import { compact, EVENTS, WINDOWS } from './compaction.ts';
import type { Row } from './compare.ts';
import type { Call } from './format.ts';
import type { Answer, Operation } from './operations.ts';
import { enumHolds } from './requests.ts';
import { Generated, type Golden, isMap, type Reader } from './values.ts';
import type { GoldenRow as Arguments, World } from './world.ts';

/** A call about to be made. */
export interface Situation {
  readonly called: Operation;
  readonly call: Call;
  readonly args: Arguments;
  readonly world: World;
  readonly reader: Reader;
  readonly storedTexts: ReadonlySet<string>;
  /** Calls the same RPC with other arguments. */
  readonly ask: (args: Arguments) => Promise<Answer>;
}

/** Our answer where it is deliberately not the original's. */
export type Ours =
  /** Refused with this gRPC code. */
  | { readonly code: string }
  /** Answered with this. */
  | { readonly result: Golden }
  /** Answered so that this finds nothing wrong. */
  | { readonly check: (response: Row) => Promise<string[]> };

/** A deliberate difference, recognised by what a call does and how the original took it. */
interface Difference {
  /** Its line in DIFFERENCES.md begins with this. */
  readonly line: string;
  readonly applies: (situation: Situation) => boolean;
  /** Our answer, worked out before the call is made. */
  readonly ours: (situation: Situation) => Promise<Ours>;
}

const UUID = /^(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}$/i;
const BRACED = /^\{.*\}$/;

const isUuid = (text: string): boolean => UUID.test(BRACED.test(text) ? text.slice(1, -1) : text);

const succeeds = ({ call }: Situation): boolean => call.error === undefined;

const is = ({ called }: Situation, driver: string, name: string): boolean =>
  called.driver === driver && called.name === name;

const hasNonFinite = (value: Golden): boolean => {
  if (typeof value === 'number') return !Number.isFinite(value);
  if (Array.isArray(value)) return value.some(hasNonFinite);
  return isMap(value) && Object.values(value).some(hasNonFinite);
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

/** Columns of a map of changes that the patch does not have. */
const unknownColumns = ({ method }: Operation, args: Arguments): string[] => {
  const changes = args['updates'] ?? args['fields'];
  const patch = method.input.fields.find(({ name }) => name === 'updates')?.message;
  if (!patch || !isMap(changes ?? null)) return [];
  return Object.keys(changes as object).filter((name) => !patch.fields.some((field) => field.name === name));
};

/** Same answer as another call: the fields agree one by one. */
const sameAs = async (answer: Promise<Answer>): Promise<Ours> => {
  const other = await answer;
  if ('refusal' in other) return { code: other.refusal.code };
  const text = (row: Row): string =>
    JSON.stringify([...row.fields], (_key, value) => (typeof value === 'bigint' ? String(value) : value));
  return {
    check: async (response) =>
      text(response) === text(other.response) ? [] : [`answered ${text(response)}, expected ${text(other.response)}`],
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

/** Every deliberate difference that golden cases show. There are few. */
export const DIFFERENCES: readonly Difference[] = [
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
    line: '`fetch_active_policies_for_integrity`',
    applies: (situation) =>
      is(situation, 'policy_engine_driver', 'fetch_active_policies_for_integrity') &&
      /^42/.test(situation.call.error?.sqlstate ?? ''),
    ours: async () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: 'every operation: NaN and infinity',
    applies: (situation) => succeeds(situation) && hasNonFinite(situation.args),
    ours: async ({ args, world }) => {
      for (const [name, value] of Object.entries(args)) if (/_id$|^id$/.test(name)) world.expectAbsent(String(value));
      return { code: 'INVALID_ARGUMENT' };
    },
  },
  {
    line: '`compact_temporal_events`',
    applies: (situation) =>
      is(situation, 'policy_engine_driver', 'compact_temporal_events') &&
      [undefined, '21000'].includes(situation.call.error?.sqlstate) &&
      Object.values(situation.args).every(Number.isInteger),
    ours: async ({ args, world, call }) => {
      const [compactHours, retentionHours] = [args['compact_hours'] as number, args['retention_hours'] as number];
      const removed = await compact(world, compactHours, retentionHours, call.error ? 'fails' : 'succeeds');
      return { result: call.error ? removed : (call.result as number) };
    },
  },
  {
    line: 'every operation of the asynchronous drivers: UUID spellings',
    applies: ({ call, called, args }) =>
      call.error?.client_side === true &&
      called.kind === 'read' &&
      Object.values(args).some((value) => typeof value === 'string' && BRACED.test(value) && isUuid(value)),
    ours: ({ args, ask }) => {
      const bare = Object.entries(args).map(([name, value]) => {
        const braced = typeof value === 'string' && BRACED.test(value) && isUuid(value);
        return [name, braced ? value.slice(1, -1) : value] as const;
      });
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
    ours: async ({ args, world }) => {
      const { details_json, ...given } = args;
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
      world.expectAmended('m10_recovery.suggestion_provenance', (rows) => [...rows, row]);
      return { result: null };
    },
  },
  {
    line: 'every operation: null where an argument has a default',
    applies: (situation) => is(situation, 'recovery_matcher', 'approve_candidate') && situation.args['note'] === null,
    ours: async ({ args, call, reader, world }) => {
      const id = args['candidate_id'];
      const noted = (key: string, column: string) => (rows: readonly Arguments[]) =>
        rows.map((row) => (row[key] === id && row[column] === null ? { ...row, [column]: '' } : row));
      world.expectAmended('public.recovery_candidates', noted('id', 'review_note'));
      world.expectAmended('public.recovery_candidates_audit', noted('candidate_id', 'note'));
      return { result: { ...(reader.read(call.result!) as Arguments), review_note: '' } };
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
    applies: ({ call, called, args }) =>
      [undefined, '42703'].includes(call.error?.sqlstate) && unknownColumns(called, args).length > 0,
    ours: async () => ({ code: 'INVALID_ARGUMENT' }),
  },
  {
    line: '`fetch_temporal_metric_sum`, `delete_old_temporal_events`, `compact_temporal_events`: numbers',
    applies: (situation) =>
      succeeds(situation) &&
      Object.entries(situation.args).some(
        ([name, value]) =>
          /_(seconds|hours)$/.test(name) &&
          (typeof value === 'string' || (typeof value === 'number' && !Number.isInteger(value))),
      ),
    ours: async ({ world }) => {
      for (const table of [EVENTS, WINDOWS]) world.expectContent(table, await world.rows(table));
      return { code: 'INVALID_ARGUMENT' };
    },
  },
  {
    line: '`get_candidates`',
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
];

/** The difference that a call shows, if it does. */
export const differenceOf = (situation: Situation): Difference | undefined =>
  DIFFERENCES.find(({ applies }) => applies(situation));
