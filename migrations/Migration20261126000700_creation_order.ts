import { CanonicalMigration } from './canonical.ts';

/** Indexes of lists that follow the order in which rows were made, and an end to those of their former order. */
export class Migration20261126000700_creation_order extends CanonicalMigration {
  override up(): void {
    for (const [table, name, former] of [
      ['policy.ethical_constraints', 'ix_ethical_constraints_active_created_at', 'ix_ethical_constraints_active'],
      ['policy.risk_ceilings', 'ix_risk_ceilings_active_created_at', 'ix_risk_ceilings_active'],
      ['policy.safety_rules', 'ix_safety_rules_active_created_at', 'ix_safety_rules_active'],
      ['policy.business_rules', 'ix_business_rules_active_created_at', 'ix_business_rules_active'],
      ['policy.temporal_policies', 'ix_temporal_active_created_at', 'ix_temporal_active'],
      ['policy.policy_dependencies', 'ix_dependencies_active_created_at', 'ix_dependencies_active'],
    ] as const) {
      this.index(table, name, '(created_at, id) where is_active');
      this.dropIndex(`policy.${former}`);
    }
    this.index('policy.policy_conflicts', 'ix_conflicts_detected_at', '(detected_at, id)');
    this.index(
      'policy.policy_conflicts',
      'ix_conflicts_unresolved_detected_at',
      '(detected_at, id) where not resolved',
    );
    this.dropIndex('policy.ix_conflicts_unresolved');
    this.index(
      'public.pattern_feedback',
      'ix_pattern_feedback_open_created_at',
      '(created_at, id) where not acknowledged',
    );
    this.index(
      'public.pattern_feedback',
      'ix_pattern_feedback_open_type_created_at',
      '(pattern_type, created_at, id) where not acknowledged',
    );
    this.dropIndex('public.ix_pattern_feedback_open');
    this.dropIndex('public.ix_pattern_feedback_open_type');
  }
}
