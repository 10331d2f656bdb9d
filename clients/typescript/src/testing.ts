import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** A sidecar with a database of its own, both gone when it is stopped or its process's parent ends. */
export interface Ephemeral extends AsyncDisposable {
  /** `host:port` of gRPC. */
  readonly grpc: string;
  /** `host:port` of Connect, gRPC-Web and JSON. */
  readonly http: string;
  /** URL of its database. */
  readonly database: string;
  /** Its process. */
  readonly pid: number;
  stop(): Promise<void>;
}

const COMMAND = 'npx policy-sidecar';

/**
 * Starts a sidecar for tests, by the command in `POLICY_SIDECAR_COMMAND` or else `npx policy-sidecar`.
 *
 * @param env settings beside those of this process, such as `SIDECAR_LOG_LEVEL`.
 */
export const ephemeral = async (env: Readonly<Record<string, string>> = {}): Promise<Ephemeral> => {
  const command = `${process.env['POLICY_SIDECAR_COMMAND'] || COMMAND} serve --ephemeral`;
  const child = spawn(command, { shell: true, stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env } });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const where = await new Promise<Omit<Ephemeral, 'stop'>>((resolve, reject) => {
    const fail = (): void => reject(new Error(`${command} ended before it served`));
    child.once('error', reject).once('close', fail);
    createInterface(child.stdout).once('line', (line) => resolve(JSON.parse(line)));
  });
  child.stdout.resume();
  const stop = async (): Promise<void> => {
    // It ends with its standard input.
    child.stdin.end();
    await ended;
  };
  return { ...where, stop, [Symbol.asyncDispose]: stop };
};
