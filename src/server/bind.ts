import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { type BigIntStats, linkSync, lstatSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { AddressError } from '../setting-forms.ts';

/** Options of a bound address. */
export interface BindOptions {
  /** `host:port` or `unix:/path`. */
  readonly listen: string;
  /** Permission bits of a socket file. */
  readonly socketMode: number;
  /** How long a TCP connection may be silent until the kernel asks whether the other side is there, milliseconds. */
  readonly keepAliveMs: number;
}

/** An address that takes connections. */
export interface Address {
  /** As asked for, with the port that was chosen for port 0. */
  readonly address: string;
  /** Takes no more connections; settles when those taken have ended. */
  close(): Promise<void>;
}

const CAUSES: Readonly<Record<string, string>> = {
  EADDRINUSE: 'it is in use by another process',
  EADDRNOTAVAIL: 'this machine does not have that address',
  EACCES: 'that is not permitted',
  EPERM: 'that is not permitted',
  ENOENT: 'there is no such folder',
  ENOTDIR: 'there is no such folder',
  ENOTFOUND: 'its name cannot be resolved',
  EAI_AGAIN: 'its name cannot be resolved',
  ENAMETOOLONG: 'the path is too long for a socket',
  EINVAL: 'the path is too long for a socket',
};

const unbindable = (listen: string, error: unknown): AddressError => {
  const { code = '', message } = error as NodeJS.ErrnoException;
  return new AddressError(`cannot listen on ${listen}: ${CAUSES[code] ?? message.split('\n')[0]}`, { cause: error });
};

const isCode = (error: unknown, code: string): boolean => (error as NodeJS.ErrnoException).code === code;

const attempt = async (server: Server, options: ListenOptions): Promise<void> => {
  server.listen(options);
  await once(server, 'listening');
};

/** Whether somebody answers at a socket file. */
const isServed = (path: string): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => {
      if (isCode(error, 'ECONNREFUSED') || isCode(error, 'ENOENT')) resolve(false);
      // A full queue of connections has an owner.
      else if (isCode(error, 'EAGAIN')) resolve(true);
      else reject(error);
    });
  });

const statOf = (path: string): BigIntStats | undefined => lstatSync(path, { throwIfNoEntry: false, bigint: true });

/** A number alone is given to another file as soon as its own is gone. */
const isSame = (one: BigIntStats, other: BigIntStats | undefined): boolean =>
  one.ino === other?.ino && one.mtimeNs === other.mtimeNs;

/** Removes the file of a socket that nobody serves any more; what else is there stays, and is refused. */
const removeStale = async (path: string): Promise<void> => {
  const found = statOf(path);
  if (!found) return;
  if (!found.isSocket()) throw new AddressError(`cannot listen on unix:${path}: there is a file that is no socket`);
  if (await isServed(path)) throw new AddressError(`cannot listen on unix:${path}: it is in use by another process`);
  // Another start may have taken the path over since it was looked at: only the file that was judged may go.
  const aside = `${path}.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return;
    throw error;
  }
  if (!isSame(found, statOf(aside))) {
    linkSync(aside, path);
    unlinkSync(aside);
    throw new AddressError(`cannot listen on unix:${path}: it is in use by another process`);
  }
  unlinkSync(aside);
};

const listenOnFile = async (server: Server, path: string, mode: number): Promise<void> => {
  // Listening would say that it is not permitted.
  statSync(dirname(path));
  await removeStale(path);
  // The file is made within this very call: at no moment is it open to more than the mode allows.
  const before = process.umask(0o777 & ~mode);
  let listening: Promise<void>;
  try {
    listening = attempt(server, { path });
  } finally {
    process.umask(before);
  }
  await listening;
};

/**
 * Takes connections at an address: at a socket file, or at a port of every address that the host's name has.
 *
 * @throws AddressError with one line that says why the address cannot be had.
 */
export const bind = async (
  { listen, socketMode, keepAliveMs }: BindOptions,
  onConnection: (socket: Socket) => void,
): Promise<Address> => {
  const servers: Server[] = [];
  const open = (): Server => {
    const server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs }, onConnection);
    servers.push(server);
    return server;
  };
  const close = async (): Promise<void> => {
    await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  };
  try {
    if (listen.startsWith('unix:')) {
      await listenOnFile(open(), listen.slice('unix:'.length), socketMode);
      return { address: listen, close };
    }
    const separator = listen.lastIndexOf(':');
    const host = listen.slice(0, separator).replace(/^\[|\]$/g, '');
    let port = Number(listen.slice(separator + 1));
    for (const { address } of await lookup(host, { all: true })) {
      const server = open();
      try {
        await attempt(server, { host: address, port });
        port = (server.address() as AddressInfo).port;
      } catch (error) {
        servers.pop();
        // `localhost` has an address of version 6 on many a machine that has no version 6.
        if (servers.length === 0 || !isCode(error, 'EADDRNOTAVAIL')) throw error;
      }
    }
    return { address: `${listen.slice(0, separator)}:${port}`, close };
  } catch (error) {
    await close();
    throw error instanceof AddressError ? error : unbindable(listen, error);
  }
};
