import { CanonicalMigration } from './canonical.ts';

/** Keeps `updated_at` true. */
const SET_UPDATED_AT = `
create or replace function m10_recovery.set_updated_at() returns trigger language plpgsql as $body$
begin
  new.updated_at := now();
  return new;
end $body$`;

/** Counts how often an action helped, each time an execution ends. In double precision throughout. */
const COUNT_ACTION_OUTCOME = `
create or replace function m10_recovery.count_action_outcome() returns trigger language plpgsql as $body$
begin
  if new.execution_status is distinct from old.execution_status
     and new.execution_status in ('succeeded', 'failed') and new.selected_action_id is not null then
    update m10_recovery.suggestion_action
       set total_applications = coalesce(total_applications, 0) + 1,
           successful_applications = coalesce(successful_applications, 0) + (new.execution_status = 'succeeded')::integer,
           success_rate = (coalesce(successful_applications, 0) + (new.execution_status = 'succeeded')::integer)::double precision
                          / (coalesce(total_applications, 0) + 1),
           updated_at = now()
     where id = new.selected_action_id;
  end if;
  return null;
end $body$`;

/** The queue of candidates to evaluate: one unprocessed item a candidate. */
const QUEUE_FUNCTIONS = [
  `create or replace function m10_recovery.enqueue_work(
  p_candidate_id integer, p_idempotency_key uuid default null, p_priority integer default 0, p_method text default 'db_fallback'
) returns integer language sql as $body$
  insert into m10_recovery.work_queue as item (candidate_id, idempotency_key, priority, method)
  values (p_candidate_id, p_idempotency_key, coalesce(p_priority, 0), p_method)
  on conflict (candidate_id) where processed_at is null
  do update set priority = greatest(item.priority, p_priority), retry_count = item.retry_count + 1
  returning id
$body$`,
  `create or replace function m10_recovery.claim_work(p_worker_id text, p_batch_size integer default 10)
returns table (work_id integer, candidate_id integer, idempotency_key uuid, priority integer, retry_count integer)
language sql as $body$
  with picked as (
    select id from m10_recovery.work_queue
     where processed_at is null and claimed_at is null
     order by priority desc, queued_at, id
     limit p_batch_size
       for update skip locked
  )
  update m10_recovery.work_queue item set claimed_at = now(), claimed_by = p_worker_id
    from picked where item.id = picked.id
  returning item.id, item.candidate_id, item.idempotency_key, item.priority, item.retry_count
$body$`,
  `create or replace function m10_recovery.complete_work(p_work_id integer, p_success boolean default true, p_error text default null)
returns boolean language plpgsql as $body$
begin
  if p_success then
    update m10_recovery.work_queue set processed_at = now() where id = p_work_id;
  else
    update m10_recovery.work_queue
       set claimed_at = null, claimed_by = null, error_message = p_error, retry_count = retry_count + 1
     where id = p_work_id;
  end if;
  return found;
end $body$`,
  `create or replace function m10_recovery.release_stalled_work(p_stalled_seconds integer default 300)
returns integer language plpgsql as $body$
declare released integer;
begin
  update m10_recovery.work_queue
     set claimed_at = null, claimed_by = null, error_message = 'Released: worker stalled'
   where processed_at is null and claimed_at < now() - make_interval(secs => p_stalled_seconds);
  get diagnostics released = row_count;
  return released;
end $body$`,
];

const SEED_ACTIONS = `
insert into m10_recovery.suggestion_action
  (action_code, name, action_type, applies_to_error_codes, is_automated, requires_approval, priority, template)
values
  ('retry_exponential', 'Retry with exponential backoff', 'retry', '{TIMEOUT,HTTP_5XX,CONNECTION_ERROR,RATE_LIMITED}', true, false, 80,
   '{"max_retries": 3, "base_delay_ms": 1000, "max_delay_ms": 30000, "jitter": true}'),
  ('fallback_model', 'Fall back to another model', 'fallback', '{BUDGET_EXCEEDED,RATE_LIMITED,MODEL_UNAVAILABLE}', true, false, 70,
   '{"fallback_model": "gpt-4o-mini", "preserve_context": true}'),
  ('circuit_breaker', 'Open the circuit breaker', 'reconfigure', '{HTTP_5XX,CONNECTION_ERROR,TIMEOUT}', true, true, 60,
   '{"cooldown_seconds": 60, "failure_threshold": 5}'),
  ('notify_ops', 'Notify operations', 'notify', '{PERMISSION_DENIED,CONFIG_ERROR,UNKNOWN}', true, false, 50,
   '{"channel": "slack", "priority": "high", "include_context": true}'),
  ('rollback_state', 'Roll back to a checkpoint', 'rollback', '{STATE_CORRUPTION,CONSISTENCY_ERROR}', false, true, 40,
   '{"checkpoint_strategy": "last_successful"}'),
  ('manual_intervention', 'Ask a person', 'manual', '{UNKNOWN,CRITICAL_ERROR}', false, true, 30,
   '{"escalation_path": "recovery_reviewer", "sla_hours": 24}'),
  ('skip_task', 'Skip the task', 'skip', '{NON_CRITICAL,OPTIONAL_TASK}', true, true, 20,
   '{"record_skip": true, "notify": true}')
on conflict (action_code) do nothing`;

