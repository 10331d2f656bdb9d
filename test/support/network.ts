import { connect, createServer, type Socket } from 'node:net';

/** What a network does with what comes from the server, `at` bytes after the connection began. */
export type Meddle = (chunk: Buffer, at: number, client: Socket) => Buffer;

/** A network between the sidecar and a server, which can fail like one. */
export interface Network {
  /** The server's URL, by way of the network. */
  readonly url: string;
  readonly port: number;
  /** Connections open now. */
  readonly open: number;
  /** Requests to stop a statement, since it was started. */
  readonly cancels: number;
  /** From now on nothing arrives any more, in either direction, and nobody is told; new connections are taken. */
  swallow(): void;
  /** New connections get through again; those that lost bytes stay silent. */
  heal(): void;
  /** Closes every connection. */
  cut(): void;
  /** New connections go to another server. */
  redirect(url: string): void;
  /** Has everything that comes from the server changed; undefined: no more. */
  meddle(how: Meddle | undefined): void;
  close(): Promise<void>;
}

/** What a connection begins with that asks the server to stop what another one runs. */
const CANCEL = Buffer.from([0x04, 0xd2, 0x16, 0x2e]);

const portOf = (url: string): number => Number(new URL(url).port);

/** Starts a network in front of the server that a connection string names. */
export const startNetwork = async (url: string): Promise<Network> => {
  const sockets = new Set<Socket>();
  let target = portOf(url);
  let silent = false;
  let cancels = 0;
  let meddling: Meddle | undefined;
  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1');
    let at = 0;
    let deaf = silent;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        // The end of one side is news that does not arrive, either.
        deaf ||= silent;
        if (!deaf) for (const other of [client, upstream]) other.destroy();
      });
    }
    client.once('data', (chunk: Buffer) => {
      if (chunk.subarray(4, 8).equals(CANCEL)) cancels += 1;
    });
    client.on('data', (chunk) => {
      deaf ||= silent;
      if (!deaf) upstream.write(chunk);
    });
    upstream.on('data', (chunk: Buffer) => {
      deaf ||= silent;
      if (deaf) return;
      const passed = meddling ? meddling(chunk, at, client) : chunk;
      at += chunk.length;
      if (!client.destroyed && passed.length > 0) client.write(passed);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const through = new URL(url);
  through.port = String(port);
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: through.href,
    port,
    get open() {
      return sockets.size / 2;
    },
    get cancels() {
      return cancels;
    },
    swallow: () => {
      silent = true;
    },
    heal: () => {
      silent = false;
    },
    cut,
    redirect: (to) => {
      target = portOf(to);
    },
    meddle: (how) => {
      meddling = how;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        cut();
      }),
  };
};
