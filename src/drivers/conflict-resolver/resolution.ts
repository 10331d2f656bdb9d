import { byCodePoint } from '../../statements/python-json.ts';
import { type Action, actionPrecedence, type Category, categoryPriority } from './grammar.ts';

/** How a function is governed; its priority changes when conflicts are settled. */
export interface Governance {
  readonly category: Category;
  priority: bigint;
}

/** What the resolver needs of an instruction. */
export interface Instruction {
  /** Class name of the original, `IRLoadVar`: what signatures are made of. */
  readonly kind: string;
  /** Of an IRAction. */
  readonly action?: Action;
  /** Of an IRAction; empty or absent if it leads nowhere. */
  readonly target?: string | undefined;
}

/** A compiled policy. */
export interface PolicyFunction {
  readonly entryBlock: string;
  /** Blocks by name, in order. */
  readonly blocks: ReadonlyMap<string, readonly Instruction[]>;
  readonly governance: Governance | undefined;
}

/** Functions by name, in module order. */
export type PolicyModule = ReadonlyMap<string, PolicyFunction>;

export type ConflictKind = 'ACTION' | 'PRIORITY' | 'CATEGORY' | 'CIRCULAR';

/** A conflict, and how it was settled. */
export interface Conflict {
  readonly kind: ConflictKind;
  readonly policies: readonly string[];
  readonly description: string;
  readonly severity: number;
  resolution: string | undefined;
  resolved: boolean;
  winner: string | undefined;
}

const SIGNATURE_LENGTH = 5;

/** Pairs of a weaker policy and a SAFETY policy: their number grows with the square of the module. */
const MAX_PAIRS = 50_000;

/** A module with more conflicts than an answer can hold. */
export class TooManyConflicts extends Error {
  constructor() {
    super(`more than ${MAX_PAIRS} policies might override a SAFETY policy`);
  }
}

const conflict = (
  kind: ConflictKind,
  severity: number,
  policies: readonly string[],
  description: string,
): Conflict => ({
  kind,
  policies,
  description,
  severity,
  resolution: undefined,
  resolved: false,
  winner: undefined,
});

const group = <K, V>(entries: Iterable<readonly [K, V]>): Map<K, V[]> => {
  const groups = new Map<K, V[]>();
  for (const [key, value] of entries) {
    const members = groups.get(key);
    if (members) members.push(value);
    else groups.set(key, [value]);
  }
  return groups;
};

const instructions = function* ({ blocks }: PolicyFunction): Generator<Instruction> {
  for (const block of blocks.values()) yield* block;
};

/** Distinct actions in order of appearance. */
const actionsOf = (policy: PolicyFunction): Action[] => [
  ...new Set([...instructions(policy)].flatMap(({ action }) => action ?? [])),
];

const actionConflicts = (module: PolicyModule): Conflict[] => {
  const bySignature = group(
    [...module].flatMap(([name, policy]) => {
      const entry = policy.blocks.get(policy.entryBlock);
      if (!entry) return [];
      const signature = entry
        .slice(0, SIGNATURE_LENGTH)
        .map(({ kind }) => kind)
        .join('|');
      return [[signature, name] as const];
    }),
  );
  return [...bySignature].flatMap(([signature, names]) => {
    if (names.length < 2) return [];
    const acting = names.map((name) => [name, actionsOf(module.get(name)!)] as const);
    const actions = new Set(acting.flatMap(([, each]) => each));
    if (actions.size < 2) return [];
    const shown = [...actions].map((action) => `<ActionType.${action.toUpperCase()}: '${action}'>`).join(', ');
    return conflict(
      'ACTION',
      70,
      acting.filter(([, each]) => each.length > 0).map(([name]) => name),
      `Conflicting actions [${shown}] for condition '${signature}'`,
    );
  });
};

const priorityConflicts = (module: PolicyModule): Conflict[] => {
  const byRank = group(
    [...module].flatMap(([name, { governance }]) =>
      governance ? [[`${governance.priority} in category ${governance.category}`, name] as const] : [],
    ),
  );
  return [...byRank].flatMap(([rank, names]) =>
    names.length < 2 ? [] : conflict('PRIORITY', 30, names, `Same priority ${rank}`),
  );
};

