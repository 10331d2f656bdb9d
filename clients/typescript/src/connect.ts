import { ConnectError, type Transport as ConnectTransport } from '@connectrpc/connect';
import type { ClientOptions } from './calls.ts';
import { type Client, Connection } from './client.ts';
import { cancelled, errorOfStatus, type SidecarError } from './errors.ts';
import type { Outgoing, Transport } from './transport.ts';

export * from './core.ts';

const sidecarError = (thrown: unknown, { signal }: Outgoing): SidecarError => {
  if (signal?.aborted) return cancelled(signal);
  const error = ConnectError.from(thrown);
  const packed = error.details.flatMap((detail) => ('type' in detail ? [detail] : []));
  return errorOfStatus(error.code, error.rawMessage, packed, thrown);
};

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}

const adapt = (transport: ConnectTransport): Transport => ({
  unary: async (method, request, outgoing) => {
    const { signal, timeoutMs, headers, onTrailer } = outgoing;
    try {
      const { message, trailer } = await transport.unary(method, signal, timeoutMs, { ...headers }, request as never);
      onTrailer?.(trailer);
      return message;
    } catch (error) {
      throw sidecarError(error, outgoing);
    }
  },
  async *stream(method, request, outgoing) {
    const { timeoutMs, headers, onTrailer } = outgoing;
    const left = new AbortController();
    const signal = outgoing.signal ? AbortSignal.any([outgoing.signal, left.signal]) : left.signal;
    try {
      const { message, trailer } = await transport.stream(
        method,
        signal,
        timeoutMs,
        { ...headers },
        once(request as never),
      );
      yield* message;
      onTrailer?.(trailer);
    } catch (error) {
      throw sidecarError(error, outgoing);
    } finally {
      left.abort();
    }
  },
  // Connections are the transport's own.
  fresh() {
    return this;
  },
  close: () => {},
});

/** A client over a transport of Connect, gRPC-Web or gRPC, of Node or of a browser. */
export const connect = (transport: ConnectTransport, options: ClientOptions = {}): Client =>
  Connection.over(adapt(transport), options);
