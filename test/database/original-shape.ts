/**
 * Turns a migrated database back into the shape that existed before the sidecar: columns, types, defaults, keys, checks,
 * triggers, views and repeated indexes of the original, under names that the migrations cannot know.
 */
export const ORIGINAL_SHAPE = `
drop schema policy_sidecar cascade;

alter table policy.risk_ceilings alter breach_action set default '''block''';
alter table policy.ethical_constraints alter enforcement_level set default '''strict''',
  alter violation_action set default '''block''', drop column applies_to, drop column tenant_id;
alter table policy.policy_dependencies alter resolution_strategy set default '''source_wins''';
alter table policy.temporal_policies alter breach_action set default '''block''';
alter table policy.temporal_metric_windows alter window_key type varchar(255);
alter table policy.violations drop column violation_kind;
alter table policy.evaluations drop column policy_hash, drop column conflicts_detected;
drop table policy.snapshots;
drop index policy.ix_violations_detected_at_id;
drop index policy.ix_provenance_version_changed_at;

create table policy_rules_legacy (id varchar(64) primary key);
create table runs (id varchar primary key);
create table incidents (id varchar primary key);
alter table policy_rules alter enforcement_mode drop default, alter scope drop default, alter conditions type json,
  alter tenant_id type varchar, alter rule_type type varchar(16),
  drop column actions, drop column priority, drop column is_active, drop column source_type, drop column source_pattern_id,
  drop column source_recovery_id, drop column source_incident_id, drop column generation_confidence, drop column mode,
  drop column confirmations_required, drop column confirmations_received, drop column regret_count,
  drop column shadow_evaluations, drop column shadow_would_block, drop column activated_at, drop column prevention_count,
  drop column last_prevention_at, drop column is_synthetic, drop column synthetic_scenario_id,
  add check (rule_type in ('SYSTEM', 'SAFETY', 'ETHICAL', 'TEMPORAL')),
  add foreign key (legacy_rule_id) references policy_rules_legacy on delete set null;
alter table policy_rules rename constraint ck_policy_rules_scope to policy_rules_scope_check;
alter index ix_policy_rules_tenant_status rename to idx_policy_rules_tenant_status;
alter table policy_enforcements alter details type json, alter tenant_id type varchar,
  add foreign key (run_id) references runs on delete set null,
  add foreign key (incident_id) references incidents on delete set null;
alter table limits alter scope drop default, alter tenant_id type varchar;
alter table tenants alter id type varchar(36), drop column budget_limit_cents, drop column budget_period;
create index ix_tenants_slug on tenants (slug);
alter table policy_rules add constraint any_name_1 foreign key (tenant_id) references tenants on delete cascade;
alter table policy_enforcements add constraint any_name_2 foreign key (tenant_id) references tenants on delete cascade;
alter table limits add constraint any_name_3 foreign key (tenant_id) references tenants on delete cascade;

alter table policy_proposals alter triggering_feedback_ids drop default, alter status drop default,
  alter created_at type timestamp using created_at at time zone 'UTC', alter reviewed_at type timestamp,
  alter effective_from type timestamp, alter synthetic_scenario_id type varchar;
create index ix_policy_proposals_proposal_type on policy_proposals (proposal_type);
alter table policy_versions alter created_at type timestamp using created_at at time zone 'UTC';
alter table pattern_feedback alter severity drop default, alter provenance drop default, alter occurrence_count drop default,
  alter acknowledged drop default, alter detected_at type timestamp, alter created_at type timestamp,
  alter acknowledged_at type timestamp;
alter table proxy_calls alter tenant_id type varchar(100), alter input_tokens drop not null, alter input_tokens drop default,
  alter output_tokens drop not null, alter output_tokens drop default, alter cost_cents drop not null,
  alter cost_cents drop default, alter was_blocked drop not null, alter was_blocked drop default,
  alter replay_eligible drop not null, alter replay_eligible drop default, alter created_at drop not null;
alter table default_guardrails alter is_enabled drop not null, alter is_enabled drop default, alter is_default drop not null,
  alter is_default drop default, alter priority drop not null, alter priority drop default, alter version drop not null,
  alter version drop default, alter created_at drop not null;
drop index ix_default_guardrails_priority;

drop index uq_policy_precedence_tenant_policy;
create unique index ix_policy_precedence_policy_id on policy_precedence (policy_id);
alter table policy_precedence drop constraint ck_policy_precedence_failure_mode;
drop index ix_policy_scopes_tenant_id, ix_policy_scopes_tenant_policy;
create index ix_policy_scopes_tenant_id on policy_scopes (tenant_id);
alter table failure_matches alter is_retryable drop not null, alter recovery_attempted drop not null,
  alter recovery_succeeded drop not null, drop column semantic_owner;
create index idx_fm_recent_misses on failure_matches (created_at desc) where catalog_entry_id is null;
drop table failure_catalog;
drop trigger trg_recovery_candidates_action_outcome on recovery_candidates;
drop function m10_recovery.count_action_outcome();
alter table recovery_candidates alter confidence type real, alter decision drop not null;
create unique index uq_rc_fmid_sig on recovery_candidates (failure_match_id, error_signature) where error_signature is not null;
create index idx_rc_confidence_desc on recovery_candidates (confidence desc nulls last);
alter table m10_recovery.suggestion_action alter success_rate type real;
create index idx_sa_action_code on m10_recovery.suggestion_action (action_code);
alter table m10_recovery.suggestion_provenance alter confidence_before type real, alter confidence_after type real;
alter table m10_recovery.suggestion_input alter confidence type real, alter weight type real;
alter table m10_recovery.work_queue alter priority drop not null, alter retry_count drop not null;

create view recovery_candidates_with_context with (security_barrier = true) as
  select c.id, c.confidence, f.error_message from recovery_candidates c left join failure_matches f on f.id = c.failure_match_id;
comment on view recovery_candidates_with_context is 'candidates and what failed';
grant select on recovery_candidates_with_context to pg_monitor;
create view m10_recovery.suggestions_full_context as select id, confidence * 100 as percent from recovery_candidates_with_context;
create materialized view m10_recovery.mv_top_pending as
  select id as candidate_id, confidence, occurrence_count from recovery_candidates where decision = 'pending';
create unique index mv_top_pending_key on m10_recovery.mv_top_pending (candidate_id);
`;

