import type { DescField, DescMethod } from '@bufbuild/protobuf';
import { refuse } from './errors.ts';

const typeOf = ({ message, scalar }: DescField): string | number | undefined => message?.typeName ?? scalar;

/** The RPC that streams what a list returns: of its service, named after it, a response for each of its elements. */
export const streamingTwin = ({ name, output, parent }: DescMethod): DescMethod | undefined => {
  const named = name.replace(/^[A-Z][a-z]+/, 'Stream');
  const lists = output.fields.filter(({ fieldKind }) => fieldKind === 'list').map(typeOf);
  return parent.methods.find(
    (other) =>
      other.methodKind === 'server_streaming' &&
      other.name === named &&
      other.output.fields.some((field) => lists.includes(typeOf(field))),
  );
};

/** What a caller can do instead. */
const adviceFor = (method: DescMethod, twin: DescMethod | undefined): string => {
  if (twin) return `; ${twin.name} brings its rows one by one`;
  const isPaged = method.input.fields.some(({ name }) => name === 'page_token');
  return isPaged ? '; ask for less by limit, and for the rest by page_token' : '';
};

/** How many bytes the one response of a call is, as protobuf, whatever form it is sent in; and how many it may be. */
export class ResponseSize {
  readonly #method: DescMethod;
  #taken = 0;
  #limit: number;

  /** @param limit bytes that it may have; infinite where nothing is refused. */
  constructor(method: DescMethod, limit: number) {
    this.#method = method;
    this.#limit = limit;
  }

  /** Bytes that it may have. */
  get limit(): number {
    return this.#limit;
  }

  /** From now on nothing is refused: what the response tells of has been done, and stays so. */
  waive(): void {
    this.#limit = Number.POSITIVE_INFINITY;
  }

  /**
   * Looks whether so many bytes more are still allowed.
   *
   * @throws RESOURCE_EXHAUSTED `RESPONSE_TOO_LARGE` that names the limit, and what to call instead.
   */
  hold(bytes: number): void {
    if (this.#taken + bytes <= this.limit) return;
    const twin = streamingTwin(this.#method);
    throw refuse(
      'RESPONSE_TOO_LARGE',
      `the response has more than the ${this.limit} bytes that it may have${adviceFor(this.#method, twin)}`,
      {
        metadata: {
          limit: String(this.limit),
          ...(twin ? { streaming_rpc: `${twin.parent.typeName}/${twin.name}` } : {}),
        },
      },
    );
  }

  /** As {@link ResponseSize.hold}, of bytes that stay. */
  take(bytes: number): void {
    this.hold(bytes);
    this.#taken += bytes;
  }

  /** Forgets what an attempt that is made again has taken. */
  clear(): void {
    this.#taken = 0;
  }
}
