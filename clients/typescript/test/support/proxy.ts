import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A way to a sidecar that can lose what goes over it. */
export interface Proxy extends AsyncDisposable {
  readonly address: string;
  /** How many connections there have been. */
  readonly accepted: number;
  /** What is lost from now on: `answers` of the sidecar, or `requests` to it. */
  lose(what: 'answers' | 'requests'): void;
  /** Says how many bytes of answers are passed on from now on, and no more until the next cut. */
  pass(bytes: number): void;
  /** Cuts all connections; new ones lose nothing. */
  cut(): void;
}

export const startProxy = async (target: string): Promise<Proxy> => {
  const { hostname, port } = new URL(`tcp://${target}`);
  const sockets = new Set<Socket>();
  let lost: string | undefined;
  let accepted = 0;
  let most = Number.POSITIVE_INFINITY;
  const pipe = (from: Socket, to: Socket, kind: string): void => {
    sockets.add(from);
    from.on('data', (chunk) => {
      if (lost !== kind) to.write(chunk);
      if (kind !== 'answers') return;
      most -= chunk.length;
      if (most < 0) from.pause();
    });
    from.on('error', () => {});
    from.on('close', () => {
      sockets.delete(from);
      to.destroy();
    });
  };
  const server = createServer((near) => {
    accepted += 1;
    const far = connect(Number(port), hostname);
    pipe(near, far, 'requests');
    pipe(far, near, 'answers');
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const cut = (): void => {
    lost = undefined;
    most = Number.POSITIVE_INFINITY;
    for (const socket of sockets) socket.destroy();
  };
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    get accepted() {
      return accepted;
    },
    lose: (what) => {
      lost = what;
    },
    pass: (bytes) => {
      most = bytes;
    },
    cut,
    [Symbol.asyncDispose]: async () => {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
};