/** Triggers of the original. They come after the rows, as they would have refused or changed some of them. */
export const ORIGINAL_TRIGGERS = `
create function refuse_without_integrity() returns trigger language plpgsql as $$ begin
  raise exception 'no integrity row';
end $$;
create trigger trg_policy_rule_integrity_required after insert or update of status on policy_rules
  for each row execute function refuse_without_integrity();
create trigger trg_enforce_limit_integrity after insert or update of status on limits
  for each row execute function refuse_without_integrity();
create function m10_recovery.record_outcome() returns trigger language plpgsql as $$ begin
  if new.execution_status is distinct from old.execution_status and new.execution_status in ('succeeded', 'failed') then
    update m10_recovery.suggestion_action set total_applications = total_applications + 1 where id = new.selected_action_id;
  end if;
  return new;
end $$;
create trigger any_name after update of execution_status on recovery_candidates
  for each row execute function m10_recovery.record_outcome();
`;

/** Rows as the original left them: what its defaults, its missing constraints and its types allowed. */
export const ORIGINAL_ROWS = `
update policy.risk_ceilings set max_value = 77 where name = 'hourly_cost_ceiling';
insert into policy.risk_ceilings (name, metric, max_value) values ('third party', 'cost_per_hour', 1);
insert into policy.ethical_constraints (name, description, constraint_type) values ('third party', '-', 'transparency');
insert into policy.temporal_policies (name, temporal_type, metric, max_value, window_seconds) values ('third party', 'burst_limit', 'cost', 1, 1);
insert into policy.policy_dependencies (source_policy, target_policy, dependency_type) values ('a', 'b', 'requires');
insert into policy.policies (name, category, created_at) values ('p', 'risk', '2024-02-29 23:59:59.999999+00');
insert into policy.business_rules (name, rule_type, condition, "constraint") values ('b', 'pricing', '{}', '{"x": 1.50}');
insert into policy.evaluations (action_type, decision, evaluated_at) values ('route', 'allow', '2024-01-01 00:00:00.000001+00');
insert into policy.violations (violation_type, description, severity) values ('ethical_violation', 'v', 0.1);
insert into policy.policy_provenance (policy_id, policy_type, action, changed_by, policy_version) values (gen_random_uuid(), 'policy', 'create', 'x', '1.0.0');
insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description) values ('a', 'b', 'cascade_loop', 'c');
insert into policy.temporal_metric_windows (policy_id, window_key, window_start, window_end) values (gen_random_uuid(), 'key', now(), now());
insert into policy.temporal_metric_events (policy_id, metric, value) values (gen_random_uuid(), 'cost', 0.1);

insert into tenants (id, name, slug, created_at) values ('t', 'T', 't', '2024-06-01 12:00:00.123456+00');
insert into runs values ('r');
insert into policy_rules_legacy values ('l');
insert into policy_rules (id, tenant_id, name, enforcement_mode, scope, conditions, legacy_rule_id, created_at)
  values ('rule', 't', 'n', 'BLOCK', 'TENANT', '{"b": 1.10, "a": [null]}', 'l', '2024-06-01 12:00:00.654321+00');
insert into policy_rule_integrity (id, rule_id, integrity_status, integrity_score, hash_root) values ('i', 'rule', 'VERIFIED', 9.999, 'h');
insert into policy_enforcements (id, tenant_id, rule_id, run_id, action_taken, details) values ('e', 't', 'rule', 'r', 'WARNED', '{"k": 1}');
insert into limits (id, tenant_id, name, limit_category, limit_type, scope, max_value) values ('l', 't', 'n', 'RATE', 'RUNS', 'TENANT', 1.2345);
insert into limit_integrity (id, limit_id, integrity_status, integrity_score) values ('i', 'l', 'VERIFIED', 1);
insert into policy_proposals (id, tenant_id, proposal_name, proposal_type, rationale, proposed_rule, triggering_feedback_ids, status, created_at, reviewed_at, effective_from)
  values ('00000000-0000-4000-8000-000000000001', 't', 'n', 'cost_cap', 'r', 'null', '[]', 'draft',
    '2024-03-10 02:30:00.123456', '2024-11-03 01:30:00.000001', '2024-12-31 23:59:59.999999');
insert into policy_versions (proposal_id, version, rule_snapshot, created_at) values ('00000000-0000-4000-8000-000000000001', 1, '{}', '2024-03-10 02:30:00.111111');
insert into pattern_feedback (tenant_id, pattern_type, severity, description, provenance, occurrence_count, acknowledged, detected_at, created_at, acknowledged_at)
  values ('t', 'p', 'info', 'd', '[]', 1, false, '2024-03-10 02:30:00.222222', '2024-03-10 02:30:00.333333', '2024-03-10 02:30:00.444444');
insert into proxy_calls (id, tenant_id, endpoint, model, request_hash, request_json, created_at) values ('c', 't', 'e', 'm', 'h', '{}', null);
insert into default_guardrails (id, name, category, rule_type, rule_config_json, action) values ('g', 'n', 'c', 'r', '{}', 'block');
insert into policy_precedence (policy_id, tenant_id) values ('p', 't');
insert into policy_scopes (scope_id, policy_id, tenant_id) values ('s', 'p', 't');
insert into failure_matches (id, run_id, error_code, is_retryable, updated_at) values ('00000000-0000-4000-8000-000000000002', 'r', 'TIMEOUT', null, '2024-01-01 00:00:00.000001+00');
insert into recovery_candidates (id, failure_match_id, suggestion, confidence, decision, selected_action_id, updated_at)
  values (1, '00000000-0000-4000-8000-000000000002', 's', 0.8123457, null, 1, '2024-01-01 00:00:00.000001+00');
update m10_recovery.suggestion_action set success_rate = 0.4, total_applications = 5, successful_applications = 2 where id = 1;
insert into recovery_candidates_audit (candidate_id, action) values (1, 'a');
insert into m10_recovery.suggestion_provenance (suggestion_id, event_type, confidence_before) values (1, 'created', 0.1);
insert into m10_recovery.suggestion_input (suggestion_id, input_type, raw_value, confidence) values (1, 'error_code', 'x', 0.3);
insert into m10_recovery.work_queue (candidate_id, priority) values (1, null);
refresh materialized view m10_recovery.mv_top_pending;
`;
