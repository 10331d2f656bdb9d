/**
 * The scenarios of the contract over grpc-js and by grpcurl. The command `contract` puts them to a sidecar over connect-node, as
 * gRPC and as Connect; the clients for Go, Java and Python have runners of their own.
 */
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Channel } from '../../src/scenarios/channel.ts';
import { runScenario } from '../../src/scenarios/runner.ts';
import { shipped } from '../../src/scenarios/shipped.ts';
import { grpcJsChannel, grpcurlChannel } from '../support/scenario-channels.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { succeeds } from '../support/toolchain.ts';

let sidecar: TestSidecar;
beforeAll(async () => {
  sidecar = await startTestSidecar();
});
afterAll(() => sidecar.stop());

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

/** A grpcurl of the path, or where `go install` puts it. */
const grpcurl = async (): Promise<string | undefined> => {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), join(homedir(), 'go', 'bin')];
  for (const program of folders.map((folder) => join(folder, 'grpcurl'))) {
    if (await succeeds(program, '-version')) return program;
  }
  return undefined;
};

test('the scenarios hold by grpcurl', async ({ skip }) => {
  const program = await grpcurl();
  if (program === undefined) {
    console.log('skipped: the scenarios by grpcurl, for there is none');
    return skip();
  }
  const channel = grpcurlChannel(program, sidecar.server.grpcAddress);
  expect(await run(channel)).toEqual({ passed: shipped().length, others: [] });
});
