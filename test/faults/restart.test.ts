import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type Embedded, startEmbedded } from '../../src/embedded/embedded.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { copyDataFolder } from '../support/program.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useFolder } from '../support/use.ts';
import { violation } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const folder = useFolder();
let postgres: Embedded;
beforeAll(async () => {
  await copyDataFolder(folder);
  postgres = await startEmbedded({ dataDir: folder });
});
afterAll(async () => {
  await postgres?.stop();
});

test('PostgreSQL restarts: nothing acknowledged is lost, nothing half-done is there, and the sidecar goes on', async () => {
  const sidecar = await startTestSidecar({}, postgres.url);
  const insert = (transaction: string) => sidecar.grpc.unary(rpc.insertViolation, violation(), { transaction });
  const begin = async () => (await sidecar.grpc.unary(tx.begin, {})).transaction!.id!;
  const outcome = async (value: string) =>
    (await sidecar.grpc.unary(tx.getOutcome, { subject: { case: 'transactionId', value } })).outcome;
  const [kept, lost] = [await begin(), await begin()];
  await insert(kept);
  await insert(lost);
  await sidecar.grpc.unary(tx.commit, { transactionId: kept });
  const { port } = new URL(postgres.url);
  await postgres.stop();
  expect(await refusal(insert('single-use'))).toMatchObject({ code: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
  expect(await refusal(insert(lost))).toMatchObject({ reason: 'TRANSACTION_LOST' });
  postgres = await startEmbedded({ dataDir: folder, settings: { port } });
  await vi.waitFor(async () => expect(await outcome(kept)).toBe(Outcome.COMMITTED));
  expect(await outcome(lost)).toBe(Outcome.ABORTED);
  await insert('single-use');
  const again = await begin();
  await insert(again);
  await sidecar.grpc.unary(tx.commit, { transactionId: again });
  const { violations } = await sidecar.grpc.unary(rpc.fetchViolations, {});
  expect(violations).toHaveLength(3);
  await sidecar.stop();
});
