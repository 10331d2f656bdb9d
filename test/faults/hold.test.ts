import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { watchLag } from '../support/lag.ts';
import { startTestSidecar } from '../support/sidecar.ts';

const HOLDER = join(import.meta.dirname, '../support/hold-client.ts');

test('kill -9 of the client that holds a transaction rolls it back at once', async () => {
  const sidecar = await startTestSidecar();
  const holder = spawn(process.execPath, [HOLDER, sidecar.server.grpcAddress], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: holder.stdout });
  const [id] = (await once(lines, 'line')) as [string];
  const { riskCeilings } = await sidecar.grpc.unary(PolicyEngineService.method.fetchRiskCeilings, {});
  const ceilingId = riskCeilings[0]!.id;
  await sidecar.sql('update policy.risk_ceilings set current_value = 7');
  await sidecar.grpc.unary(PolicyEngineService.method.resetRiskCeiling, { ceilingId }, { transaction: id });
  const lagMs = watchLag();
  const killed = performance.now();
  holder.kill('SIGKILL');
  await vi.waitFor(
    async () => expect((await sidecar.grpc.unary(TransactionService.method.list, {})).transactions).toEqual([]),
    { interval: 2 },
  );
  const took = performance.now() - killed;
  console.log(`hold: rolled back ${took.toFixed(1)} ms after the client was killed`);
  // Some 20 ms on an idle machine; this one may be running other tests.
  expect(took).toBeLessThan(1_000 + 2 * lagMs());
  const commit = sidecar.grpc.unary(TransactionService.method.commit, { transactionId: id });
  expect(await refusal(commit)).toMatchObject({ reason: 'TRANSACTION_ROLLED_BACK' });
  const [row] = await sidecar.sql('select current_value from policy.risk_ceilings where id = $1', [ceilingId]);
  expect(row).toEqual({ current_value: 7 });
  await sidecar.stop();
});
