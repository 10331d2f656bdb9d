/** Texts that were made to keep the process busy, on every way to a reader of them: time grows with their length, no faster. */
import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { IntegrityStatus, PolicyRulesService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { RecoveryMatcherService } from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { RecoveryWriteService } from '../../src/gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { ScopeResolverService, ScopeType } from '../../src/gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import { CallError } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';
import { violation } from '../support/violation.ts';
import { pathOf } from '../support/wire.ts';

const sidecar = useSidecar();

const single = { transaction: 'single-use' };
const text = (value: string) => create(ValueSchema, { kind: { case: 'stringValue', value } });
const digits = (zeros: number): string => `0.1${'0'.repeat(zeros)}1`;

/** Whether it is taken or refused is not asked here. */
const told = async (call: Promise<unknown>): Promise<void> => {
  await call.catch((error: unknown) => {
    if (!(error instanceof CallError)) throw error;
    expect(error.code).not.toBe('INTERNAL');
  });
};

const ways: Readonly<Record<string, (length: number) => Promise<void>>> = {
  'a JSON text in which no quote ends': (length) =>
    told(
      sidecar.grpc.unary(ScopeResolverService.method.matchesScope, {
        scope: { scopeType: ScopeType.AGENT, agentIdsJson: '\\"'.repeat(length) },
        context: { tenantId: 't', agentId: 'a' },
      }),
    ),
  'a JSON text that ends within an escape': (length) =>
    told(
      sidecar.grpc.unary(ScopeResolverService.method.matchesScope, {
        scope: { scopeType: ScopeType.AGENT, agentIdsJson: `${'"'.repeat(2 * length + 1)}\\` },
        context: { tenantId: 't', agentId: 'a' },
      }),
    ),
  'a whole number of a JSON request': async (length) => {
    const url = `http://${sidecar.server.httpAddress}${pathOf(PolicyEngineService.method.fetchViolations)}`;
    const body = `{"limit": 1${'0'.repeat(length)}1}`;
    const response = await fetch(url, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
    expect(await response.json()).toMatchObject({ code: 'invalid_argument' });
  },
  'a decimal text': (length) =>
    told(
      sidecar.grpc.unary(
        PolicyRulesService.method.createIntegrity,
        { integrityStatus: IntegrityStatus.VERIFIED, integrityScore: `${'1'.repeat(length)}x`, hashRoot: '' },
        single,
      ),
    ),
  'a number of a document that is sent as text': (length) =>
    told(
      sidecar.grpc.unary(
        PolicyEngineService.method.insertViolation,
        { ...violation(), evidence: text(digits(length)) },
        { ...single, headers: { documents: 'text' } },
      ),
    ),
};

describe('a text that is eight times as long takes no more than about eight times as long', () => {
  const cost = async (work: () => Promise<void>): Promise<number> => {
    const times: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      const before = process.cpuUsage();
      await work();
      const { user, system } = process.cpuUsage(before);
      times.push(user + system);
    }
    return Math.min(...times);
  };

  // Story: 200 kB kept everybody waiting for a minute, 4 MB for hours, and no deadline could end it.
  test.each(Object.entries(ways))('%s', async (_name, way) => {
    await way(1_000);
    // Eight times as much is eight times as long, or sixty-four times. What is below some milliseconds is not told apart.
    expect(await cost(() => way(160_000))).toBeLessThan(20 * Math.max(await cost(() => way(20_000)), 3_000));
  });

  // Story: one row was enough for every list that it was in.
  test('a stored number that a list shows', async () => {
    const list = () => told(sidecar.grpc.unary(RecoveryMatcherService.method.getCandidates, {}));
    const stored = async (zeros: number): Promise<number> => {
      await sidecar.sql('truncate public.recovery_candidates cascade');
      await sidecar.grpc.unary(
        RecoveryWriteService.method.upsertRecoveryCandidate,
        { failureMatchId: randomUUID(), suggestion: 's', confidence: 0.5, explain: text(digits(zeros)) },
        single,
      );
      return cost(list);
    };
    await stored(1_000);
    const short = await stored(20_000);
    expect(await stored(160_000)).toBeLessThan(20 * Math.max(short, 3_000));
  });
});

// Story: PostgreSQL reads no more than 16,383 digits behind a point, and its refusal cost the caller its transaction.
test.each([`0.${'1'.repeat(16_384)}`, `0.${'1'.repeat(6_385)}e-9999`, `${'0'.repeat(501)}1`])(
  'a decimal text of more digits than anybody needs is refused by name',
  async (integrityScore) => {
    const call = sidecar.grpc.unary(
      PolicyRulesService.method.createIntegrity,
      { integrityStatus: IntegrityStatus.VERIFIED, integrityScore, hashRoot: '' },
      single,
    );
    await expect(call).rejects.toMatchObject({ reason: 'INVALID_REQUEST' });
    await expect(call).rejects.toMatchObject({ fields: expect.arrayContaining(['integrity_score']) });
  },
);
