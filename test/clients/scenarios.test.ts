/**
 * The scenarios of the contract over grpc-js and by grpcurl. The command `contract` puts them to a sidecar over connect-node, as
 * gRPC and as Connect; the clients for Go, Java and Python have runners of their own.
 */
import { expect, test } from 'vitest';
import type { Channel } from '../../src/scenarios/channel.ts';
import { runScenario } from '../../src/scenarios/runner.ts';
import { shipped } from '../../src/scenarios/shipped.ts';
import { buildJudges } from '../conformance/judges.ts';
import { grpcJsChannel, grpcurlChannel } from '../support/scenario-channels.ts';
import { useSidecar } from '../support/use.ts';

const sidecar = useSidecar();

/** How many passed, and those that did not, with the reason. */
const run = async (channel: Channel) => {
  const others: string[] = [];
  for (const scenario of shipped()) {
    const { outcome, why } = await runScenario(channel, scenario, { allowWrites: true });
    if (outcome !== 'passed') others.push(`${scenario.name} ${outcome}: ${why}`);
  }
  channel.close();
  return { passed: shipped().length - others.length, others };
};

test('the scenarios hold over grpc-js', async () => {
  expect(await run(grpcJsChannel(sidecar.server.grpcAddress))).toEqual({ passed: shipped().length, others: [] });
});

test('the scenarios hold by grpcurl', { timeout: 600_000 }, async ({ skip }) => {
  const judges = await buildJudges('grpcurl');
  try {
    if (judges.missing) {
      console.log(`skipped: the scenarios by grpcurl, for ${judges.missing}`);
      return skip();
    }
    const channel = grpcurlChannel(judges.path('grpcurl'), sidecar.server.grpcAddress);
    expect(await run(channel)).toEqual({ passed: shipped().length, others: [] });
  } finally {
    await judges.remove();
  }
});
