import { CanonicalMigration } from './canonical.ts';

/**
 * Indexes of lists that had none for their condition or their order, and an end to those that another one covers: each
 * violation and each evaluation is one insert into all the indexes of its table.
 */
export class Migration20261123000500_list_indexes extends CanonicalMigration {
  override up(): void {
    this.index('policy.evaluations', 'ix_evaluations_agent_evaluated_at', '(agent_id, evaluated_at desc, id desc)');
    this.index('policy.evaluations', 'ix_evaluations_action_evaluated_at', '(action_type, evaluated_at desc, id desc)');
    this.index('policy.policy_dependencies', 'ix_dependencies_active', '(id) where is_active');
    this.index(
      'policy.policy_conflicts',
      'ix_conflicts_resolved_pair',
      '(policy_a collate "C", policy_b collate "C") where resolved',
    );
    for (const covered of [
      'ix_evaluations_agent_id',
      'ix_evaluations_tenant_id',
      'ix_evaluations_action_type',
      'ix_evaluations_evaluated_at',
      'ix_violations_agent_id',
      'ix_violations_tenant_id',
      'ix_violations_violation_type',
      'ix_violations_detected_at',
    ]) {
      this.dropIndex(`policy.${covered}`);
    }
  }
}
