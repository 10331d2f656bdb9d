import { CanonicalMigration } from './canonical.ts';

/**
 * NULL stays NULL where the platform's own tables allow it, and a rule that nobody has activated is not active: other
 * readers of the database give both a meaning.
 */
export class Migration20261126000600_neutral_columns extends CanonicalMigration {
  override up(): void {
    this.table(
      'public.policy_rules',
      { is_active: 'boolean', mode: 'varchar(32)' },
      { primaryKey: 'policy_rules_pkey (id)' },
    );
    this.seed(`update public.policy_rules set is_active = null, mode = null
      where status = 'RETIRED' and (is_active is not null or mode is not null)`);
    this.table(
      'public.proxy_calls',
      {
        input_tokens: 'integer default 0',
        output_tokens: 'integer default 0',
        cost_cents: 'numeric(10,4) default 0',
        was_blocked: 'boolean default false',
        replay_eligible: 'boolean default true',
        created_at: 'timestamptz default now()',
      },
      { primaryKey: 'proxy_calls_pkey (id)' },
    );
    this.table(
      'public.default_guardrails',
      {
        is_enabled: 'boolean default true',
        is_default: 'boolean default true',
        priority: 'integer default 100',
        version: "varchar(20) default 'v1'",
        created_at: 'timestamptz default now()',
      },
      { primaryKey: 'default_guardrails_pkey (id)' },
    );
    this.table(
      'public.failure_matches',
      {
        is_retryable: 'boolean default false',
        recovery_attempted: 'boolean default false',
        recovery_succeeded: 'boolean default false',
      },
      { primaryKey: 'failure_matches_pkey (id)' },
    );
    this.table(
      'public.recovery_candidates',
      { decision: "text default 'pending'" },
      { primaryKey: 'recovery_candidates_pkey (id)' },
    );
    this.uniqueIndex(
      'public.recovery_candidates',
      'uq_rc_fmid_sig',
      '(failure_match_id, error_signature) where error_signature is not null',
    );
    this.table(
      'm10_recovery.work_queue',
      { priority: 'integer default 0', retry_count: 'integer default 0' },
      { primaryKey: 'work_queue_pkey (id)' },
    );
  }
}
