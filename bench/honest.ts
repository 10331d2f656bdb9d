/** Before anything is measured: every server gives the answer the sidecar gives, byte for byte as long. */
import { type DescMessage, fromBinary, type Message, toBinary, toJson } from '@bufbuild/protobuf';
import {
  FetchViolationByIdResponseSchema,
  FetchViolationsResponseSchema,
  InsertProvenanceResponseSchema,
} from '../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { list, point, write } from './calls.ts';
import { type Call, Channel } from './channel.ts';
import type { Database } from './database.ts';
import type { Served } from './server.ts';

/** Keys in order: of a map no two servers, nor two answers of one, keep the same one. */
const sorted = (_: string, value: unknown): unknown =>
  value && typeof value === 'object' && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value;

const answer = async (served: Served, call: Call, schema: DescMessage) => {
  const channel = await Channel.open(served.address);
  const bytes = await channel.unary(call);
  channel.close();
  const message = fromBinary(schema, bytes, { readUnknownFields: false });
  // The token that a list goes on with is the sidecar's alone: no peer makes one.
  const { nextPageToken } = message as Message & { nextPageToken?: string };
  delete (message as { nextPageToken?: string }).nextPageToken;
  const beside = nextPageToken === undefined ? 0 : bytes.length - toBinary(schema, message).length;
  return { bytes: bytes.length - beside, message, text: JSON.stringify(toJson(schema, message), sorted) };
};

/** What a server's write left in the database, without what is new in every row. */
const written = async (served: Served, { client }: Database): Promise<string> => {
  const { bytes, message } = await answer(served, write, InsertProvenanceResponseSchema);
  const { provenanceId, rowsAffected } = message as unknown as { provenanceId: string; rowsAffected: bigint };
  const { rows } = await client.query(
    `select to_jsonb(p) - 'id' - 'changed_at' as row from policy.policy_provenance p where id = $1`,
    [provenanceId],
  );
  return `${bytes} bytes, ${rowsAffected} rows, ${JSON.stringify(rows, sorted)}`;
};

/** Throws where a peer's answer differs from that of `ours`. */
export const checkHonesty = async (
  ours: Served,
  peers: readonly Served[],
  database: Database,
  id: string,
): Promise<void> => {
  const reads = [
    ['point read', point(id), FetchViolationByIdResponseSchema],
    ['list', list, FetchViolationsResponseSchema],
  ] as const;
  for (const [what, call, schema] of reads) {
    const expected = await answer(ours, call, schema);
    for (const peer of peers) {
      const found = await answer(peer, call, schema);
      if (found.text !== expected.text || found.bytes !== expected.bytes) {
        throw new Error(
          `the ${what} of ${peer.name} differs: ${found.text.slice(0, 500)}, and not ${expected.text.slice(0, 500)}`,
        );
      }
    }
  }
  const expected = await written(ours, database);
  for (const peer of peers) {
    const found = await written(peer, database);
    if (found !== expected) throw new Error(`the write of ${peer.name} differs: ${found}, and not ${expected}`);
  }
};
