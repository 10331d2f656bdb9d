import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { create, type FileRegistry, fromBinary, toBinary } from '@bufbuild/protobuf';
import { loadConfig } from '../../src/config.ts';
import { createLog } from '../../src/log.ts';
import type { Served } from '../../src/server/endpoint.ts';
import { type Sidecar, startServer } from '../../src/server/sidecar.ts';
import { type Fields, messageOf } from './descriptors.ts';

/** Servers of this process, which a judge starts and ends through a socket. */
export interface JudgedServers {
  /** Where it asks for one. */
  readonly path: string;
  /** How many it has asked for. */
  readonly started: number;
  close(): Promise<void>;
}

type Wanted = Fields<{
  readonly useTls: boolean;
  readonly clientTlsCert: Uint8Array;
  readonly messageReceiveLimit: number;
  readonly serverCreds?: { readonly cert: Uint8Array; readonly key: Uint8Array };
}>;

/** What precedes a message of the judge: its length. */
const PREFIX = 4;

const firstMessage = async (socket: Socket): Promise<Buffer> => {
  let said = Buffer.alloc(0);
  for (;;) {
    const length = said.length < PREFIX ? Number.POSITIVE_INFINITY : PREFIX + said.readUInt32BE(0);
    if (said.length >= length) return said.subarray(PREFIX, length);
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    said = Buffer.concat([said, chunk]);
  }
};

/**
 * Starts a server for each connection, with what the judge wants of it, and stops it when the judge ends the connection.
 *
 * @param port which listener is judged.
 */
export const judgedServers = async (
  folder: string,
  { url, types, service, port }: { url: string; types: FileRegistry; service: Served; port: 'grpc' | 'http' },
): Promise<JudgedServers> => {
  const requestType = messageOf(types, 'connectrpc.conformance.v1.ServerCompatRequest');
  const responseType = messageOf(types, 'connectrpc.conformance.v1.ServerCompatResponse');
  const path = join(folder, `${port}.sock`);
  let started = 0;

  const tlsOf = async ({ useTls, serverCreds, clientTlsCert }: Wanted, name: string) => {
    if (!useTls || !serverCreds) return {};
    const file = (part: string): string => join(folder, `${port}-${name}.${part}`);
    await writeFile(file('crt'), serverCreds.cert);
    await writeFile(file('key'), serverCreds.key);
    if (clientTlsCert.length > 0) await writeFile(file('ca'), clientTlsCert);
    return {
      tlsCert: file('crt'),
      tlsKey: file('key'),
      ...(clientTlsCert.length > 0 ? { tlsClientCa: file('ca') } : {}),
    };
  };

  const serve = async (socket: Socket): Promise<void> => {
    const ended = once(socket, 'end');
    const wanted = fromBinary(requestType, await firstMessage(socket)) as Wanted;
    started += 1;
    const config = {
      ...loadConfig([], {}),
      grpcListen: '127.0.0.1:0',
      httpListen: port === 'http' ? '127.0.0.1:0' : undefined,
      drainTimeoutMs: 0,
      poolMax: 2,
      maxMessageBytes: wanted.messageReceiveLimit,
      ...(await tlsOf(wanted, String(started))),
    };
    const log = createLog('error', { write: () => {} });
    const server: Sidecar = await startServer(config, { url, log, services: [service] });
    const address = (port === 'http' ? server.httpAddress : server.grpcAddress) ?? '';
    const answer = create(responseType, {
      host: '127.0.0.1',
      port: Number(address.slice(address.lastIndexOf(':') + 1)),
      pemCert: wanted.useTls ? wanted.serverCreds?.cert : undefined,
    } as never);
    const bytes = toBinary(responseType, answer);
    const prefix = Buffer.alloc(PREFIX);
    prefix.writeUInt32BE(bytes.length);
    socket.write(Buffer.concat([prefix, bytes]));
    await ended;
    await server.stop();
    socket.end();
  };

  const relayed = createServer({ allowHalfOpen: true }, (socket) => {
    serve(socket).catch((error: unknown) => {
      console.error(error);
      socket.destroy();
    });
  });
  relayed.listen(path);
  await once(relayed, 'listening');
  return {
    path,
    get started() {
      return started;
    },
    close: async () => {
      relayed.close();
      await once(relayed, 'close');
    },
  };
};
