import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { bind } from './bind.ts';

/** What is answered to a GET: text for people and machines. */
export interface Page {
  readonly status: number;
  readonly text: string;
  /** Default: plain text. */
  readonly type?: string;
}

/** A page by its path. */
export type Routes = Readonly<Record<string, () => Page | Promise<Page>>>;

/** Numbers that nobody collects any more, since the process ends, are no reason for it to end otherwise. */
const pageOf = async (route: Routes[string]): Promise<Page> => {
  try {
    return await route();
  } catch {
    return { status: 503, text: 'this cannot be told now\n' };
  }
};

/**
 * Answers a GET or HEAD of one of the routes.
 *
 * @returns false when the request is none.
 */
export const answerRoute = (
  routes: Routes,
  { method, url = '' }: Pick<IncomingMessage, 'method' | 'url'>,
  response: Pick<ServerResponse, 'writeHead' | 'end'>,
): boolean => {
  const [path = ''] = url.split('?');
  if ((method !== 'GET' && method !== 'HEAD') || !Object.hasOwn(routes, path)) return false;
  void (async () => {
    const { status, text, type = 'text/plain; charset=utf-8' } = await pageOf(routes[path]!);
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
    response.end(method === 'HEAD' ? undefined : text);
  })();
  return true;
};

/** How far a sidecar is with serving calls. */
export interface Condition {
  /** Whether calls have been let in, once and for good. */
  readonly isStarted: boolean;
  /** In words, why not all calls are served; undefined when they are. */
  readonly whyNot: string | undefined;
}

/** Of one whose database has not been looked at yet, or has not been brought up to date. */
export const STARTING = { isStarted: false, whyNot: 'it is being started' } as const satisfies Condition;

const yes = (what: string): Page => ({ status: 200, text: `${what}\n` });
const no = (what: string, why: string): Page => ({ status: 503, text: `not ${what}: ${why}\n` });

/** Whether the process lives, whether calls have been let in, and whether they are served now. */
export const healthRoutes = (condition: () => Condition): Routes => ({
  '/live': () => yes('live'),
  '/started': () => (condition().isStarted ? yes('started') : no('started', STARTING.whyNot)),
  '/ready': () => {
    const { whyNot } = condition();
    return whyNot === undefined ? yes('ready') : no('ready', whyNot);
  },
});

/** What answers whoever watches over the process. */
export interface Probes {
  /** Where it listens. */
  readonly address: string;
  /** What it is asked. */
  readonly paths: readonly string[];
  close(): Promise<void>;
}

/** Longest a probe may be silent, milliseconds. */
const PATIENCE_MS = 10_000;

/**
 * Serves routes over HTTP/1.1 without TLS: a kubelet has neither certificate nor token.
 *
 * @throws ConfigError with one line that says why the address cannot be had.
 */
export const listenProbes = async (listen: string, routes: Routes): Promise<Probes> => {
  const paths = Object.keys(routes);
  const server = createServer(
    { headersTimeout: PATIENCE_MS, requestTimeout: PATIENCE_MS, keepAliveTimeout: PATIENCE_MS },
    (request, response) => {
      if (answerRoute(routes, request, response)) return;
      response.writeHead(404, { 'content-type': 'text/plain; charset=utf-8' });
      response.end(`there is ${paths.join(', ')}\n`);
    },
  );
  // It looks for late requests from when it listens, and it never does: it is handed its connections.
  server.emit('listening');
  const bound = await bind({ listen, socketMode: 0, keepAliveMs: PATIENCE_MS }, (socket) => {
    server.emit('connection', socket);
  });
  return {
    address: bound.address,
    paths,
    close: async () => {
      const closed = bound.close();
      server.closeAllConnections();
      server.close();
      await closed;
    },
  };
};
