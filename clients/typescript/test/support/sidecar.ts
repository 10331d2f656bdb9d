import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Asks a service without the client under test. */
export const ask = async (
  { http }: { readonly http: string },
  path: string,
  request: object = {},
): Promise<unknown> => {
  const url = `http://${http}/hoc.cus.policies.v1.${path}`;
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(request) });
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
  return response.json();
};

/** A port that is free now. */
export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
};

/** A sidecar beside the shared one, on its database. */
export interface Second extends AsyncDisposable {
  /** Kills it, with no time to say anything. */
  kill(): Promise<void>;
}

const end = async (child: ChildProcess, signal: NodeJS.Signals): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, 'close');
};

/** Starts it; a client waits until it serves. */
export const startSecond = (database: string, listen: string, env: Readonly<Record<string, string>> = {}): Second => {
  const settings = {
    DATABASE_URL: database,
    SIDECAR_GRPC_LISTEN: listen,
    SIDECAR_HTTP_LISTEN: 'off',
    SIDECAR_LOG_LEVEL: 'error',
    SIDECAR_DRAIN_TIMEOUT: '1s',
    ...env,
  };
  const child = spawn(`exec ${process.env['POLICY_SIDECAR_COMMAND']} serve`, {
    shell: true,
    stdio: 'ignore',
    env: { ...process.env, ...settings },
  });
  return { kill: () => end(child, 'SIGKILL'), [Symbol.asyncDispose]: () => end(child, 'SIGTERM') };
};
