import { bool, defineTable, int, numeric, text, timestamptz, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** One call to a model, and what it cost. */
export const ProxyCall = defineTable(
  'public.proxy_calls',
  {
    id: varchar(100).primary(),
    tenant_id: varchar(255),
    api_key_id: varchar(100).nullable(),
    user_id: varchar(255).nullable(),
    endpoint: varchar(100),
    model: varchar(100),
    request_hash: varchar(64),
    request_json: text(),
    response_hash: varchar(64).nullable(),
    response_json: text().nullable(),
    status_code: int().nullable(),
    error_code: varchar(50).nullable(),
    input_tokens: int().nullable().defaultRaw('0'),
    output_tokens: int().nullable().defaultRaw('0'),
    cost_cents: numeric(10, 4).nullable().defaultRaw('0'),
    policy_decisions_json: text().nullable(),
    was_blocked: bool().nullable().defaultRaw('false'),
    block_reason: varchar(100).nullable(),
    latency_ms: int().nullable(),
    upstream_latency_ms: int().nullable(),
    replay_eligible: bool().nullable().defaultRaw('true'),
    replayed_from_id: varchar(100).nullable(),
    created_at: timestamptz().nullable().defaultRaw('now()'),
  },
  {
    rows: TENANT,
    indexes: {
      ix_proxy_calls_tenant: ['tenant_id'],
      ix_proxy_calls_api_key: ['api_key_id'],
      ix_proxy_calls_user: ['user_id'],
      ix_proxy_calls_request_hash: ['request_hash'],
      ix_proxy_calls_created_at: ['created_at'],
      ix_proxy_calls_tenant_created_at: ['tenant_id', 'created_at'],
      ix_proxy_calls_replay: ['tenant_id', 'request_hash', 'replay_eligible'],
      ix_proxy_calls_tenant_user: ['tenant_id', 'user_id'],
    },
  },
);
