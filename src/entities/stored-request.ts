import { bytea, defineTable, text, timestamptz, uuid, xid8 } from './columns.ts';

/** The answer to a request with an id, kept so that a repeat gets it again. */
export const StoredRequest = defineTable(
  'policy_sidecar.requests',
  {
    caller: text().primary(),
    request_id: uuid().primary(),
    method: text(),
    request_hash: bytea(),
    response: bytea(),
    transaction_xid: xid8(),
    created_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: { of: 'sidecar', rights: ['select', 'insert'] },
    changes: ['insert', 'delete'],
    indexes: { ix_requests_created_at: ['created_at'] },
  },
);
