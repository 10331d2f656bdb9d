import { create, type DescMessage, type FileRegistry, type Message, type MessageInitShape } from '@bufbuild/protobuf';
import { type Any, anyPack, anyUnpack } from '@bufbuild/protobuf/wkt';
import { type Detail, RpcError } from '../../src/contract/errors.ts';
import type { Said } from '../../src/database/notes.ts';
import { type ControlCall, controlEndpoints, type Served } from '../../src/server/endpoint.ts';
import { type Fields, messageOf, pause, type Rpc, sentHeaders, serviceOf } from './descriptors.ts';

interface Header {
  readonly name: string;
  readonly value: readonly string[];
}

interface Failure {
  readonly code: number;
  readonly message?: string;
  readonly details: readonly Any[];
}

/** What the judge asks to be answered. */
interface Definition {
  readonly responseHeaders: readonly Header[];
  readonly responseTrailers: readonly Header[];
  readonly responseDelayMs: number;
}

type UnaryDefinition = Definition & {
  readonly response:
    | { readonly case: 'responseData'; readonly value: Uint8Array }
    | { readonly case: 'error'; readonly value: Failure }
    | { readonly case: undefined };
};

type StreamDefinition = Definition & { readonly responseData: readonly Uint8Array[]; readonly error?: Failure };

type UnaryRequest = Fields<{ readonly responseDefinition?: UnaryDefinition }>;
type StreamRequest = Fields<{ readonly responseDefinition?: StreamDefinition; readonly fullDuplex?: boolean }>;

type Judged = {
  readonly unary: Rpc<'unary', UnaryRequest>;
  readonly idempotentUnary: Rpc<'unary', UnaryRequest>;
  readonly serverStream: Rpc<'server_streaming', StreamRequest>;
  readonly bidiStream: Rpc<'bidi_streaming', StreamRequest>;
};

/** RPCs of the judge's service that this server does not have. */
export const NOT_SERVED = ['ClientStream', 'Unimplemented'];

const SERVICE = 'connectrpc.conformance.v1.ConformanceService';

const said = (headers: readonly Header[]): Said =>
  headers.flatMap(({ name, value }) => value.map((each) => [name.toLowerCase(), each] as const));

const MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

const timeoutOf = ({ header }: ControlCall): bigint | undefined => {
  const grpc = header('grpc-timeout');
  const ms = grpc ? Number(grpc.slice(0, -1)) * MS[grpc.slice(-1)]! : header('connect-timeout-ms');
  return ms === undefined ? undefined : BigInt(Math.floor(Number(ms)));
};

/** What the judge wants failed: the program's error, with another's code and details. */
class AskedFor extends RpcError {
  override readonly code: RpcError['code'];
  override readonly details: readonly Detail[];

  constructor({ code, message = '' }: Failure, details: readonly Detail[]) {
    super('UNSUPPORTED_REQUEST', message);
    this.code = code as RpcError['code'];
    this.details = details;
  }
}

/** The service that connectrpc's judge calls, registered as the program registers its own. */
export const conformanceService = (types: FileRegistry): Served => {
  const service = serviceOf<Judged>(types, SERVICE);
  const requestInfo = (call: ControlCall, desc: DescMessage, requests: readonly Message[]) => ({
    requestHeaders: [...sentHeaders(call)].map(([name, value]) => ({ name, value })),
    timeoutMs: timeoutOf(call),
    requests: requests.map((request) => anyPack(desc, request as never)),
  });
  const payload = (data: Uint8Array, info?: object): MessageInitShape<DescMessage> => {
    const desc = messageOf(types, 'connectrpc.conformance.v1.ConformancePayload');
    return { payload: create(desc, { data, requestInfo: info } as never) } as never;
  };
  const failed = (failure: Failure, info?: object): RpcError => {
    const details = failure.details.map((any) => {
      const value = anyUnpack(any, types)!;
      return { desc: messageOf(types, value.$typeName), value } as Detail;
    });
    const desc = messageOf(types, 'connectrpc.conformance.v1.ConformancePayload.RequestInfo');
    return new AskedFor(failure, info ? [...details, { desc, value: info } as Detail] : details);
  };
  const say = ({ notes }: ControlCall, { responseHeaders, responseTrailers }: Definition): void => {
    notes.headers = said(responseHeaders);
    notes.trailers = said(responseTrailers);
  };

  const unary = (desc: DescMessage) => async (request: UnaryRequest, call: ControlCall) => {
    const { responseDefinition: definition } = request;
    const info = requestInfo(call, desc, [request]);
    if (definition) {
      say(call, definition);
      await pause(definition.responseDelayMs, call);
      if (definition.response.case === 'error') throw failed(definition.response.value, info);
    }
    const { response } = definition ?? {};
    const data = response?.case === 'responseData' ? response.value : new Uint8Array();
    return payload(data, info);
  };

  async function* serverStream(request: StreamRequest, call: ControlCall) {
    const { responseDefinition: definition } = request;
    if (!definition) return;
    say(call, definition);
    let info: object | undefined = requestInfo(call, service.method.serverStream.input, [request]);
    for (const data of definition.responseData) {
      await pause(definition.responseDelayMs, call);
      yield payload(data, info);
      info = undefined;
    }
    if (definition.error) throw failed(definition.error, info);
  }

  async function* bidiStream(requests: AsyncIterable<StreamRequest>, call: ControlCall) {
    const desc = service.method.bidiStream.input;
    let definition: StreamDefinition | undefined;
    let isFull: boolean | undefined;
    let received: Message[] = [];
    let answered = 0;
    const next = async () => {
      const { responseDelayMs, responseData } = definition!;
      await pause(responseDelayMs, call);
      const all = requestInfo(call, desc, received);
      const info = answered === 0 ? all : isFull && received.length > 0 ? { requests: all.requests } : undefined;
      received = [];
      answered += 1;
      return payload(responseData[answered - 1]!, info);
    };
    for await (const request of requests) {
      received.push(request);
      isFull ??= request.fullDuplex ?? false;
      if (request.responseDefinition && !definition) {
        definition = request.responseDefinition;
        say(call, definition);
      }
      if (!isFull) continue;
      if (answered === (definition?.responseData.length ?? 0)) break;
      yield await next();
    }
    while (answered < (definition?.responseData.length ?? 0)) yield await next();
    if (definition?.error)
      throw failed(definition.error, answered === 0 ? requestInfo(call, desc, received) : undefined);
  }

  const endpoints = controlEndpoints(service, {
    unary: { handle: unary(service.method.unary.input) },
    idempotentUnary: { handle: unary(service.method.idempotentUnary.input) },
    serverStream: { handle: serverStream },
    bidiStream: { handle: bidiStream },
  });
  return { service, writes: false, endpoints };
};
