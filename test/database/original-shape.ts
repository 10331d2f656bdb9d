import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The platform's database as its own migrations leave it, for the tables of this domain: every column, constraint and index
 * under the name it has there. A renamed table has kept the name of its key; the new one has `policy_rules_pkey1`.
 */
interface OriginalTable {
  readonly name: string;
  readonly columns: readonly string[];
  readonly constraints: Readonly<Record<string, string>>;
  /** Indexes that keep no constraint. */
  readonly indexes: readonly string[];
  readonly triggers: readonly string[];
  /** Foreign keys of tables that are not ours: constraint to table. */
  readonly referencedBy: Readonly<Record<string, string>>;
}

/** The catalog, as it was read from a real database. */
export const ORIGINAL: { readonly tables: readonly OriginalTable[] } = JSON.parse(
  readFileSync(join(import.meta.dirname, 'original-catalog.json'), 'utf8'),
);

/** Tables whose rows others point to, before those. */
const ordered = [...ORIGINAL.tables].sort(
  (a, b) => Object.keys(b.referencedBy).length - Object.keys(a.referencedBy).length,
);

const isForeign = (definition: string): boolean => definition.startsWith('FOREIGN KEY');

const tableSql = ({ name, columns, constraints, indexes }: OriginalTable): string[] => {
  const sequences = columns.flatMap((column) => /nextval\('(.*?)'/.exec(column)?.[1] ?? []);
  return [
    ...sequences.map((sequence) => `create sequence ${sequence}`),
    `create table ${name} (${columns.join(', ')})`,
    ...sequences.map((sequence) => `alter sequence ${sequence} owned by ${name}.id`),
    ...Object.entries(constraints)
      .filter(([, definition]) => !isForeign(definition))
      .map(([constraint, definition]) => `alter table ${name} add constraint ${constraint} ${definition}`),
    ...indexes,
  ];
};

/** A table that is not ours, and points to one that is. */
const foreignTable = (target: OriginalTable, constraint: string, table: string): string => {
  const type = target.columns[0]!.replace(/^"id" /, '').replace(/ not null.*/, '');
  return `create table if not exists ${table} (id serial primary key);
    alter table ${table} add column "${constraint}_of" ${type};
    alter table ${table} add constraint ${constraint} foreign key ("${constraint}_of") references ${target.name} (id) on delete cascade`;
};

const VIEWS = `
create view public.failure_match_metrics as select error_code, count(*) as failures from public.failure_matches group by 1;
create view public.failure_pattern_candidates as
  select error_code, max(created_at) as last from public.failure_matches where not recovery_attempted group by 1 having count(*) > 2;
create view public.recovery_candidates_with_context with (security_barrier = true) as
  select c.id, c.confidence, c.decision, f.error_message from public.recovery_candidates c left join public.failure_matches f on f.id = c.failure_match_id;
comment on view public.recovery_candidates_with_context is 'candidates and what failed';
comment on column public.recovery_candidates_with_context.confidence is 'as ''stored''';
alter view public.recovery_candidates_with_context alter column decision set default 'pending';
grant select on public.recovery_candidates_with_context to pg_monitor;
grant update (decision) on public.recovery_candidates_with_context to pg_monitor with grant option;
create rule decide as on update to public.recovery_candidates_with_context
  do instead update public.recovery_candidates set decision = new.decision where id = old.id and confidence >= 0;
create view m10_recovery.suggestions_full_context as
  select c.id, c.confidence * 100 as percent, a.success_rate, i.weight, p.confidence_before
    from public.recovery_candidates_with_context c
    join public.recovery_candidates r on r.id = c.id
    left join m10_recovery.suggestion_action a on a.id = r.selected_action_id
    left join m10_recovery.suggestion_input i on i.suggestion_id = r.id
    left join m10_recovery.suggestion_provenance p on p.suggestion_id = r.id;
create materialized view m10_recovery.mv_top_pending as
  select r.id as candidate_id, r.confidence, r.occurrence_count, a.success_rate, i.weight, 'confidence' as word
    from public.recovery_candidates r
    left join m10_recovery.suggestion_action a on a.id = r.selected_action_id
    left join lateral (select max(weight) as weight from m10_recovery.suggestion_input i where i.suggestion_id = r.id) i on true
   where r.decision = 'pending';
create unique index mv_top_pending_key on m10_recovery.mv_top_pending (candidate_id);
grant select on m10_recovery.mv_top_pending to pg_monitor;
create view m10_recovery.top_of_top as select candidate_id from m10_recovery.mv_top_pending where confidence > 0.5;
create view public.v_runs_o2 as select r.id, l.tenant_id, l.max_value from public.runs r, public.limits l;
`;

const TRIGGERS = `
create function public.refuse_without_integrity() returns trigger language plpgsql as $$ begin
  raise exception 'no integrity row';
end $$;
create constraint trigger trg_policy_rule_integrity_required after insert or update of status on public.policy_rules
  deferrable initially deferred for each row execute function public.refuse_without_integrity();
create constraint trigger trg_enforce_limit_integrity after insert or update of status on public.limits
  deferrable initially deferred for each row execute function public.refuse_without_integrity();
create function public.touch() returns trigger language plpgsql as $$ begin
  new.updated_at := now();
  return new;
end $$;
create trigger trg_failure_matches_updated_at before update on public.failure_matches for each row execute function public.touch();
create trigger trg_recovery_candidates_updated_at before update on public.recovery_candidates for each row execute function public.touch();
create function m10_recovery.record_outcome() returns trigger language plpgsql as $$ begin
  if new.execution_status is distinct from old.execution_status and new.execution_status in ('succeeded', 'failed') then
    update m10_recovery.suggestion_action set total_applications = total_applications + 1 where id = new.selected_action_id;
  end if;
  return new;
end $$;
create trigger trg_update_action_success after update on public.recovery_candidates
  for each row execute function m10_recovery.record_outcome();
comment on column public.recovery_candidates.confidence is 'how ''sure''';
grant select (confidence) on public.recovery_candidates to pg_monitor;
`;

/** Statements that make the platform's tables, and the tables of others around them. */
export const ORIGINAL_SHAPE: readonly string[] = [
  'create schema policy',
  'create schema m10_recovery',
  'create table public.runs (id varchar primary key, note text)',
  'create table public.incidents (id varchar primary key)',
  'create table public.alembic_version (version_num varchar(32) primary key)',
  `insert into public.alembic_version values ('135_last')`,
  ...ordered.flatMap(tableSql),
  ...ordered.flatMap(({ name, constraints }) =>
    Object.entries(constraints)
      .filter(([, definition]) => isForeign(definition))
      .map(([constraint, definition]) => `alter table ${name} add constraint ${constraint} ${definition}`),
  ),
  ...ordered.flatMap((table) =>
    Object.entries(table.referencedBy).map(([constraint, other]) => foreignTable(table, constraint, other)),
  ),
];

/** Views and triggers. They come after the rows, as triggers would have refused or changed some of them. */
export const ORIGINAL_REST: readonly string[] = [VIEWS, TRIGGERS];

interface Column {
  readonly name: string;
  readonly type: string;
  readonly required: boolean;
  readonly fallback: boolean;
}

const columnOf = (definition: string): Column => {
  const [, name, type, required, fallback] = /^"(.*?)" (.*?)( not null)?( default .*)?$/.exec(definition)!;
  return { name: name!, type: type!, required: required !== undefined, fallback: fallback !== undefined };
};

const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** Values that a CHECK allows, by column. */
const allowed = (constraints: Readonly<Record<string, string>>): Map<string, string[]> =>
  new Map(
    Object.values(constraints).flatMap((definition) => {
      const [, column, values] = /\(?(\w+)\)?(?:::text)? = ANY \(?\(?ARRAY\[(.*?)\]/.exec(definition) ?? [];
      return column ? [[column, [...values!.matchAll(/'(.*?)'/g)].map(([, value]) => value!)] as const] : [];
    }),
  );

const TEXTS = ['plain', 'ünï cödé 漢字 🜁', "it's 'quoted' \"here\"", '', ' \\ % _ \t', '\u2028é'];
const INSTANTS = [
  '2024-03-10 02:30:00.123456',
  '2024-11-03 01:30:00.000001',
  '1999-12-31 23:59:59.999999',
  'infinity',
  '-infinity',
  '2024-02-29 00:00:00',
];
const DOCUMENTS = [
  '{"b": 1.10, "a": [null, true, "ß"], "long": 12345678901234567890.5}',
  '{"k": 1, "k": 2, "nested": {"x": 1, "x": [1]}}',
  'null',
  '[]',
  '"text"',
  '{"": {"\\u00fc": "\\\\u0000", "e": 1e3}}',
];
const SINGLES = ['0.1', '0.8123457', '0.4', '1', '0', '0.3333333'];

const pick = (values: readonly string[], row: number, salt: number): string => values[(row + salt) % values.length]!;

const uuid = (row: number): string => `00000000-0000-4000-8000-${String(row).padStart(12, '0')}`;

/** SQL: a value of a type for row `row`; `salt` keeps the columns of a row apart. */
const valueFor = (type: string, row: number, salt: number): string => {
  const limit = /\((\d+)/.exec(type)?.[1];
  if (type === 'uuid') return quoted(uuid(row * 100 + salt));
  if (/\[\]$/.test(type)) return pick(["'{}'", `'{NULL,"a b",ü}'`, `'{"{}",NULL}'`, `'{x}'`], row, salt);
  if (/^(character varying|text)/.test(type)) {
    return quoted([...pick(TEXTS, row, salt)].slice(0, Number(limit ?? 99)).join(''));
  }
  if (/^timestamp with time/.test(type))
    return quoted(`${pick(INSTANTS, row, salt)}${/inf/.test(pick(INSTANTS, row, salt)) ? '' : '+00'}`);
  if (/^timestamp/.test(type)) return quoted(pick(INSTANTS, row, salt));
  if (/^json/.test(type)) return quoted(pick(DOCUMENTS, row, salt));
  if (type === 'boolean') return String((row + salt) % 2 === 0);
  if (type === 'real' || /^numeric/.test(type)) return pick(SINGLES, row, salt);
  if (type === 'double precision') return pick([...SINGLES, "'NaN'", "'Infinity'", '1e300'], row, salt);
  return String((row * 7 + salt) % 100);
};

/** Columns that name a row, or only one row each. */
const named: Readonly<Record<string, (row: number) => string>> = {
  slug: (row) => quoted(`slug-${row}`),
  clerk_org_id: (row) => quoted(`org-${row}`),
  window_key: (row) => quoted(`window ${row}`),
  scope_id: (row) => quoted(`scope-${row}`),
  action_code: (row) => quoted(`action_${row}`),
  idempotency_key: (row) => quoted(uuid(row)),
  agent_ids_json: () => quoted('["a", "b"]'),
  api_key_ids_json: () => quoted('["k"]'),
  human_actor_ids_json: () => quoted('[]'),
  rule_config_json: () => quoted('{"x": 1}'),
  is_current: () => 'false',
  failure_mode: (row) => pick(["'fail_closed'", "'fail_open'"], row, 0),
  failure_match_id: (row) => quoted(uuid(row)),
  confidence_score: (row) => pick(SINGLES, row, 0),
  severity: (row) => pick(SINGLES, row, 0),
};

/** Columns that point to a row of another table, which has as many rows. */
const POINTERS: Readonly<Record<string, (row: number) => string>> = {
  'm10_recovery.suggestion_input.suggestion_id': String,
  'm10_recovery.suggestion_provenance.suggestion_id': String,
  'm10_recovery.suggestion_provenance.action_id': String,
  'm10_recovery.work_queue.candidate_id': (row) => String(row + 10_000),
  'public.recovery_candidates.selected_action_id': String,
  'public.recovery_candidates_audit.candidate_id': String,
  'public.policy_rule_integrity.rule_id': (row) => quoted(`policy_rules ${row}`),
  'public.policy_enforcements.rule_id': (row) => quoted(`policy_rules ${row}`),
  'public.policy_enforcements.run_id': (row) => quoted(`run ${row}`),
  'public.policy_enforcements.incident_id': (row) => quoted(`incident ${row}`),
  'public.policy_rules.parent_rule_id': (row) => quoted(`policy_rules ${row}`),
  'public.policy_rules.superseded_by': (row) => quoted(`policy_rules ${row}`),
  'public.policy_rules.legacy_rule_id': (row) => quoted(`policy_rules_legacy ${row}`),
  'public.policy_versions.proposal_id': (row) => quoted(uuid(row)),
  'public.limit_integrity.limit_id': (row) => quoted(`limits ${row}`),
};

const OWNED_BY_TENANT = ['public.policy_rules', 'public.policy_enforcements', 'public.limits'];

const valueIn = (table: OriginalTable, column: Column, row: number, salt: number): string => {
  const { name, type, required, fallback } = column;
  const values = allowed(table.constraints).get(name);
  if (name === 'id') {
    if (type === 'integer') return String(row);
    if (type === 'uuid') return quoted(uuid(row));
    return quoted(`${table.name === 'public.tenants' ? 'tenant' : table.name.split('.')[1]} ${row}`);
  }
  if (!required && (row + salt) % 4 === 0) return 'null';
  if (fallback && (row + salt) % 4 === 1) return 'default';
  const pointer = POINTERS[`${table.name}.${name}`];
  if (pointer) return pointer(row);
  if (name === 'tenant_id' && OWNED_BY_TENANT.includes(table.name)) return quoted(`tenant ${row}`);
  if (name === 'name') return quoted(`${pick(TEXTS, row, salt)} ${row}`);
  if (values) return quoted(pick(values, row, salt));
  if (name === 'policy_id' && type !== 'uuid') return quoted(`policy ${row}`);
  if (name === 'scope_id' && table.name !== 'public.policy_scopes') return quoted(pick(TEXTS, row, salt));
  if (named[name] && (name !== 'severity' || type === 'double precision')) return named[name](row);
  return valueFor(type, row, salt);
};

/** Generated rows of every table: what its types, its defaults and its missing constraints allow. */
export const originalRows = (count: number): string[] => {
  const rows = Array.from({ length: count }, (_, index) => index + 1);
  return [
    `insert into public.runs select format('run %s', n) from generate_series(1, ${count}) n`,
    `insert into public.incidents select format('incident %s', n) from generate_series(1, ${count}) n`,
    ...insertOrder().map((table) => {
      const columns = table.columns.map(columnOf);
      const names = columns.map(({ name }) => `"${name}"`).join(', ');
      const values = rows.map(
        (row) => `(${columns.map((column, salt) => valueIn(table, column, row, salt)).join(', ')})`,
      );
      return `insert into ${table.name} (${names}) values ${values.join(', ')}`;
    }),
    ...ORIGINAL.tables
      .filter(({ columns }) => columns[0]!.includes('nextval'))
      .map(({ name }) => `select setval(pg_get_serial_sequence('${name}', 'id'), ${count})`),
  ];
};

/** Tables after those that they point to. */
const insertOrder = (): OriginalTable[] => {
  const placed: OriginalTable[] = [];
  const names = new Set(ORIGINAL.tables.map(({ name }) => name));
  const targets = ({ constraints, name }: OriginalTable): string[] =>
    Object.values(constraints)
      .flatMap((definition) => /REFERENCES ([\w.]+)/.exec(definition)?.[1] ?? [])
      .map((target) => (target.includes('.') ? target : `public.${target}`))
      .filter((target) => target !== name && names.has(target));
  while (placed.length < ORIGINAL.tables.length) {
    const next = ORIGINAL.tables.filter(
      (table) =>
        !placed.includes(table) && targets(table).every((target) => placed.some(({ name }) => name === target)),
    );
    placed.push(...next);
  }
  return placed;
};
