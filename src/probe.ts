import { get } from 'node:http';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { isHostPort, isSocketOrPort } from './address.ts';

/** Where gRPC listens unless told otherwise. */
export const GRPC_LISTEN = '127.0.0.1:50051';

const socketOf = (listen: string): Socket => {
  if (listen.startsWith('unix:')) return connect(listen.slice('unix:'.length));
  const separator = listen.lastIndexOf(':');
  return connect(Number(listen.slice(separator + 1)), listen.slice(0, separator).replace(/^\[|\]$/g, ''));
};

/** An empty message in gRPC's frame, and the answer SERVING in one. */
const ASKED = Buffer.alloc(5);
const SERVING = Buffer.from('00000000020801', 'hex');

const askGrpc = (listen: string, done: (problem?: string) => void): Socket => {
  const socket = socketOf(listen).on('error', ({ message }) => done(message));
  const session = connectHttp2('http://localhost', { createConnection: () => socket });
  session.on('error', ({ message }) => done(message));
  const stream = session.request({
    [constants.HTTP2_HEADER_METHOD]: 'POST',
    [constants.HTTP2_HEADER_PATH]: '/grpc.health.v1.Health/Check',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  const answer: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => answer.push(chunk));
  stream.on('error', ({ message }) => done(message));
  stream.on('end', () => done(Buffer.concat(answer).equals(SERVING) ? undefined : 'NOT_SERVING'));
  stream.end(ASKED);
  return socket;
};

const askProbe = (listen: string, done: (problem?: string) => void): Socket => {
  const socket = socketOf(listen);
  get({ createConnection: () => socket, host: 'localhost', path: '/ready' }, (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    response.on('end', () => done(response.statusCode === 200 ? undefined : text.trim()));
  }).on('error', ({ message }) => done(message));
  return socket;
};

/** Where a sidecar can be asked how it is. */
export interface Askable {
  readonly grpcListen: string;
  readonly probeListen: string | undefined;
  readonly tlsCert: string | undefined;
}

/** Why nobody can ask a sidecar of these settings, however long it serves; undefined where that is possible. */
export const whyNotAskable = ({ grpcListen, probeListen, tlsCert }: Askable): string | undefined =>
  tlsCert === undefined || probeListen !== undefined || grpcListen.startsWith('unix:')
    ? undefined
    : `${grpcListen} speaks TLS, and only SIDECAR_PROBE_LISTEN can be asked then`;

/**
 * Asks a sidecar of this machine whether it serves: its probe listener where it has one, else gRPC without TLS. Loads next
 * to nothing, since a kubelet starts it every few seconds.
 *
 * @returns why it does not; undefined when it does.
 */
export const askHealth = ({ grpcListen, probeListen }: Askable, timeoutMs: number): Promise<string | undefined> =>
  new Promise((resolve) => {
    const done = (problem?: string): void => {
      clearTimeout(clock);
      socket.destroy();
      resolve(problem);
    };
    const clock = setTimeout(() => done(`no answer within ${timeoutMs} ms`), timeoutMs);
    const socket = probeListen ? askProbe(probeListen, done) : askGrpc(grpcListen, done);
  });

/** What is no address, in the words of a start that refuses it; undefined where all are. */
const whyNoAddress = ({ grpcListen, probeListen }: Askable): string | undefined => {
  if (probeListen !== undefined && !isHostPort(probeListen)) {
    return `SIDECAR_PROBE_LISTEN must be host:port, not "${probeListen}"`;
  }
  return isSocketOrPort(grpcListen) ? undefined : `SIDECAR_GRPC_LISTEN must be host:port, not "${grpcListen}"`;
};

/** Longest that a probe waits, milliseconds. */
const PROBE_MS = 1_000;

/**
 * `health`: ends the process with 0 where a sidecar serves, else with 1, or with 2 where none can be asked, and one line that
 * says why.
 */
export const answerHealth = async (env: NodeJS.ProcessEnv): Promise<void> => {
  const probe = env['SIDECAR_PROBE_LISTEN'];
  const askable = {
    grpcListen: env['SIDECAR_GRPC_LISTEN'] || GRPC_LISTEN,
    probeListen: probe && probe !== 'off' ? probe : undefined,
    tlsCert: env['SIDECAR_TLS_CERT'] || undefined,
  };
  const misuse = whyNoAddress(askable) ?? whyNotAskable(askable);
  const problem = misuse ?? (await askHealth(askable, PROBE_MS));
  if (problem === undefined) return;
  process.stderr.write(`policy-sidecar: ${misuse ?? `not serving: ${problem}`}\n`);
  process.exitCode = misuse === undefined ? 1 : 2;
};
