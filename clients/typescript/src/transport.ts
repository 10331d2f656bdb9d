import type { DescMessage, DescMethodServerStreaming, DescMethodUnary, MessageShape } from '@bufbuild/protobuf';

/** One call, as it goes out. */
export interface Outgoing {
  readonly headers: Readonly<Record<string, string>>;
  /** Milliseconds; absent: no deadline. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** True to wait for a connection, where the transport has connections, instead of failing for want of one. */
  readonly waits: boolean;
  readonly onTrailer?: ((trailer: Headers) => void) | undefined;
}

/** What carries calls to a sidecar. It throws nothing but `SidecarError`. */
export interface Transport {
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    outgoing: Outgoing,
  ): Promise<MessageShape<O>>;
  /** Leaving the iteration cancels the call. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    outgoing: Outgoing,
  ): AsyncIterable<MessageShape<O>>;
  /** The same sidecar by a connection of its own, for what must not rest on one that may be dead. */
  fresh(): Transport;
  close(): void;
}