const categoryConflicts = (module: PolicyModule): Conflict[] => {
  const acting = (category: Category, action: Action) =>
    [...module].filter(([, policy]) => policy.governance?.category === category && actionsOf(policy).includes(action));
  const safe = acting('SAFETY', 'deny');
  const weaker = (['ROUTING', 'CUSTOM'] as const).map((category) => [category, acting(category, 'allow')] as const);
  if (weaker.reduce((sum, [, policies]) => sum + policies.length, 0) * safe.length > MAX_PAIRS) {
    throw new TooManyConflicts();
  }
  return weaker.flatMap(([category, policies]) =>
    policies.flatMap(([lower]) =>
      safe.map(([safety]) =>
        conflict(
          'CATEGORY',
          90,
          [lower, safety],
          `${category} policy '${lower}' might override SAFETY policy '${safety}'`,
        ),
      ),
    ),
  );
};

/** Path from the start of a depth-first search to the first repeated node; undefined when there is no circle. */
const firstCircle = (module: PolicyModule): string[] | undefined => {
  const routes = (name: string): string[] => {
    const policy = module.get(name);
    if (!policy) return [];
    const targets = [...instructions(policy)].flatMap(({ action, target }) =>
      action === 'route' && target ? target : [],
    );
    return [...new Set(targets)];
  };
  const visited = new Set<string>();
  for (const start of module.keys()) {
    if (visited.has(start)) continue;
    visited.add(start);
    const path = new Set([start]);
    // Iterates where the original recurses: long chains must not exhaust the stack.
    const pending = [{ name: start, next: routes(start).values() }];
    while (pending.length > 0) {
      const { name, next } = pending.at(-1)!;
      const { value: target, done } = next.next();
      if (done) {
        path.delete(name);
        pending.pop();
      } else if (path.has(target)) {
        return [...path, target];
      } else if (!visited.has(target)) {
        visited.add(target);
        path.add(target);
        pending.push({ name: target, next: routes(target).values() });
      }
    }
  }
  return undefined;
};

const circularConflicts = (module: PolicyModule): Conflict[] => {
  const circle = firstCircle(module);
  return circle ? [conflict('CIRCULAR', 100, circle, `Circular routing: ${circle.join(' -> ')}`)] : [];
};

/** The best of some names: the first with the strictly greatest score; undefined scores are passed over. */
const best = <T extends number | bigint>(
  names: readonly string[],
  score: (name: string) => T | undefined,
): string | undefined => {
  let winner: string | undefined;
  let top: T | undefined;
  for (const name of names) {
    const each = score(name);
    if (each !== undefined && (top === undefined || each > top)) {
      top = each;
      winner = name;
    }
  }
  return winner;
};

/**
 * Settles one conflict; returns how, or undefined when it cannot be: nobody prevails, or one without a name. A PRIORITY
 * conflict changes the module.
 */
const settle = (
  module: PolicyModule,
  { kind, policies }: Conflict,
): { resolution: string; winner?: string } | undefined => {
  switch (kind) {
    case 'ACTION': {
      const winner = best(policies, (name) => {
        const policy = module.get(name);
        const ranks = policy ? actionsOf(policy).map(actionPrecedence) : [];
        return ranks.length === 0 ? undefined : Math.max(...ranks);
      });
      return winner ? { resolution: `Using most restrictive action from '${winner}'`, winner } : undefined;
    }
    case 'PRIORITY':
      for (const [offset, name] of [...policies].sort(byCodePoint).entries()) {
        const governance = module.get(name)?.governance;
        if (governance) governance.priority += BigInt(offset);
      }
      return { resolution: 'Adjusted priorities to be unique' };
    case 'CATEGORY': {
      const winner = best(policies, (name) => {
        const governance = module.get(name)?.governance;
        return governance && categoryPriority(governance.category);
      });
      return winner ? { resolution: `Higher category policy '${winner}' takes precedence`, winner } : undefined;
    }
    case 'CIRCULAR': {
      const winner = best(policies, (name) => {
        const governance = module.get(name)?.governance;
        return governance && -governance.priority;
      });
      return winner ? { resolution: `Breaking cycle at lowest priority policy '${winner}'`, winner } : undefined;
    }
  }
};

/**
 * Detects conflicts in a module and settles each in turn; the module's priorities change on the way.
 *
 * @returns the conflicts in order of detection, and one line for each that was settled.
 * @throws TooManyConflicts before anything has changed.
 */
export const resolveConflicts = (module: PolicyModule): { conflicts: Conflict[]; log: string[] } => {
  const conflicts = [
    ...actionConflicts(module),
    ...priorityConflicts(module),
    ...categoryConflicts(module),
    ...circularConflicts(module),
  ];
  const log: string[] = [];
  for (const each of conflicts) {
    const settled = settle(module, each);
    if (!settled) continue;
    each.resolution = settled.resolution;
    each.winner = settled.winner;
    each.resolved = true;
    log.push(`Resolved ${each.kind} conflict: ${settled.resolution}`);
  }
  return { conflicts, log };
};
