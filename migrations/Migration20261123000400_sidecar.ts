import { CanonicalMigration } from './canonical.ts';

/** What the sidecar itself keeps: answers to requests with an id, and the key that seals transaction ids. */
export class Migration20261123000400_sidecar extends CanonicalMigration {
  override up(): void {
    this.schema('policy_sidecar');
    this.table(
      'policy_sidecar.requests',
      {
        caller: 'text not null',
        request_id: 'uuid not null',
        method: 'text not null',
        request_hash: 'bytea not null',
        response: 'bytea not null',
        transaction_xid: 'xid8 not null',
        created_at: 'timestamptz not null default now()',
      },
      { primaryKey: 'requests_pkey (caller, request_id)' },
    );
    this.index('policy_sidecar.requests', 'ix_requests_created_at', '(created_at)');
    this.table(
      'policy_sidecar.secrets',
      { name: 'text not null', value: 'bytea not null' },
      { primaryKey: 'secrets_pkey (name)' },
    );
    this.seed(`insert into policy_sidecar.secrets (name, value)
      values ('transaction_id_key', uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
      on conflict do nothing`);
  }
}