/** Precedence and scopes of policies, and the recovery of failures with its queue. */
export class Migration20261123000300_resolvers_recovery extends CanonicalMigration {
  override up(): void {
    this.schema('m10_recovery');
    this.table(
      'public.policy_precedence',
      {
        id: 'serial not null',
        policy_id: 'varchar(64) not null',
        tenant_id: 'varchar(64) not null',
        precedence: 'integer not null default 100',
        conflict_strategy: "varchar(32) not null default 'most_restrictive'",
        bind_at: "varchar(32) not null default 'run_start'",
        failure_mode: "varchar(32) not null default 'fail_closed'",
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'policy_precedence_pkey (id)' },
    );
    this.uniqueIndex('public.policy_precedence', 'uq_policy_precedence_tenant_policy', '(tenant_id, policy_id)');
    // The original made a policy id unique across tenants, so that two of them could not configure the same one.
    this.dropIndex('public.ix_policy_precedence_policy_id');
    this.check(
      'public.policy_precedence',
      'ck_policy_precedence_strategy',
      "conflict_strategy in ('most_restrictive', 'explicit_priority', 'fail_closed')",
    );
    this.check(
      'public.policy_precedence',
      'ck_policy_precedence_bind_at',
      "bind_at in ('run_start', 'first_token', 'each_step')",
    );
    this.check(
      'public.policy_precedence',
      'ck_policy_precedence_failure_mode',
      "failure_mode in ('fail_closed', 'fail_open')",
    );
    this.index('public.policy_precedence', 'ix_policy_precedence_tenant_id', '(tenant_id)');
    this.table(
      'public.policy_scopes',
      {
        id: 'serial not null',
        scope_id: 'varchar(64) not null',
        policy_id: 'varchar(64) not null',
        tenant_id: 'varchar(64) not null',
        scope_type: "varchar(32) not null default 'all_runs'",
        agent_ids_json: 'text',
        api_key_ids_json: 'text',
        human_actor_ids_json: 'text',
        description: 'text',
        created_by: 'varchar(64)',
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'policy_scopes_pkey (id)' },
    );
    this.uniqueIndex('public.policy_scopes', 'ix_policy_scopes_scope_id', '(scope_id)');
    this.check(
      'public.policy_scopes',
      'ck_policy_scopes_scope_type',
      "scope_type in ('all_runs', 'agent', 'api_key', 'human_actor')",
    );
    this.index('public.policy_scopes', 'ix_policy_scopes_policy_id', '(policy_id)');
    this.index('public.policy_scopes', 'ix_policy_scopes_tenant_id', '(tenant_id, id)');
    this.index('public.policy_scopes', 'ix_policy_scopes_tenant_policy', '(tenant_id, policy_id, id)');
    this.table(
      'public.failure_matches',
      {
        id: 'uuid not null default gen_random_uuid()',
        run_id: 'text not null',
        tenant_id: 'text',
        error_code: 'text not null',
        error_message: 'text',
        catalog_entry_id: 'text',
        match_type: "text not null default 'unknown'",
        confidence_score: 'double precision not null default 0.0',
        category: 'text',
        severity: 'text',
        is_retryable: 'boolean default false',
        recovery_mode: 'text',
        recovery_suggestion: 'text',
        recovery_attempted: 'boolean default false',
        recovery_succeeded: 'boolean default false',
        skill_id: 'text',
        step_index: 'integer',
        context_json: "jsonb default '{}'",
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
        recovered_at: 'timestamptz',
        recovered_by: 'text',
        recovery_notes: 'text',
        semantic_owner: "varchar(100) default 'recovery_rule_engine'",
      },
      { primaryKey: 'failure_matches_pkey (id)' },
    );
    this.index('public.failure_matches', 'idx_fm_run_id', '(run_id)');
    this.index('public.failure_matches', 'idx_fm_tenant_id', '(tenant_id)');
    this.index('public.failure_matches', 'idx_fm_error_code', '(error_code)');
    this.index('public.failure_matches', 'idx_fm_catalog_entry_id', '(catalog_entry_id)');
    this.index('public.failure_matches', 'idx_fm_created_at', '(created_at desc)');
    this.index('public.failure_matches', 'idx_fm_category', '(category)');
    this.index('public.failure_matches', 'idx_fm_unmatched', '(created_at desc) where catalog_entry_id is null');
    this.index(
      'public.failure_matches',
      'idx_fm_retryable',
      '(created_at desc) where not recovery_attempted and is_retryable',
    );
    this.index(
      'public.failure_matches',
      'idx_fm_tenant_created_at',
      '(tenant_id, created_at desc) where tenant_id is not null',
    );
    this.index(
      'public.failure_matches',
      'idx_fm_recovery',
      '(recovery_mode, recovery_attempted, recovery_succeeded) where recovery_mode is not null',
    );
    this.index('public.failure_matches', 'idx_fm_error_code_created_at', '(error_code, created_at desc)');
    this.index(
      'public.failure_matches',
      'idx_fm_history',
      '(error_code, created_at desc, id desc) where recovery_suggestion is not null',
    );
    this.table(
      'public.failure_catalog',
      {
        id: 'text not null',
        error_code: 'text not null',
        error_pattern: 'text',
        recovery_action: 'text',
        success_rate: 'double precision',
        embedding: 'double precision[]',
        created_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'failure_catalog_pkey (id)' },
    );
    this.check('public.failure_catalog', 'failure_catalog_success_rate_check', 'success_rate between 0 and 1');
    this.index('public.failure_catalog', 'idx_fc_error_code', '(error_code)');
    this.table(
      'm10_recovery.suggestion_action',
      {
        id: 'serial not null',
        action_code: 'text not null',
        name: 'text not null',
        description: 'text',
        action_type: 'text not null',
        template: "jsonb not null default '{}'",
        applies_to_error_codes: "text[] default '{}'",
        applies_to_skills: "text[] default '{}'",
        preconditions: "jsonb default '{}'",
        success_rate: 'double precision default 0.0',
        total_applications: 'integer default 0',
        successful_applications: 'integer default 0',
        is_automated: 'boolean default false',
        requires_approval: 'boolean default true',
        priority: 'integer default 50',
        is_active: 'boolean default true',
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
        created_by: 'text',
        version: 'integer default 1',
      },
      { primaryKey: 'suggestion_action_pkey (id)' },
    );
    this.unique('m10_recovery.suggestion_action', 'suggestion_action_action_code_key', '(action_code)');
    this.check(
      'm10_recovery.suggestion_action',
      'suggestion_action_action_type_check',
      "action_type in ('retry', 'fallback', 'escalate', 'notify', 'reconfigure', 'rollback', 'manual', 'skip')",
    );
    this.check(
      'm10_recovery.suggestion_action',
      'suggestion_action_success_rate_check',
      'success_rate between 0 and 1',
    );
    this.check('m10_recovery.suggestion_action', 'suggestion_action_priority_check', 'priority between 0 and 100');
    this.index('m10_recovery.suggestion_action', 'idx_sa_action_type', '(action_type)');
    this.index('m10_recovery.suggestion_action', 'idx_sa_active', '(is_active) where is_active');
    this.index('m10_recovery.suggestion_action', 'idx_sa_priority', '(priority desc) where is_active');
    this.index(
      'm10_recovery.suggestion_action',
      'idx_sa_type_priority',
      '(action_type, priority desc) where is_active',
    );
    this.index('m10_recovery.suggestion_action', 'idx_sa_error_codes', 'using gin (applies_to_error_codes)');
    this.index('m10_recovery.suggestion_action', 'idx_sa_skills', 'using gin (applies_to_skills)');
    this.table(
      'public.recovery_candidates',
      {
        id: 'serial not null',
        failure_match_id: 'uuid not null',
        suggestion: 'text not null',
        matched_catalog_entry: 'jsonb',
        confidence: 'double precision not null',
        explain: "jsonb default '{}'",
        created_by: 'text',
        created_at: 'timestamptz not null default now()',
        approved_by_human: 'text',
        approved_at: 'timestamptz',
        decision: "text default 'pending'",
        review_note: 'text',
        occurrence_count: 'integer not null default 1',
        last_occurrence_at: 'timestamptz not null default now()',
        source: 'text',
        error_code: 'text',
        error_signature: 'text',
        updated_at: 'timestamptz not null default now()',
        selected_action_id: 'integer',
        rules_evaluated: "jsonb default '[]'",
        execution_status: 'text',
        executed_at: 'timestamptz',
        execution_result: 'jsonb',
        idempotency_key: 'uuid',
        source_pattern_id: 'varchar(64)',
        source_incident_id: 'varchar(64)',
        suggestion_type: 'varchar(32)',
        confidence_band: 'varchar(32)',
        requires_confirmation: 'integer default 0',
        confirmations_received: 'integer default 0',
      },
      { primaryKey: 'recovery_candidates_pkey (id)' },
    );
    this.unique('public.recovery_candidates', 'recovery_candidates_failure_match_id_key', '(failure_match_id)');
    this.unique('public.recovery_candidates', 'recovery_candidates_idempotency_key_key', '(idempotency_key)');
    // Nothing can violate it that keeps the constraint above; a platform that shares the database asks for it by name.
    this.uniqueIndex(
      'public.recovery_candidates',
      'uq_rc_fmid_sig',
      '(failure_match_id, error_signature) where error_signature is not null',
    );
    this.check('public.recovery_candidates', 'recovery_candidates_confidence_check', 'confidence between 0 and 1');
    this.check(
      'public.recovery_candidates',
      'recovery_candidates_decision_check',
      "decision in ('pending', 'approved', 'rejected')",
    );
    this.check(
      'public.recovery_candidates',
      'recovery_candidates_execution_status_check',
      "execution_status in ('pending', 'executing', 'succeeded', 'failed', 'rolled_back', 'skipped')",
    );
    this.foreignKey(
      'public.recovery_candidates',
      'recovery_candidates_selected_action_id_fkey',
      '(selected_action_id) references m10_recovery.suggestion_action (id)',
    );
    this.index('public.recovery_candidates', 'idx_rc_decision', '(decision)');
    this.index('public.recovery_candidates', 'idx_rc_last_occurrence_at', '(last_occurrence_at desc)');
    this.index('public.recovery_candidates', 'idx_rc_confidence', '(confidence desc)');
    this.index('public.recovery_candidates', 'idx_rc_created_at', '(created_at desc)');
    this.index('public.recovery_candidates', 'idx_rc_error_code', '(error_code)');
    this.index('public.recovery_candidates', 'idx_rc_decision_created_at', '(decision, created_at desc, id desc)');
    this.index('public.recovery_candidates', 'idx_rc_created_at_id', '(created_at desc, id desc)');
    this.index('public.recovery_candidates', 'idx_rc_pending', "(created_at desc) where decision = 'pending'");
    this.index(
      'public.recovery_candidates',
      'idx_rc_pending_confident',
      "(confidence desc, created_at desc) where decision = 'pending' and confidence >= 0.5",
    );
    this.index(
      'public.recovery_candidates',
      'idx_rc_execution_status',
      '(execution_status) where execution_status is not null',
    );
    this.index('public.recovery_candidates', 'idx_rc_executing', "(executed_at) where execution_status = 'executing'");
    this.table(
      'public.recovery_candidates_audit',
      {
        id: 'serial not null',
        candidate_id: 'integer not null',
        action: 'text not null',
        actor: 'text',
        old_decision: 'text',
        new_decision: 'text',
        note: 'text',
        created_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'recovery_candidates_audit_pkey (id)' },
    );
    this.foreignKey(
      'public.recovery_candidates_audit',
      'recovery_candidates_audit_candidate_id_fkey',
      '(candidate_id) references public.recovery_candidates (id) on delete cascade',
    );
    this.index('public.recovery_candidates_audit', 'idx_rca_candidate_id', '(candidate_id)');
    this.index('public.recovery_candidates_audit', 'idx_rca_created_at', '(created_at desc)');
    this.table(
      'm10_recovery.suggestion_provenance',
      {
        id: 'serial not null',
        suggestion_id: 'integer not null',
        event_type: 'text not null',
        details: "jsonb not null default '{}'",
        rule_id: 'text',
        action_id: 'integer',
        confidence_before: 'double precision',
        confidence_after: 'double precision',
        actor: "text not null default 'system'",
        actor_type: "text not null default 'system'",
        created_at: 'timestamptz not null default now()',
        duration_ms: 'integer',
      },
      { primaryKey: 'suggestion_provenance_pkey (id)' },
    );
    this.check(
      'm10_recovery.suggestion_provenance',
      'suggestion_provenance_event_type_check',
      "event_type in ('created', 'input_added', 'rule_evaluated', 'action_selected', 'confidence_updated', 'approved', 'rejected', 'executed', 'success', 'failure', 'rolled_back', 'manual_override')",
    );
    this.check(
      'm10_recovery.suggestion_provenance',
      'suggestion_provenance_actor_type_check',
      "actor_type in ('system', 'human', 'agent')",
    );
    this.foreignKey(
      'm10_recovery.suggestion_provenance',
      'fk_sp_suggestion',
      '(suggestion_id) references public.recovery_candidates (id) on delete cascade',
    );
    this.foreignKey(
      'm10_recovery.suggestion_provenance',
      'suggestion_provenance_action_id_fkey',
      '(action_id) references m10_recovery.suggestion_action (id)',
    );
    this.index('m10_recovery.suggestion_provenance', 'idx_sp_suggestion_id', '(suggestion_id)');
    this.index('m10_recovery.suggestion_provenance', 'idx_sp_event_type', '(event_type)');
    this.index('m10_recovery.suggestion_provenance', 'idx_sp_created_at', '(created_at desc)');
    this.index('m10_recovery.suggestion_provenance', 'idx_sp_actor', '(actor)');
    this.index('m10_recovery.suggestion_provenance', 'idx_sp_rule_id', '(rule_id) where rule_id is not null');
    this.index(
      'm10_recovery.suggestion_provenance',
      'idx_sp_suggestion_created_at',
      '(suggestion_id, created_at desc)',
    );
    this.index('m10_recovery.suggestion_provenance', 'idx_sp_event_created_at', '(event_type, created_at desc)');
    this.table(
      'm10_recovery.suggestion_input',
      {
        id: 'serial not null',
        suggestion_id: 'integer not null',
        input_type: 'text not null',
        raw_value: 'text not null',
        normalized_value: 'text',
        parsed_data: "jsonb default '{}'",
        confidence: 'double precision default 1.0',
        weight: 'double precision default 1.0',
        source: 'text',
        created_at: 'timestamptz not null default now()',
        recovery_candidate_id: 'integer',
      },
      { primaryKey: 'suggestion_input_pkey (id)' },
    );
    this.check(
      'm10_recovery.suggestion_input',
      'suggestion_input_input_type_check',
      "input_type in ('error_code', 'error_message', 'stack_trace', 'skill_context', 'tenant_context', 'historical_pattern')",
    );
    this.check('m10_recovery.suggestion_input', 'suggestion_input_confidence_check', 'confidence between 0 and 1');
    this.check('m10_recovery.suggestion_input', 'suggestion_input_weight_check', 'weight >= 0');
    this.foreignKey(
      'm10_recovery.suggestion_input',
      'suggestion_input_suggestion_id_fkey',
      '(suggestion_id) references public.recovery_candidates (id) on delete cascade',
    );
    this.index('m10_recovery.suggestion_input', 'idx_si_suggestion_id', '(suggestion_id)');
    this.table(
      'm10_recovery.work_queue',
      {
        id: 'serial not null',
        candidate_id: 'integer not null',
        idempotency_key: 'uuid',
        method: "text not null default 'db_fallback'",
        priority: 'integer default 0',
        queued_at: 'timestamptz not null default now()',
        claimed_at: 'timestamptz',
        claimed_by: 'text',
        processed_at: 'timestamptz',
        error_message: 'text',
        retry_count: 'integer default 0',
        created_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'work_queue_pkey (id)' },
    );
    this.uniqueIndex(
      'm10_recovery.work_queue',
      'uq_work_queue_candidate_pending',
      '(candidate_id) where processed_at is null',
    );
    this.index(
      'm10_recovery.work_queue',
      'idx_wq_claimable',
      '(priority desc, queued_at) where processed_at is null and claimed_at is null',
    );
    this.index(
      'm10_recovery.work_queue',
      'idx_wq_claimed',
      '(claimed_at) where processed_at is null and claimed_at is not null',
    );
    this.addSql(SET_UPDATED_AT);
    for (const table of ['failure_matches', 'recovery_candidates']) {
      this.trigger(`public.${table}`, `trg_${table}_updated_at`, 'before update', 'm10_recovery.set_updated_at()');
    }
    this.addSql(COUNT_ACTION_OUTCOME);
    this.trigger(
      'public.recovery_candidates',
      'trg_recovery_candidates_action_outcome',
      'after update of execution_status',
      'm10_recovery.count_action_outcome()',
      // An adopted database counts already; two counters would count twice.
      { replaces: 'suggestion_action' },
    );
    for (const definition of QUEUE_FUNCTIONS) this.addSql(definition);
    this.seed(SEED_ACTIONS);
  }
}
