import type { FileRegistry, Message } from '@bufbuild/protobuf';
import { RpcError } from '../../src/contract/errors.ts';
import { type ControlCall, controlEndpoints, type Served } from '../../src/server/endpoint.ts';
import { type Fields, pause, type Rpc, sentHeaders, serviceOf } from './descriptors.ts';

interface EchoStatus {
  readonly code: number;
  readonly message: string;
}

type SimpleRequest = Fields<{ readonly responseSize: number; readonly responseStatus?: EchoStatus }>;
type StreamRequest = Fields<{
  readonly responseParameters: readonly { readonly size: number; readonly intervalUs: number }[];
  readonly responseStatus?: EchoStatus;
}>;

type TestService = {
  readonly emptyCall: Rpc<'unary', Message>;
  readonly unaryCall: Rpc<'unary', SimpleRequest>;
  readonly streamingOutputCall: Rpc<'server_streaming', StreamRequest>;
  readonly fullDuplexCall: Rpc<'bidi_streaming', StreamRequest>;
};

/** RPCs of gRPC's test service that this server does not have. */
export const NOT_SERVED = ['CacheableUnaryCall', 'StreamingInputCall', 'HalfDuplexCall', 'UnimplementedCall'];

const INITIAL = 'x-grpc-test-echo-initial';
const TRAILING = 'x-grpc-test-echo-trailing-bin';

class AskedFor extends RpcError {
  override readonly code: RpcError['code'];
  override readonly details = [];

  constructor({ code, message }: EchoStatus) {
    super('UNSUPPORTED_REQUEST', message);
    this.code = code as RpcError['code'];
  }
}

const echo = (call: ControlCall): void => {
  const sent = sentHeaders(call);
  const said = (name: string) => (sent.get(name) ?? []).map((value) => [name, value] as const);
  call.notes.headers = said(INITIAL);
  call.notes.trailers = said(TRAILING);
};

const obey = ({ responseStatus }: SimpleRequest | StreamRequest): void => {
  if (responseStatus && responseStatus.code !== 0) throw new AskedFor(responseStatus);
};

const payload = (size: number) => ({ payload: { body: new Uint8Array(size) } });

async function* responses({ responseParameters }: StreamRequest, call: ControlCall) {
  for (const { size, intervalUs } of responseParameters) {
    await pause(intervalUs / 1_000, call);
    yield payload(size);
  }
}

/** The service that gRPC's interoperability cases call, registered as the program registers its own. */
export const interopService = (types: FileRegistry): Served => {
  const service = serviceOf<TestService>(types, 'grpc.testing.TestService');
  const endpoints = controlEndpoints(service, {
    emptyCall: { handle: () => ({}) },
    unaryCall: {
      handle: (request, call) => {
        echo(call);
        obey(request);
        return payload(request.responseSize);
      },
    },
    streamingOutputCall: { handle: responses },
    fullDuplexCall: {
      async *handle(requests, call) {
        echo(call);
        for await (const request of requests) {
          obey(request);
          yield* responses(request, call);
        }
      },
    },
  });
  // What a request of this program must be is not asked of others' requests, whose enums mean something by zero.
  return { service, writes: false, endpoints: endpoints.map((endpoint) => ({ ...endpoint, check: () => [] })) };
};
