import { type DescField, type DescMethodUnary, ScalarType } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { PolicyArbitratorService } from '../../src/gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyRulesService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { RecoveryWriteService } from '../../src/gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { ScopeResolverService } from '../../src/gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const sidecar = useSidecar();

const ID = '00000000-0000-4000-8000-000000000001';

const patches: [DescMethodUnary, object, string[]][] = [
  [PolicyArbitratorService.method.updatePrecedence, { tenantId: 't', policyId: 'p' }, ['precedence', 'bind_at']],
  [PolicyEngineService.method.updateRiskCeiling, { ceilingId: ID }, ['name', 'max_value']],
  [PolicyEngineService.method.updateSafetyRule, { ruleId: ID }, ['name', 'priority']],
  [PolicyRulesService.method.updateRule, { tenantId: 't', ruleId: 'r' }, ['name', 'status', 'updated_at']],
  [RecoveryWriteService.method.updateRecoveryCandidate, { candidateId: 1 }, ['suggestion', 'decision']],
  [RecoveryWriteService.method.updateFailureMatch, { failureMatchId: ID }, ['match_type', 'is_retryable']],
  [ScopeResolverService.method.updateScope, { tenantId: 't', scopeId: 's' }, ['scope_type']],
];

/** A value of each field that no rule lets pass; undefined where its type allows everything. */
const impossible = (field: DescField): unknown => {
  if (field.fieldKind === 'enum') return 9_999;
  if (field.fieldKind === 'list') return ['\0'];
  switch (field.message?.typeName ?? field.scalar) {
    case ScalarType.STRING:
      return '\0';
    case ScalarType.DOUBLE:
      return Number.NaN;
    case 'google.protobuf.Timestamp':
      return { seconds: 2n ** 62n };
    case 'google.protobuf.Value':
      return { kind: { case: 'numberValue', value: Number.NaN } };
    case 'hoc.cus.policies.v1.StringList':
      return { values: ['\0'] };
    default:
      return undefined;
  }
};

// The contract says that such values are ignored; they were refused.
test.each(patches)('%s: a value that the mask does not name is not looked at', async (method, key) => {
  const wrong = method.input.fields
    .find(({ name }) => name === 'updates')!
    .message!.fields.filter((field) => impossible(field) !== undefined);
  const updates = Object.fromEntries(wrong.map((field) => [field.localName, impossible(field)]));
  for (const field of wrong) {
    const request = { ...key, updates, updateMask: { paths: [field.name] } };
    const refused = await refusal(sidecar.grpc.unary(method, request as never, { transaction: 'single-use' }));
    const path = `updates.${field.name}`;
    expect(refused).toMatchObject({
      code: 'INVALID_ARGUMENT',
      fields: [expect.stringMatching(new RegExp(`^${path}(\\.values)?(\\[0\\])?$`))],
    });
  }
});

// Such a change succeeded, and changed nothing.
test.each(patches)('%s: values without a mask are refused, and * names all fields', async (method, key, required) => {
  const patch = method.input.fields.find(({ name }) => name === 'updates')!.message!;
  const field = patch.fields.find((each) => each.scalar === ScalarType.STRING) ?? patch.fields[0]!;
  const updates = { [field.localName]: field.scalar === ScalarType.STRING ? 'x' : 1 };
  const update = (paths: string[]) =>
    sidecar.grpc.unary(method, { ...key, updates, updateMask: { paths } } as never, { transaction: 'single-use' });
  expect(await refusal(update([]))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['update_mask'] });
  const unset = required.filter((name) => name !== field.name).map((name) => `updates.${name}`);
  expect((await refusal(update(['*']))).fields).toEqual(expect.arrayContaining(unset));
  expect((await refusal(update(['*', field.name]))).fields).toContain('update_mask');
});

// A mask that named such a field and left it unset went to the database as NULL, which cost the caller's transaction.
test.each(patches)(
  '%s: a field that must have a value and is named without one is refused',
  async (method, key, required) => {
    const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
    const inside = { transaction: transaction!.id! };
    const patch = method.input.fields.find(({ name }) => name === 'updates')!.message!;
    const update = (paths: string[]) => sidecar.grpc.unary(method, { ...key, updateMask: { paths } } as never, inside);

    const refused = await refusal(update(patch.fields.map(({ name }) => name)));
    expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(refused.fields).toEqual(expect.arrayContaining(required.map((name) => `updates.${name}`)));

    const optional = patch.fields.map(({ name }) => name).filter((name) => !refused.fields.includes(`updates.${name}`));
    // The transaction lives, and the other fields may be cleared.
    if (optional.length > 0) await update(optional);
    await sidecar.grpc.unary(TransactionService.method.commit, { transactionId: transaction!.id! });
  },
);

// What a mask makes wrong was found when the operation ran: after those before it, without its place in the list, and
// only when nothing else was wrong.
test('Execute names what is wrong with its patches, and with everything else, before it runs any', async () => {
  const update = {
    failureMatchId: 'x',
    updates: { category: 'a\0', severity: 'b\0' },
    updateMask: { paths: ['category', 'match_type', 'is_retryable'] },
  };
  const refused = await refusal(
    sidecar.grpc.unary(TransactionService.method.execute, {
      operations: [
        { request: { case: 'updateFailureMatch', value: update } },
        { request: { case: 'recordTemporalMetricEvent', value: { event: { policyId: ID, agentId: '\0' } } } },
      ],
    }),
  );
  expect(refused.metadata['operation']).toBeUndefined();
  expect(refused.fields).toEqual([
    'operations[0].update_failure_match.failure_match_id',
    'operations[0].update_failure_match.updates.category',
    'operations[0].update_failure_match.updates.match_type',
    'operations[0].update_failure_match.updates.is_retryable',
    'operations[1].record_temporal_metric_event.event.agent_id',
    'operations[1].record_temporal_metric_event.event.metric',
    'operations[1].record_temporal_metric_event.event.value',
  ]);
});
