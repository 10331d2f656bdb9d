import { CanonicalMigration } from './canonical.ts';

/** Rules, limits, proposals, and the tenant tables that the policy drivers read. */
export class Migration20261123000200_rules_limits_proposals extends CanonicalMigration {
  override up(): void {
    this.dropTrigger('public.policy_rules', 'trg_policy_rule_integrity_required');
    this.dropChecks('public.policy_rules', 'rule_type');
    this.table(
      'public.policy_rules',
      {
        id: 'varchar not null',
        tenant_id: 'varchar(255) not null',
        name: 'varchar(256) not null',
        description: 'text',
        enforcement_mode: "varchar(16) not null default 'WARN'",
        scope: "varchar(16) not null default 'TENANT'",
        scope_id: 'varchar',
        conditions: 'jsonb',
        status: "varchar(16) not null default 'ACTIVE'",
        created_by: 'varchar',
        source: "varchar(16) not null default 'MANUAL'",
        source_proposal_id: 'varchar',
        parent_rule_id: 'varchar',
        legacy_rule_id: 'varchar',
        retired_at: 'timestamptz',
        retired_by: 'varchar',
        retirement_reason: 'text',
        superseded_by: 'varchar',
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
        rule_type: "varchar(50) not null default 'SYSTEM'",
        actions: "jsonb default '{}'",
        priority: 'integer default 100',
        is_active: 'boolean',
        source_type: 'varchar(32)',
        source_pattern_id: 'varchar(64)',
        source_recovery_id: 'varchar(64)',
        source_incident_id: 'varchar(64)',
        generation_confidence: 'double precision',
        mode: 'varchar(32)',
        confirmations_required: 'integer default 0',
        confirmations_received: 'integer default 0',
        regret_count: 'integer default 0',
        shadow_evaluations: 'integer default 0',
        shadow_would_block: 'integer default 0',
        activated_at: 'timestamptz',
        prevention_count: 'integer default 0',
        last_prevention_at: 'timestamptz',
        is_synthetic: 'boolean default false',
        synthetic_scenario_id: 'varchar(64)',
      },
      { primaryKey: 'policy_rules_pkey (id)' },
    );
    this.check(
      'public.policy_rules',
      'ck_policy_rules_enforcement_mode',
      "enforcement_mode in ('BLOCK', 'WARN', 'AUDIT', 'DISABLED')",
    );
    this.check('public.policy_rules', 'ck_policy_rules_scope', "scope in ('GLOBAL', 'TENANT', 'PROJECT', 'AGENT')");
    this.check('public.policy_rules', 'ck_policy_rules_status', "status in ('ACTIVE', 'RETIRED')");
    this.check('public.policy_rules', 'ck_policy_rules_source', "source in ('MANUAL', 'SYSTEM', 'LEARNED')");
    this.foreignKey(
      'public.policy_rules',
      'fk_policy_rules_parent',
      '(parent_rule_id) references public.policy_rules (id) on delete set null',
    );
    this.foreignKey(
      'public.policy_rules',
      'fk_policy_rules_superseded_by',
      '(superseded_by) references public.policy_rules (id) on delete set null',
    );
    this.index('public.policy_rules', 'ix_policy_rules_tenant_status', '(tenant_id, status)');
    this.index('public.policy_rules', 'ix_policy_rules_tenant_scope', '(tenant_id, scope)');
    this.index('public.policy_rules', 'ix_policy_rules_enforcement_mode', '(enforcement_mode)');
    this.index('public.policy_rules', 'ix_policy_rules_created_at', '(created_at)');
    this.index('public.policy_rules', 'ix_policy_rules_source', '(source)');
    this.index('public.policy_rules', 'ix_policy_rules_rule_type', '(rule_type)');
    this.index(
      'public.policy_rules',
      'ix_policy_rules_tenant_created_at',
      '(tenant_id, created_at desc, id collate "C" desc)',
    );
    this.index(
      'public.policy_rules',
      'ix_policy_rules_tenant_status_created_at',
      '(tenant_id, status, created_at desc, id collate "C" desc)',
    );
    this.index('public.policy_rules', 'ix_policy_rules_parent', '(parent_rule_id) where parent_rule_id is not null');
    this.index(
      'public.policy_rules',
      'ix_policy_rules_superseded_by',
      '(superseded_by) where superseded_by is not null',
    );
    this.table(
      'public.policy_rule_integrity',
      {
        id: 'varchar not null',
        rule_id: 'varchar not null',
        integrity_status: 'varchar(16) not null',
        integrity_score: 'numeric(4,3) not null',
        hash_root: 'text not null',
        details: 'jsonb',
        computed_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'policy_rule_integrity_pkey (id)' },
    );
    this.unique('public.policy_rule_integrity', 'policy_rule_integrity_rule_id_key', '(rule_id)');
    this.check(
      'public.policy_rule_integrity',
      'ck_policy_rule_integrity_status',
      "integrity_status in ('VERIFIED', 'DEGRADED', 'FAILED')",
    );
    this.foreignKey(
      'public.policy_rule_integrity',
      'policy_rule_integrity_rule_id_fkey',
      '(rule_id) references public.policy_rules (id) on delete cascade',
    );
    this.index('public.policy_rule_integrity', 'ix_policy_rule_integrity_status', '(integrity_status)');
    this.index('public.policy_rule_integrity', 'ix_policy_rule_integrity_computed_at', '(computed_at)');
    this.table(
      'public.policy_enforcements',
      {
        id: 'varchar not null',
        tenant_id: 'varchar(255) not null',
        rule_id: 'varchar not null',
        run_id: 'varchar',
        incident_id: 'varchar',
        action_taken: 'varchar(16) not null',
        details: 'jsonb',
        triggered_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'policy_enforcements_pkey (id)' },
    );
    this.check(
      'public.policy_enforcements',
      'ck_policy_enforcements_action_taken',
      "action_taken in ('BLOCKED', 'WARNED', 'AUDITED')",
    );
    this.foreignKey(
      'public.policy_enforcements',
      'policy_enforcements_rule_id_fkey',
      '(rule_id) references public.policy_rules (id) on delete cascade',
    );
    this.index('public.policy_enforcements', 'ix_policy_enforcements_rule_id', '(rule_id)');
    this.index('public.policy_enforcements', 'ix_policy_enforcements_rule_triggered_at', '(rule_id, triggered_at)');
    this.index('public.policy_enforcements', 'ix_policy_enforcements_run_id', '(run_id)');
    this.index('public.policy_enforcements', 'ix_policy_enforcements_tenant_triggered_at', '(tenant_id, triggered_at)');
    this.dropTrigger('public.limits', 'trg_enforce_limit_integrity');
    this.table(
      'public.limits',
      {
        id: 'varchar not null',
        tenant_id: 'varchar(255) not null',
        name: 'varchar(256) not null',
        description: 'text',
        limit_category: 'varchar(16) not null',
        limit_type: 'varchar(32) not null',
        scope: "varchar(16) not null default 'TENANT'",
        scope_id: 'varchar',
        max_value: 'numeric(18,4) not null',
        reset_period: 'varchar(16)',
        next_reset_at: 'timestamptz',
        window_seconds: 'integer',
        measurement_window_seconds: 'integer',
        enforcement: "varchar(16) not null default 'BLOCK'",
        consequence: 'varchar(16)',
        status: "varchar(16) not null default 'ACTIVE'",
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
        params: "jsonb not null default '{}'",
      },
      { primaryKey: 'limits_pkey (id)' },
    );
    this.check('public.limits', 'ck_limits_category', "limit_category in ('BUDGET', 'RATE', 'THRESHOLD')");
    this.check('public.limits', 'ck_limits_scope', "scope in ('GLOBAL', 'TENANT', 'PROJECT', 'AGENT', 'PROVIDER')");
    this.check('public.limits', 'ck_limits_reset_period', "reset_period in ('DAILY', 'WEEKLY', 'MONTHLY', 'NONE')");
    this.check(
      'public.limits',
      'ck_limits_enforcement',
      "enforcement in ('BLOCK', 'WARN', 'REJECT', 'QUEUE', 'DEGRADE', 'ALERT')",
    );
    this.check('public.limits', 'ck_limits_consequence', "consequence in ('ALERT', 'INCIDENT', 'ABORT')");
    this.check('public.limits', 'ck_limits_status', "status in ('ACTIVE', 'DISABLED')");
    this.index('public.limits', 'ix_limits_tenant_category', '(tenant_id, limit_category)');
    this.index('public.limits', 'ix_limits_tenant_scope', '(tenant_id, scope)');
    this.index('public.limits', 'ix_limits_tenant_status', '(tenant_id, status)');
    this.index('public.limits', 'ix_limits_category', '(limit_category)');
    this.index('public.limits', 'ix_limits_scope', '(scope)');
    this.index(
      'public.limits',
      'ix_limits_threshold_active',
      "(tenant_id, limit_category) where limit_category = 'THRESHOLD' and status = 'ACTIVE'",
    );
    this.index(
      'public.limits',
      'ix_limits_active_scope',
      "(tenant_id, scope, scope_id, limit_category) where status = 'ACTIVE'",
    );
    this.index(
      'public.limits',
      'ix_limits_tenant_status_type',
      '(tenant_id, status, limit_type collate "C", scope collate "C", id collate "C")',
    );
    this.index('public.limits', 'ix_limits_tenant_type', '(tenant_id, limit_type collate "C", id collate "C")');
    this.table(
      'public.limit_integrity',
      {
        id: 'varchar not null',
        limit_id: 'varchar not null',
        integrity_status: 'varchar(16) not null',
        integrity_score: 'numeric(5,4) not null',
        computed_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'limit_integrity_pkey (id)' },
    );
    this.unique('public.limit_integrity', 'limit_integrity_limit_id_key', '(limit_id)');
    this.check(
      'public.limit_integrity',
      'ck_limit_integrity_status',
      "integrity_status in ('VERIFIED', 'DEGRADED', 'FAILED')",
    );
    this.check('public.limit_integrity', 'ck_limit_integrity_score', 'integrity_score between 0 and 1');
    this.foreignKey(
      'public.limit_integrity',
      'limit_integrity_limit_id_fkey',
      '(limit_id) references public.limits (id) on delete cascade',
    );
    this.index('public.limit_integrity', 'ix_limit_integrity_status', '(integrity_status)');
    this.index('public.limit_integrity', 'ix_limit_integrity_computed_at', '(computed_at)');
    this.table(
      'public.policy_proposals',
      {
        id: 'uuid not null default gen_random_uuid()',
        tenant_id: 'varchar(255) not null',
        proposal_name: 'varchar(255) not null',
        proposal_type: 'varchar(50) not null',
        rationale: 'text not null',
        proposed_rule: 'jsonb not null',
        triggering_feedback_ids: "jsonb not null default '[]'",
        status: "varchar(20) not null default 'draft'",
        created_at: 'timestamptz not null default now()',
        reviewed_at: 'timestamptz',
        reviewed_by: 'varchar(255)',
        review_notes: 'text',
        effective_from: 'timestamptz',
        is_synthetic: 'boolean not null default false',
        synthetic_scenario_id: 'varchar(64)',
      },
      { primaryKey: 'policy_proposals_pkey (id)' },
    );
    this.index('public.policy_proposals', 'ix_policy_proposals_tenant', '(tenant_id)');
    this.index('public.policy_proposals', 'ix_policy_proposals_type', '(proposal_type)');
    this.index('public.policy_proposals', 'ix_policy_proposals_tenant_status', '(tenant_id, status)');
    this.index('public.policy_proposals', 'ix_policy_proposals_draft', "(tenant_id, status) where status = 'draft'");
    this.index('public.policy_proposals', 'ix_policy_proposals_created_at', '(created_at)');
    this.index('public.policy_proposals', 'ix_policy_proposals_synthetic', '(is_synthetic, synthetic_scenario_id)');
    this.index('public.policy_proposals', 'ix_policy_proposals_created_at_id', '(created_at desc, id desc)');
    this.index(
      'public.policy_proposals',
      'ix_policy_proposals_tenant_created_at',
      '(tenant_id, created_at desc, id desc)',
    );
    this.index(
      'public.policy_proposals',
      'ix_policy_proposals_status_created_at',
      '(status, created_at desc, id desc)',
    );
    this.index(
      'public.policy_proposals',
      'ix_policy_proposals_tenant_status_created_at',
      '(tenant_id, status, created_at desc, id desc)',
    );
    this.table(
      'public.policy_versions',
      {
        id: 'uuid not null default gen_random_uuid()',
        proposal_id: 'uuid not null',
        version: 'integer not null',
        rule_snapshot: 'jsonb not null',
        created_at: 'timestamptz not null default now()',
        created_by: 'varchar(255)',
        change_reason: 'text',
        is_current: 'boolean not null default false',
      },
      { primaryKey: 'policy_versions_pkey (id)' },
    );
    this.foreignKey(
      'public.policy_versions',
      'policy_versions_proposal_id_fkey',
      '(proposal_id) references public.policy_proposals (id)',
    );
    this.uniqueIndex('public.policy_versions', 'uq_policy_versions_current', '(proposal_id) where is_current');
    this.index('public.policy_versions', 'ix_policy_versions_proposal_version', '(proposal_id, version)');
    this.index('public.policy_versions', 'ix_policy_versions_current', '(is_current) where is_current');
    this.table(
      'public.pattern_feedback',
      {
        id: 'uuid not null default gen_random_uuid()',
        tenant_id: 'varchar(255) not null',
        pattern_type: 'varchar(50) not null',
        severity: "varchar(20) not null default 'info'",
        description: 'text not null',
        signature: 'varchar(255)',
        provenance: "jsonb not null default '[]'",
        occurrence_count: 'integer not null default 1',
        time_window_minutes: 'integer',
        threshold_used: 'varchar(100)',
        metadata: 'jsonb',
        detected_at: 'timestamptz not null default now()',
        created_at: 'timestamptz not null default now()',
        acknowledged: 'boolean not null default false',
        acknowledged_at: 'timestamptz',
        acknowledged_by: 'varchar(255)',
      },
      { primaryKey: 'pattern_feedback_pkey (id)' },
    );
    this.index('public.pattern_feedback', 'ix_pattern_feedback_tenant', '(tenant_id)');
    this.index('public.pattern_feedback', 'ix_pattern_feedback_type', '(pattern_type)');
    this.index('public.pattern_feedback', 'ix_pattern_feedback_signature', '(signature)');
    this.index('public.pattern_feedback', 'ix_pattern_feedback_tenant_type', '(tenant_id, pattern_type)');
    this.index('public.pattern_feedback', 'ix_pattern_feedback_detected_at', '(detected_at)');
    this.index(
      'public.pattern_feedback',
      'ix_pattern_feedback_unacknowledged',
      '(tenant_id, acknowledged) where not acknowledged',
    );
    this.index('public.pattern_feedback', 'ix_pattern_feedback_open', '(id) where not acknowledged');
    this.index('public.pattern_feedback', 'ix_pattern_feedback_open_type', '(pattern_type, id) where not acknowledged');
    this.table(
      'public.tenants',
      {
        id: 'varchar(255) not null',
        name: 'varchar(255) not null',
        slug: 'varchar(100) not null',
        clerk_org_id: 'varchar(100)',
        plan: "varchar(50) not null default 'free'",
        billing_email: 'varchar(255)',
        stripe_customer_id: 'varchar(100)',
        max_workers: 'integer not null default 3',
        max_runs_per_day: 'integer not null default 100',
        max_concurrent_runs: 'integer not null default 5',
        max_tokens_per_month: 'bigint not null default 1000000',
        max_api_keys: 'integer not null default 5',
        runs_today: 'integer not null default 0',
        runs_this_month: 'integer not null default 0',
        tokens_this_month: 'bigint not null default 0',
        last_run_reset_at: 'timestamptz',
        status: "varchar(50) not null default 'active'",
        suspended_reason: 'text',
        created_at: 'timestamptz default now()',
        updated_at: 'timestamptz default now()',
        frozen_at: 'timestamptz',
        frozen_by: 'varchar(100)',
        freeze_reason: 'text',
        is_synthetic: 'boolean not null default false',
        synthetic_scenario_id: 'text',
        onboarding_state: 'integer not null default 0',
        budget_limit_cents: 'integer not null default 10000',
        budget_period: "varchar(16) not null default 'daily'",
      },
      { primaryKey: 'tenants_pkey (id)' },
    );
    this.unique('public.tenants', 'tenants_slug_key', '(slug)');
    this.unique('public.tenants', 'tenants_clerk_org_id_key', '(clerk_org_id)');
    this.index('public.tenants', 'ix_tenants_plan', '(plan)');
    this.index('public.tenants', 'ix_tenants_onboarding_state', '(onboarding_state)');
    this.index('public.tenants', 'ix_tenants_synthetic', '(is_synthetic, synthetic_scenario_id) where is_synthetic');
    this.table(
      'public.proxy_calls',
      {
        id: 'varchar(100) not null',
        tenant_id: 'varchar(255) not null',
        api_key_id: 'varchar(100)',
        user_id: 'varchar(255)',
        endpoint: 'varchar(100) not null',
        model: 'varchar(100) not null',
        request_hash: 'varchar(64) not null',
        request_json: 'text not null',
        response_hash: 'varchar(64)',
        response_json: 'text',
        status_code: 'integer',
        error_code: 'varchar(50)',
        input_tokens: 'integer default 0',
        output_tokens: 'integer default 0',
        cost_cents: 'numeric(10,4) default 0',
        policy_decisions_json: 'text',
        was_blocked: 'boolean default false',
        block_reason: 'varchar(100)',
        latency_ms: 'integer',
        upstream_latency_ms: 'integer',
        replay_eligible: 'boolean default true',
        replayed_from_id: 'varchar(100)',
        created_at: 'timestamptz default now()',
      },
      { primaryKey: 'proxy_calls_pkey (id)' },
    );
    this.index('public.proxy_calls', 'ix_proxy_calls_tenant', '(tenant_id)');
    this.index('public.proxy_calls', 'ix_proxy_calls_api_key', '(api_key_id)');
    this.index('public.proxy_calls', 'ix_proxy_calls_user', '(user_id)');
    this.index('public.proxy_calls', 'ix_proxy_calls_request_hash', '(request_hash)');
    this.index('public.proxy_calls', 'ix_proxy_calls_created_at', '(created_at)');
    this.index('public.proxy_calls', 'ix_proxy_calls_tenant_created_at', '(tenant_id, created_at)');
    this.index('public.proxy_calls', 'ix_proxy_calls_replay', '(tenant_id, request_hash, replay_eligible)');
    this.index('public.proxy_calls', 'ix_proxy_calls_tenant_user', '(tenant_id, user_id)');
    this.table(
      'public.default_guardrails',
      {
        id: 'varchar(100) not null',
        name: 'varchar(100) not null',
        description: 'text',
        category: 'varchar(50) not null',
        rule_type: 'varchar(50) not null',
        rule_config_json: 'text not null',
        action: 'varchar(50) not null',
        is_enabled: 'boolean default true',
        is_default: 'boolean default true',
        priority: 'integer default 100',
        version: "varchar(20) default 'v1'",
        created_at: 'timestamptz default now()',
      },
      { primaryKey: 'default_guardrails_pkey (id)' },
    );
    this.unique('public.default_guardrails', 'default_guardrails_name_key', '(name)');
    this.index('public.default_guardrails', 'ix_default_guardrails_priority', '(priority, id)');
    this.seed(`insert into public.default_guardrails (id, name, description, category, rule_type, rule_config_json, action, priority) values
      ('dg-001', 'max_cost_per_request', 'Bounds what one request may cost', 'cost', 'max_value', '{"metric": "cost_cents", "max": 100}', 'block', 10),
      ('dg-002', 'max_tokens_per_request', 'Bounds the tokens of one request', 'cost', 'max_value', '{"metric": "max_tokens", "max": 16000}', 'block', 20),
      ('dg-003', 'rate_limit_rpm', 'Bounds requests per minute', 'rate', 'rate_limit', '{"requests": 100, "window_seconds": 60}', 'throttle', 30),
      ('dg-004', 'failure_spike_freeze', 'Freezes when failures spike', 'safety', 'threshold', '{"metric": "error_rate", "operator": ">", "threshold": 0.5, "window_seconds": 60, "min_samples": 10}', 'freeze', 5),
      ('dg-005', 'prompt_injection_block', 'Stops well-known prompt injections', 'content', 'pattern_block', '{"patterns": ["ignore previous instructions", "disregard all prior", "you are now", "system prompt:", "jailbreak"]}', 'block', 1)
      on conflict do nothing`);
  }
}
