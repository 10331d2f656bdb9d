import { bool, defineTable, int, text, timestamptz, varchar } from './columns.ts';
import { EVERYBODY } from './owner.ts';

/** A guardrail that every tenant starts with. */
export const DefaultGuardrail = defineTable(
  'public.default_guardrails',
  {
    id: varchar(100).primary(),
    name: varchar(100),
    description: text().nullable(),
    category: varchar(50),
    rule_type: varchar(50),
    rule_config_json: text(),
    action: varchar(50),
    is_enabled: bool().nullable().defaultRaw('true'),
    is_default: bool().nullable().defaultRaw('true'),
    priority: int().nullable().defaultRaw('100'),
    version: varchar(20).nullable().defaultRaw("'v1'"),
    created_at: timestamptz().nullable().defaultRaw('now()'),
  },
  {
    rows: EVERYBODY,
    uniques: { default_guardrails_name_key: ['name'] },
    indexes: { ix_default_guardrails_priority: ['priority', 'id'] },
  },
);
