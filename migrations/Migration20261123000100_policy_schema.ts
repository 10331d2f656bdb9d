import { CanonicalMigration } from './canonical.ts';

/** The `policy` schema: what engines evaluate against, and what they found. */
export class Migration20261123000100_policy_schema extends CanonicalMigration {
  override up(): void {
    this.schema('policy');
    this.table(
      'policy.evaluations',
      {
        id: 'uuid not null default gen_random_uuid()',
        policy_id: 'uuid',
        policy_name: 'varchar(128)',
        action_type: 'varchar(50) not null',
        agent_id: 'varchar(128)',
        tenant_id: 'varchar(128)',
        request_context: "jsonb not null default '{}'",
        decision: 'varchar(20) not null',
        decision_reason: 'text',
        modifications: 'jsonb',
        evaluation_ms: 'float8',
        policies_checked: 'int4 not null default 0',
        rules_matched: 'varchar[]',
        evaluated_at: 'timestamptz not null default now()',
        policy_version: 'varchar(50)',
        policy_hash: 'varchar(64)',
        temporal_policies_checked: 'int4 default 0',
        dependencies_checked: 'int4 default 0',
        conflicts_detected: 'int4 default 0',
      },
      { primaryKey: 'evaluations_pkey (id)' },
    );
    this.index('policy.evaluations', 'ix_evaluations_agent_id', '(agent_id)');
    this.index('policy.evaluations', 'ix_evaluations_tenant_id', '(tenant_id)');
    this.index('policy.evaluations', 'ix_evaluations_decision', '(decision)');
    this.index('policy.evaluations', 'ix_evaluations_action_type', '(action_type)');
    this.index('policy.evaluations', 'ix_evaluations_evaluated_at', '(evaluated_at)');
    this.index('policy.evaluations', 'ix_evaluations_evaluated_at_id', '(evaluated_at desc, id desc)');
    this.index('policy.evaluations', 'ix_evaluations_tenant_evaluated_at', '(tenant_id, evaluated_at desc, id desc)');
    this.table(
      'policy.violations',
      {
        id: 'uuid not null default gen_random_uuid()',
        evaluation_id: 'uuid',
        policy_id: 'uuid',
        policy_name: 'varchar(128)',
        violation_type: 'varchar(50) not null',
        severity: 'float8 not null default 0.5',
        description: 'text not null',
        evidence: "jsonb not null default '{}'",
        agent_id: 'varchar(128)',
        tenant_id: 'varchar(128)',
        action_attempted: 'varchar(100)',
        request_context: 'jsonb',
        routed_to_governor: 'bool not null default false',
        governor_action: 'varchar(50)',
        governor_action_at: 'timestamptz',
        resolved: 'bool not null default false',
        resolved_by: 'varchar(128)',
        resolved_at: 'timestamptz',
        resolution_notes: 'text',
        acknowledged_at: 'timestamptz',
        acknowledged_by: 'varchar(128)',
        acknowledgement_notes: 'text',
        detected_at: 'timestamptz not null default now()',
        severity_class: 'varchar(50)',
        recoverability: 'varchar(50)',
        action_chain_depth: 'int4 default 0',
        is_temporal_violation: 'bool default false',
        temporal_window_seconds: 'int4',
        temporal_metric_value: 'float8',
        recommended_action: 'varchar(50)',
        violation_kind: "varchar(16) not null default 'STANDARD'",
      },
      { primaryKey: 'violations_pkey (id)' },
    );
    this.check(
      'policy.violations',
      'ck_violations_violation_kind',
      "violation_kind in ('STANDARD', 'ANOMALY', 'DIVERGENCE')",
    );
    this.index('policy.violations', 'ix_violations_agent_id', '(agent_id)');
    this.index('policy.violations', 'ix_violations_tenant_id', '(tenant_id)');
    this.index('policy.violations', 'ix_violations_violation_type', '(violation_type)');
    this.index('policy.violations', 'ix_violations_severity', '(severity)');
    this.index('policy.violations', 'ix_violations_resolved', '(resolved)');
    this.index('policy.violations', 'ix_violations_detected_at', '(detected_at)');
    this.index('policy.violations', 'ix_policy_violations_violation_kind', '(violation_kind)');
    this.index('policy.violations', 'ix_violations_detected_at_id', '(detected_at desc, id desc)');
    this.index('policy.violations', 'ix_violations_tenant_detected_at', '(tenant_id, detected_at desc, id desc)');
    this.index('policy.violations', 'ix_violations_agent_detected_at', '(agent_id, detected_at desc, id desc)');
    this.index('policy.violations', 'ix_violations_type_detected_at', '(violation_type, detected_at desc, id desc)');
    this.table(
      'policy.risk_ceilings',
      {
        id: 'uuid not null default gen_random_uuid()',
        name: 'varchar(128) not null',
        description: 'text',
        metric: 'varchar(100) not null',
        max_value: 'float8 not null',
        current_value: 'float8 not null default 0',
        window_seconds: 'int4 not null default 3600',
        applies_to: 'varchar[]',
        tenant_id: 'varchar(128)',
        breach_action: "varchar(50) not null default 'block'",
        breach_count: 'int4 not null default 0',
        last_breach_at: 'timestamptz',
        is_active: 'bool not null default true',
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'risk_ceilings_pkey (id)' },
    );
    this.unique('policy.risk_ceilings', 'risk_ceilings_name_key', '(name)');
    this.index('policy.risk_ceilings', 'ix_risk_ceilings_metric', '(metric)');
    this.index('policy.risk_ceilings', 'ix_risk_ceilings_tenant_id', '(tenant_id)');
    this.index('policy.risk_ceilings', 'ix_risk_ceilings_active', '(id) where is_active');
    this.table(
      'policy.safety_rules',
      {
        id: 'uuid not null default gen_random_uuid()',
        name: 'varchar(128) not null',
        description: 'text',
        rule_type: 'varchar(50) not null',
        condition: 'jsonb not null',
        action: 'varchar(50) not null',
        cooldown_seconds: 'int4',
        applies_to: 'varchar[]',
        tenant_id: 'varchar(128)',
        priority: 'int4 not null default 100',
        is_active: 'bool not null default true',
        triggered_count: 'int4 not null default 0',
        last_triggered_at: 'timestamptz',
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'safety_rules_pkey (id)' },
    );
    this.unique('policy.safety_rules', 'safety_rules_name_key', '(name)');
    this.index('policy.safety_rules', 'ix_safety_rules_rule_type', '(rule_type)');
    this.index('policy.safety_rules', 'ix_safety_rules_tenant_id', '(tenant_id)');
    this.index('policy.safety_rules', 'ix_safety_rules_priority', '(priority)');
    this.index('policy.safety_rules', 'ix_safety_rules_active', '(id) where is_active');
    this.table(
      'policy.business_rules',
      {
        id: 'uuid not null default gen_random_uuid()',
        name: 'varchar(128) not null',
        description: 'text',
        rule_type: 'varchar(50) not null',
        condition: 'jsonb not null',
        constraint: 'jsonb not null',
        tenant_id: 'varchar(128)',
        customer_tier: 'varchar(50)',
        priority: 'int4 not null default 100',
        is_active: 'bool not null default true',
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'business_rules_pkey (id)' },
    );
    this.unique('policy.business_rules', 'business_rules_name_key', '(name)');
    this.index('policy.business_rules', 'ix_business_rules_rule_type', '(rule_type)');
    this.index('policy.business_rules', 'ix_business_rules_tenant_id', '(tenant_id)');
    this.index('policy.business_rules', 'ix_business_rules_customer_tier', '(customer_tier)');
    this.index('policy.business_rules', 'ix_business_rules_active', '(id) where is_active');
    this.table(
      'policy.ethical_constraints',
      {
        id: 'uuid not null default gen_random_uuid()',
        name: 'varchar(128) not null',
        description: 'text not null',
        constraint_type: 'varchar(50) not null',
        forbidden_patterns: 'varchar[]',
        required_disclosures: 'varchar[]',
        transparency_threshold: 'float8',
        enforcement_level: "varchar(20) not null default 'strict'",
        violation_action: "varchar(50) not null default 'block'",
        is_active: 'bool not null default true',
        violated_count: 'int4 not null default 0',
        last_violated_at: 'timestamptz',
        created_at: 'timestamptz not null default now()',
        applies_to: 'varchar[]',
        tenant_id: 'varchar(128)',
      },
      { primaryKey: 'ethical_constraints_pkey (id)' },
    );
    this.unique('policy.ethical_constraints', 'ethical_constraints_name_key', '(name)');
    this.index('policy.ethical_constraints', 'ix_ethical_constraints_type', '(constraint_type)');
    this.index('policy.ethical_constraints', 'ix_ethical_constraints_active', '(id) where is_active');
    this.table(
      'policy.policy_versions',
      {
        id: 'uuid not null default gen_random_uuid()',
        version: 'varchar(50) not null',
        policy_hash: 'varchar(64) not null',
        signature: 'varchar(512)',
        created_by: 'varchar(128) not null',
        created_at: 'timestamptz not null default now()',
        description: 'text',
        policies_snapshot: "jsonb not null default '{}'",
        risk_ceilings_snapshot: "jsonb not null default '{}'",
        safety_rules_snapshot: "jsonb not null default '{}'",
        ethical_constraints_snapshot: "jsonb not null default '{}'",
        business_rules_snapshot: "jsonb not null default '{}'",
        temporal_policies_snapshot: "jsonb not null default '{}'",
        parent_version: 'varchar(50)',
        is_active: 'bool not null default false',
        rolled_back_at: 'timestamptz',
        rolled_back_by: 'varchar(128)',
      },
      { primaryKey: 'policy_versions_pkey (id)' },
    );
    this.index('policy.policy_versions', 'ix_policy_versions_version', '(version)');
    this.index('policy.policy_versions', 'ix_policy_versions_active', '(is_active)');
    this.index('policy.policy_versions', 'ix_policy_versions_created_at', '(created_at)');
    this.index('policy.policy_versions', 'ix_policy_versions_created_at_id', '(created_at desc, id desc)');
    this.table(
      'policy.policy_provenance',
      {
        id: 'uuid not null default gen_random_uuid()',
        policy_id: 'uuid not null',
        policy_type: 'varchar(50) not null',
        action: 'varchar(50) not null',
        changed_by: 'varchar(128) not null',
        changed_at: 'timestamptz not null default now()',
        previous_value: 'jsonb',
        new_value: 'jsonb',
        policy_version: 'varchar(50) not null',
        reason: 'text',
      },
      { primaryKey: 'policy_provenance_pkey (id)' },
    );
    this.index('policy.policy_provenance', 'ix_provenance_policy_id', '(policy_id)');
    this.index('policy.policy_provenance', 'ix_provenance_changed_at', '(changed_at)');
    this.index('policy.policy_provenance', 'ix_provenance_action', '(action)');
    this.index('policy.policy_provenance', 'ix_provenance_changed_at_id', '(changed_at desc, id desc)');
    this.index(
      'policy.policy_provenance',
      'ix_provenance_version_changed_at',
      '(policy_version, changed_at desc, id desc)',
    );
    this.table(
      'policy.policy_dependencies',
      {
        id: 'uuid not null default gen_random_uuid()',
        source_policy: 'varchar(128) not null',
        target_policy: 'varchar(128) not null',
        dependency_type: 'varchar(50) not null',
        resolution_strategy: "varchar(50) not null default 'source_wins'",
        priority: 'int4 not null default 100',
        description: 'text',
        is_active: 'bool not null default true',
        created_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'policy_dependencies_pkey (id)' },
    );
    this.index('policy.policy_dependencies', 'ix_dependencies_source', '(source_policy)');
    this.index('policy.policy_dependencies', 'ix_dependencies_target', '(target_policy)');
    this.index('policy.policy_dependencies', 'ix_dependencies_type', '(dependency_type)');
    this.table(
      'policy.policy_conflicts',
      {
        id: 'uuid not null default gen_random_uuid()',
        policy_a: 'varchar(128) not null',
        policy_b: 'varchar(128) not null',
        conflict_type: 'varchar(50) not null',
        severity: 'float8 not null default 0.5',
        description: 'text not null',
        affected_action_types: 'varchar[]',
        resolved: 'bool not null default false',
        resolution: 'text',
        resolved_by: 'varchar(128)',
        resolved_at: 'timestamptz',
        detected_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'policy_conflicts_pkey (id)' },
    );
    this.index('policy.policy_conflicts', 'ix_conflicts_resolved', '(resolved)');
    this.index('policy.policy_conflicts', 'ix_conflicts_severity', '(severity)');
    this.index('policy.policy_conflicts', 'ix_conflicts_unresolved', '(id) where not resolved');
    this.table(
      'policy.temporal_policies',
      {
        id: 'uuid not null default gen_random_uuid()',
        name: 'varchar(128) not null',
        description: 'text',
        temporal_type: 'varchar(50) not null',
        metric: 'varchar(100) not null',
        max_value: 'float8 not null',
        window_seconds: 'int4 not null',
        applies_to: 'varchar[]',
        tenant_id: 'varchar(128)',
        agent_id: 'varchar(128)',
        breach_action: "varchar(50) not null default 'block'",
        cooldown_on_breach: 'int4 not null default 0',
        is_active: 'bool not null default true',
        breach_count: 'int4 not null default 0',
        last_breach_at: 'timestamptz',
        created_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'temporal_policies_pkey (id)' },
    );
    this.unique('policy.temporal_policies', 'temporal_policies_name_key', '(name)');
    this.index('policy.temporal_policies', 'ix_temporal_metric', '(metric)');
    this.index('policy.temporal_policies', 'ix_temporal_type', '(temporal_type)');
    this.index('policy.temporal_policies', 'ix_temporal_agent', '(agent_id)');
    this.index('policy.temporal_policies', 'ix_temporal_active', '(id) where is_active');
    this.table(
      'policy.temporal_metric_windows',
      {
        id: 'uuid not null default gen_random_uuid()',
        policy_id: 'uuid not null',
        agent_id: 'varchar(128)',
        tenant_id: 'varchar(128)',
        window_key: 'text not null',
        current_sum: 'float8 not null default 0',
        current_count: 'int4 not null default 0',
        current_max: 'float8 not null default 0',
        window_start: 'timestamptz not null',
        window_end: 'timestamptz not null',
        updated_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'temporal_metric_windows_pkey (id)' },
    );
    // The key also holds tenant and agent, so it outgrows the original's 255 characters.
    this.uniqueIndex('policy.temporal_metric_windows', 'ix_metric_windows_key', '(window_key)');
    this.index('policy.temporal_metric_windows', 'ix_metric_windows_policy', '(policy_id)');
    this.index('policy.temporal_metric_windows', 'ix_metric_windows_policy_start', '(policy_id, window_start)');
    this.table(
      'policy.temporal_metric_events',
      {
        id: 'uuid not null default gen_random_uuid()',
        policy_id: 'uuid not null',
        agent_id: 'varchar(128)',
        tenant_id: 'varchar(128)',
        metric: 'varchar(100) not null',
        value: 'float8 not null',
        occurred_at: 'timestamptz not null default now()',
        action_type: 'varchar(50)',
        request_id: 'varchar(128)',
      },
      { primaryKey: 'temporal_metric_events_pkey (id)' },
    );
    this.index('policy.temporal_metric_events', 'ix_metric_events_policy', '(policy_id)');
    this.index('policy.temporal_metric_events', 'ix_metric_events_occurred', '(occurred_at)');
    this.index('policy.temporal_metric_events', 'ix_metric_events_agent', '(agent_id)');
    this.index(
      'policy.temporal_metric_events',
      'ix_metric_events_policy_occurred',
      '(policy_id, occurred_at desc, id desc)',
    );
    this.table(
      'policy.policies',
      {
        id: 'uuid not null default gen_random_uuid()',
        name: 'varchar(128) not null',
        category: 'varchar(50) not null',
        description: 'text',
        rules: "jsonb not null default '{}'",
        constraints: "jsonb not null default '{}'",
        version: 'int4 not null default 1',
        is_active: 'bool not null default true',
        supersedes_id: 'uuid',
        applies_to: 'varchar[]',
        tenant_id: 'varchar(128)',
        priority: 'int4 not null default 100',
        signature: 'varchar(256)',
        signed_at: 'timestamptz',
        signed_by: 'varchar(128)',
        created_at: 'timestamptz not null default now()',
        updated_at: 'timestamptz not null default now()',
        effective_from: 'timestamptz',
        effective_until: 'timestamptz',
      },
      { primaryKey: 'policies_pkey (id)' },
    );
    this.unique('policy.policies', 'policies_name_key', '(name)');
    this.index('policy.policies', 'ix_policies_category', '(category)');
    this.index('policy.policies', 'ix_policies_tenant_id', '(tenant_id)');
    this.index('policy.policies', 'ix_policies_active', '(is_active)');
    this.index('policy.policies', 'ix_policies_priority', '(priority)');
    this.table(
      'policy.snapshots',
      {
        // No column of the original tells the rows of one snapshot_id apart; this one also says which came later.
        id: 'serial not null',
        snapshot_id: 'text not null',
        tenant_id: 'text',
        policies: 'jsonb',
        thresholds: 'jsonb',
        policy_count: 'int4',
        integrity_hash: 'text',
        created_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'snapshots_pkey (id)' },
    );
    this.index('policy.snapshots', 'ix_snapshots_snapshot_id', '(snapshot_id, created_at desc, id desc)');
    // Rows that took a default with apostrophes inside it mean the word between them.
    for (const [table, column, word] of [
      ['policy.risk_ceilings', 'breach_action', 'block'],
      ['policy.ethical_constraints', 'enforcement_level', 'strict'],
      ['policy.ethical_constraints', 'violation_action', 'block'],
      ['policy.policy_dependencies', 'resolution_strategy', 'source_wins'],
      ['policy.temporal_policies', 'breach_action', 'block'],
    ]) {
      this.addSql(`update ${table} set ${column} = '${word}' where ${column} = '''${word}'''`);
    }
    this.seed(`insert into policy.ethical_constraints (name, description, constraint_type, forbidden_patterns, enforcement_level, violation_action) values
      ('no_coercion', 'Agents must not coerce anybody', 'no_coercion', '{threaten,force,blackmail,manipulate_emotion}', 'strict', 'block'),
      ('no_fabrication', 'Data and evidence must not be made up', 'no_fabrication', '{fake_data,false_citation,invented_source}', 'strict', 'block'),
      ('no_manipulation', 'Outcomes must not be gamed', 'no_manipulation', '{game_metrics,exploit_loophole,circumvent_control}', 'strict', 'block'),
      ('transparency', 'Decisions must be explainable', 'transparency', null, 'strict', 'block')
      on conflict (name) do nothing`);
    this.seed(`insert into policy.risk_ceilings (name, description, metric, max_value, window_seconds, breach_action) values
      ('hourly_cost_ceiling', 'Total spend per hour', 'cost_per_hour', 100, 3600, 'throttle'),
      ('retry_rate_ceiling', 'Retries per agent and minute', 'retries_per_minute', 30, 60, 'block'),
      ('cascade_depth_ceiling', 'Depth of agent cascades', 'cascade_depth', 5, 0, 'block'),
      ('concurrent_agents_ceiling', 'Agents at work at once per tenant', 'concurrent_agents', 50, 0, 'throttle')
      on conflict (name) do nothing`);
    this.seed(`insert into policy.safety_rules (name, description, rule_type, condition, action, priority) values
      ('block_system_commands', 'Refuse destructive system commands', 'action_block', '{"actions": ["rm -rf", "shutdown", "format", "drop database"]}', 'block', 1),
      ('escalate_high_cost', 'Expensive work needs a person', 'escalation_required', '{"cost_threshold": 50.0}', 'escalate', 10),
      ('cooldown_on_failure_spike', 'Pause after a burst of failures', 'cooldown', '{"failure_count": 5, "window_seconds": 60}', 'cooldown', 20),
      ('block_external_pii', 'Keep personal data inside', 'pattern_block', '{"patterns": ["ssn", "credit_card", "password"]}', 'block', 1)
      on conflict (name) do nothing`);
    this.seed(`insert into policy.temporal_policies (name, description, temporal_type, metric, max_value, window_seconds, breach_action) values
      ('retry_total_per_24h', 'Retries per agent and day', 'cumulative_daily', 'retries', 300, 86400, 'block'),
      ('adaptations_per_agent_per_day', 'Changes of strategy per agent and day', 'cumulative_daily', 'adaptations', 10, 86400, 'throttle'),
      ('escalations_per_hour', 'Escalations to people per hour', 'sliding_window', 'escalations', 20, 3600, 'throttle'),
      ('cost_burst_5min', 'Sudden spending', 'burst_limit', 'cost', 10, 300, 'block'),
      ('external_calls_per_minute', 'Calls to outside services per minute', 'sliding_window', 'external_calls', 60, 60, 'throttle')
      on conflict (name) do nothing`);
    this.seed(`insert into policy.policy_dependencies (source_policy, target_policy, dependency_type, resolution_strategy, description)
      select * from (values
        ('ethical.no_manipulation', 'business.personalization', 'conflicts_with', 'source_wins', 'Ethics come before aggressive personalisation'),
        ('risk.cascade_depth', 'routing.parallelization', 'modifies', 'source_wins', 'The depth limit shapes parallel routing'),
        ('safety.block_system_commands', 'business.automation', 'overrides', 'source_wins', 'Safety comes before automation'),
        ('compliance.gdpr', 'business.data_sharing', 'conflicts_with', 'source_wins', 'Data protection comes before sharing'),
        ('ethical.transparency', 'risk.cost_optimization', 'modifies', 'merge', 'Explaining may cost more')
      ) as edge (source_policy, target_policy, dependency_type, resolution_strategy, description)
      where not exists (
        select from policy.policy_dependencies d
         where (d.source_policy, d.target_policy, d.dependency_type) = (edge.source_policy, edge.target_policy, edge.dependency_type)
      )`);
    this.seed(`insert into policy.policy_versions (version, policy_hash, created_by, is_active, description)
      select '1.0.0', 'initial', 'system', true, 'First version of the policy set'
      where not exists (select from policy.policy_versions)`);
  }
}
