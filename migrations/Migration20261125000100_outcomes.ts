import { CanonicalMigration } from './canonical.ts';

/** Evidence of commits, in the place of PostgreSQL's transaction numbers, which a crash or a failover hands out again. */
export class Migration20261125000100_outcomes extends CanonicalMigration {
  override up(): void {
    this.table(
      'policy_sidecar.outcomes',
      { id: 'uuid not null', committed_at: 'timestamptz not null default clock_timestamp()' },
      { primaryKey: 'outcomes_pkey (id)' },
    );
    this.index('policy_sidecar.outcomes', 'ix_outcomes_committed_at', '(committed_at)');
    this.table(
      'policy_sidecar.pruned_until',
      { name: 'text not null', until: 'timestamptz not null' },
      { primaryKey: 'pruned_until_pkey (name)' },
    );
  }
}
