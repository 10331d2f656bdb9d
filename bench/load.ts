/**
 * Sends one gRPC request over and over and prints what came back: `{ rps, p50 }`, requests a second and median latency
 * in ms. A bare HTTP/2 client in a process of its own, so that it takes as little as possible from the server's cores.
 *
 * node bench/load.ts <authority> <path> <request, base64> <headers, JSON> <concurrency> <ms>
 */
import { once } from 'node:events';
import { connect } from 'node:http2';

const [authority, path, request, headers, concurrency, ms] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
  string,
];
const message = Buffer.from(request, 'base64');
const frame = Buffer.alloc(5 + message.length);
frame.writeUInt32BE(message.length, 1);
message.copy(frame, 5);

const session = connect(`http://${authority}`, { settings: { initialWindowSize: 1 << 20 } });
await once(session, 'connect');
session.setLocalWindowSize(1 << 24);
const ends = performance.now() + Number(ms);
const latencies: number[] = [];

const call = (): Promise<void> =>
  new Promise((resolve, reject) => {
    const started = performance.now();
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(JSON.parse(headers) as Record<string, string>),
    });
    let status: unknown;
    stream.on('response', (received) => {
      status = received['grpc-status'];
    });
    stream.on('trailers', (trailers) => {
      status = trailers['grpc-status'];
    });
    stream.on('error', reject);
    stream.on('end', () => {
      if (Number(status) !== 0) reject(new Error(`${path} ended with status ${status}`));
      latencies.push(performance.now() - started);
      resolve();
    });
    stream.resume();
    stream.end(frame);
  });

await Promise.all(
  Array.from({ length: Number(concurrency) }, async () => {
    while (performance.now() < ends) await call();
  }),
);
session.close();
latencies.sort((a, b) => a - b);
const rps = latencies.length / (Number(ms) / 1_000);
process.stdout.write(JSON.stringify({ rps, p50: latencies[Math.floor(latencies.length / 2)] }));
