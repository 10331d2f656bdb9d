import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';

/** A request that a provider was sent. */
export interface ProviderRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: unknown;
}

/** What a provider says: JSON, a text as it is, that text over and over without end, or nothing until the caller gives up. */
export interface ProviderAnswer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  readonly text?: string;
  readonly endless?: boolean;
  readonly silent?: boolean;
}

/** An HTTP server in place of a provider. */
export interface TestProvider {
  readonly url: string;
  /** What came in, oldest first. */
  readonly requests: ProviderRequest[];
  /** What is said from now on. */
  answer: ProviderAnswer;
  /** Bytes of endless answers said so far. */
  said: number;
  close(): Promise<void>;
}

/** Starts a provider on a free port. */
export const startProvider = async (): Promise<TestProvider> => {
  const server: Server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method = '', url: path = '', headers } = request;
    provider.requests.push({ method, path, headers, body: JSON.parse(Buffer.concat(chunks).toString() || 'null') });
    const { status = 200, json, text = JSON.stringify(json), endless, silent, headers: extra = {} } = provider.answer;
    if (silent) return;
    response.writeHead(status, { 'content-type': 'application/json', ...extra });
    if (!endless) {
      response.end(text);
      return;
    }
    const more = function* () {
      for (;;) {
        provider.said += text.length;
        yield text;
      }
    };
    Readable.from(more()).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const provider: TestProvider = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: [],
    answer: {},
    said: 0,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return provider;
};
