/** The sidecar's calls as a TypeScript author would serve them: connect-node and MikroORM's finders, ten connections. */
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { fromJson, type JsonValue, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromDate, ValueSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { defineEntity, type InferEntity, MikroORM, p } from '@mikro-orm/postgresql';
import {
  PolicyEngineService,
  type PolicyViolationSchema,
} from '../../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';

const Violation = defineEntity({
  name: 'Violation',
  tableName: 'violations',
  schema: 'policy',
  properties: {
    id: p.uuid().primary(),
    policyName: p.string().name('policy_name').nullable(),
    violationType: p.string().name('violation_type'),
    severity: p.double().$type<number>(),
    description: p.text(),
    evidence: p.json<JsonValue>(),
    agentId: p.string().name('agent_id').nullable(),
    tenantId: p.string().name('tenant_id').nullable(),
    actionAttempted: p.string().name('action_attempted').nullable(),
    routedToGovernor: p.boolean().name('routed_to_governor'),
    governorAction: p.string().name('governor_action').nullable(),
    detectedAt: p.datetime().name('detected_at'),
  },
});

const Provenance = defineEntity({
  name: 'Provenance',
  tableName: 'policy_provenance',
  schema: 'policy',
  properties: {
    id: p.uuid().primary().defaultRaw('gen_random_uuid()'),
    policyId: p.uuid().name('policy_id'),
    policyType: p.string().name('policy_type'),
    action: p.string(),
    changedBy: p.string().name('changed_by'),
    policyVersion: p.string().name('policy_version'),
    reason: p.text().nullable(),
  },
});

const orm = await MikroORM.init({
  clientUrl: process.env['DATABASE_URL']!,
  entities: [Violation, Provenance],
  pool: { min: 1, max: 10 },
});
await orm.em.fork().execute('select 1');

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
const uuid = (field: string, text: string): string => {
  if (!UUID.test(text)) throw new ConnectError(`${field} must be a UUID`, Code.InvalidArgument);
  return text;
};

const message = (found: InferEntity<typeof Violation>): MessageInitShape<typeof PolicyViolationSchema> => ({
  id: found.id,
  violationType: found.violationType,
  severity: found.severity,
  description: found.description,
  evidence: fromJson(ValueSchema, found.evidence),
  routedToGovernor: found.routedToGovernor,
  detectedAt: timestampFromDate(found.detectedAt),
  ...(found.policyName != null && { policyName: found.policyName }),
  ...(found.agentId != null && { agentId: found.agentId }),
  ...(found.tenantId != null && { tenantId: found.tenantId }),
  ...(found.actionAttempted != null && { actionAttempted: found.actionAttempted }),
  ...(found.governorAction != null && { governorAction: found.governorAction }),
});

const adapter = connectNodeAdapter({
  routes: (router) => {
    router.service(PolicyEngineService, {
      fetchViolationById: async ({ violationId }) => {
        const found = await orm.em.fork().findOne(Violation, { id: uuid('violation_id', violationId) });
        return found ? { violation: message(found) } : {};
      },
      fetchViolations: async ({ limit = 100 }) => {
        const newest = { detectedAt: 'desc', id: 'desc' } as const;
        const found = await orm.em.fork().find(Violation, {}, { orderBy: newest, limit });
        return { violations: found.map(message) };
      },
      insertProvenance: async ({ policyId, policyType, action, changedBy, policyVersion, reason }) => {
        const em = orm.em.fork();
        const entry = em.create(Provenance, {
          policyId: uuid('policy_id', policyId),
          policyType: policyType!,
          action: action!,
          changedBy: changedBy!,
          policyVersion: policyVersion!,
          reason: reason ?? null,
        });
        await em.flush();
        return { provenanceId: entry.id, rowsAffected: 1n };
      },
    });
  },
});
const server = createServer(adapter);
server.listen(0, '127.0.0.1', () => console.log(`gRPC 127.0.0.1:${(server.address() as AddressInfo).port}`));
process.on('SIGTERM', () => process.exit(0));
