import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { stripTypeScriptTypes } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { text } from 'node:stream/consumers';

const ROOT = join(import.meta.dirname, '..', '..');

/** The browser; TEST_CHROMIUM names another one. */
export const PROGRAM = [process.env['TEST_CHROMIUM'], '/usr/bin/chromium', '/usr/bin/google-chrome'].find(
  (path) => path !== undefined && existsSync(path),
);

/** True where there is a Chromium to start. A test file that is skipped for want of one says so in a line. */
export const browserAvailable = PROGRAM !== undefined;

/** Names that pages and the code they run import, each with the file it stands for. */
const importsOf = (name: string): [string, string][] => {
  const { exports } = JSON.parse(readFileSync(join(ROOT, 'node_modules', name, 'package.json'), 'utf8')) as {
    exports: Readonly<Record<string, { readonly import?: string | { readonly default: string } }>>;
  };
  return Object.entries(exports).flatMap(([path, { import: file }]) => {
    const target = typeof file === 'object' ? file.default : file;
    return target === undefined ? [] : [[join(name, path), `/${join('node_modules', name, target)}`]];
  });
};

const IMPORTS = Object.fromEntries(
  ['@bufbuild/protobuf', '@connectrpc/connect', '@connectrpc/connect-web'].flatMap(importsOf),
);

const CLIENT_IMPORTS = Object.fromEntries(
  ['connect', 'messages'].map((entry) => [`@policy-sidecar/client/${entry}`, `/client/${entry}.js`]),
);

const page = (script: string, origin: string): string => `<!doctype html>
<script type="importmap">${JSON.stringify({ imports: { ...IMPORTS, ...CLIENT_IMPORTS } })}</script>
<script type="module">
const report = (result) => fetch('${origin}/result', { method: 'POST', mode: 'no-cors', body: JSON.stringify(result) });
try {
  await report({ value: await (async () => { ${script} })() });
} catch (error) {
  await report({ error: String(error) });
}
</script>`;

interface Result {
  readonly value?: unknown;
  readonly error?: string;
}

/** Pages of one origin, and a real browser that opens them. */
export interface Browser {
  /** `http://127.0.0.1:port` */
  readonly origin: string;
  /**
   * Opens a page whose module script has the given body, which may import generated code from `/src/gen/…`.
   *
   * @param at where the browser finds the page; all names lead to loopback there.
   * @returns what the script returns.
   */
  run(script: string, at?: string): Promise<unknown>;
  close(): Promise<void>;
}

/**
 * Serves pages on a free loopback port for the browser; it connects anew for each file.
 *
 * @param onAsked told when a page asks for `/tell`, before it is answered.
 * @param client folder with the compiled client for TypeScript, for pages that import it.
 */
export const startBrowser = async (onAsked: () => void = () => {}, client?: string): Promise<Browser> => {
  let script = '';
  let result = Promise.withResolvers<Result>();
  const server = createServer(async (request, response) => {
    const path = normalize(request.url ?? '/');
    response.shouldKeepAlive = false;
    if (path === '/result') {
      result.resolve(JSON.parse(await text(request)));
      response.end();
    } else if (path === '/') {
      response.setHeader('content-type', 'text/html').end(page(script, origin));
    } else if (path === '/tell') {
      onAsked();
      response.end();
    } else if (client !== undefined && /^\/client\/[\w/-]+\.js$/.test(path)) {
      response.setHeader('content-type', 'text/javascript');
      response.end(readFileSync(join(client, path.slice('/client'.length))));
    } else if (/^\/(src\/gen|node_modules)\/.*\.(ts|js)$/.test(path) && existsSync(join(ROOT, path))) {
      const source = readFileSync(join(ROOT, path), 'utf8');
      response.setHeader('content-type', 'text/javascript');
      response.end(path.endsWith('.ts') ? stripTypeScriptTypes(source) : source);
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const origin = `http://127.0.0.1:${port}`;
  return {
    origin,
    run: async (body, at = new URL(origin).host) => {
      script = body;
      result = Promise.withResolvers();
      const profile = await mkdtemp(join(tmpdir(), 'policy-sidecar-browser-'));
      const child = spawn(
        PROGRAM!,
        [
          ...['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'],
          ...['--disable-background-networking', '--no-proxy-server', `--user-data-dir=${profile}`],
          ...['--host-resolver-rules=MAP * 127.0.0.1', `http://${at}/`],
        ],
        { stdio: ['ignore', 'ignore', 'pipe'], detached: true },
      );
      const said = text(child.stderr!);
      const ended = once(child, 'close');
      try {
        const early = ended.then(async (): Promise<Result> => ({ error: `the browser ended: ${await said}` }));
        const { value, error } = await Promise.race([result.promise, early]);
        if (error !== undefined) throw new Error(error);
        return value;
      } finally {
        // Its helpers are of its process group.
        if (child.exitCode === null) process.kill(-child.pid!, 'SIGKILL');
        await ended;
        await rm(profile, { recursive: true, force: true, maxRetries: 5 });
      }
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
};
