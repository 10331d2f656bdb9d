import { describe, expect, test } from 'vitest';
import { browserAvailable, startBrowser } from '../support/browser.ts';
import { startNetwork } from '../support/network.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useSidecar, useStarted } from '../support/use.ts';

if (!browserAvailable) console.log('no Chromium here: calls from web pages are not tested');

describe.skipIf(!browserAvailable)('a web page in a real browser', () => {
  const invited = useStarted(startBrowser, ({ close }) => close());
  const stranger = useStarted(startBrowser, ({ close }) => close());
  const sidecar = useSidecar(() => startTestSidecar({ httpOrigins: [invited.origin] }));

  /** A script with `client` of the policy engine, over one of the protocols that pages speak. */
  const withClient = (transport: 'Connect' | 'GrpcWeb', options: object, body: string, at?: string): string => `
    const { createClient, ConnectError, Code } = await import('@connectrpc/connect');
    const { create${transport}Transport } = await import('@connectrpc/connect-web');
    const { PolicyEngineService } = await import('/src/gen/hoc/cus/policies/v1/policy_engine_pb.ts');
    const { ErrorInfoSchema } = await import('/src/gen/google/rpc/error_details_pb.ts');
    const client = createClient(PolicyEngineService, create${transport}Transport({
      baseUrl: 'http://${at ?? sidecar.server.httpAddress}', ...${JSON.stringify(options)},
    }));
    const refused = (call) => call.then(() => 'answered', (error) => ({
      code: Code[error.code], reason: error.findDetails(ErrorInfoSchema)[0]?.reason,
    }));
    ${body}`;

  const CALLS = `
    const headers = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' };
    const { riskCeilings } = await client.fetchRiskCeilings({}, { headers, timeoutMs: 30000 });
    const streamed = [];
    for await (const { riskCeiling } of client.streamRiskCeilings({})) streamed.push(riskCeiling.name);
    const ceilingId = '00000000-0000-0000-0000-000000000001';
    const written = await client.resetRiskCeiling({ ceilingId }, {
      headers: { transaction: 'single-use', 'idempotency-key': crypto.randomUUID() },
    });
    return {
      read: riskCeilings.length,
      streamed: streamed.length,
      written: String(written.rowsAffected),
      refused: await refused(client.resetRiskCeiling({ ceilingId })),
    };`;

  test.each([
    ['Connect with JSON', 'Connect', { useBinaryFormat: false }],
    ['Connect in binary', 'Connect', { useBinaryFormat: true }],
    ['gRPC-Web', 'GrpcWeb', {}],
  ] as const)(
    'an invited one reads, streams, writes and is told refusals over %s',
    async (_what, transport, options) => {
      const { n } = (await sidecar.sql<{ n: number }>('select count(*)::int n from policy.risk_ceilings'))[0]!;
      expect(n).toBeGreaterThan(0);
      expect(await invited.run(withClient(transport, options, CALLS))).toEqual({
        read: n,
        streamed: n,
        written: '0',
        refused: { code: 'FailedPrecondition', reason: 'TRANSACTION_REQUIRED' },
      });
    },
  );

  test('one that is not invited gets nothing, and changes nothing', async () => {
    const answers = await stranger.run(
      withClient(
        'Connect',
        {},
        `const url = 'http://${sidecar.server.httpAddress}/' + PolicyEngineService.typeName + '/DeactivateAllVersions';
        // What a page may send without a question: it was carried out, only its answer was withheld.
        await fetch(url, { method: 'POST', mode: 'no-cors', body: '{}' }).catch(() => {});
        return {
          read: await refused(client.fetchRiskCeilings({})),
          written: await refused(client.deactivateAllVersions({}, { headers: { transaction: 'single-use' } })),
        };`,
      ),
    );
    // A browser says nothing of a server that does not welcome the page.
    expect(answers).toEqual({ read: { code: 'Unknown' }, written: { code: 'Unknown' } });
    expect(sidecar.log().filter(({ method }) => /DeactivateAllVersions/.test(String(method)))).not.toContainEqual(
      expect.objectContaining({ code: 'OK' }),
    );
  });

  // The whole attack: the page's name leads to its own server first and to this one afterwards, under one origin.
  test('a name that was made to lead here after its page came is refused with a reason', async () => {
    const pages = await startBrowser(() => network.redirect(`http://${sidecar.server.httpAddress}`));
    const network = await startNetwork(pages.origin);
    const at = `evil.example:${network.port}`;
    const script = withClient('Connect', {}, `await fetch('/tell'); return refused(client.fetchRiskCeilings({}));`, at);
    expect(await pages.run(script, at)).toEqual({ code: 'PermissionDenied', reason: 'HOST_NOT_ALLOWED' });
    await network.close();
    await pages.close();
  });
});
