import { base64Decode } from '@bufbuild/protobuf/wire';
import type { RpcError } from '../contract/errors.ts';
import { malformed } from './decode.ts';

/** The request of a call by GET, which stands in its address. */
export interface Query {
  /** How it is compressed, if it is. */
  readonly encoding: string | undefined;
  readonly bytes: number;
  readonly json: boolean;
  /** What the library would take for another text, or for a fault of its own. */
  readonly problem: RpcError | undefined;
}

const problemOf = (query: string, parameters: URLSearchParams): RpcError | undefined => {
  try {
    decodeURIComponent(query);
  } catch {
    return malformed('the address holds what is no percent-encoded UTF-8');
  }
  if (parameters.get('base64') !== '1') return undefined;
  try {
    base64Decode(parameters.get('message') ?? '');
    return undefined;
  } catch {
    return malformed('`message` is no base64');
  }
};

/** Reads what of a call by GET its address holds. */
export const readQuery = (url: string): Query => {
  const at = url.indexOf('?');
  const query = at === -1 ? '' : url.slice(at + 1);
  const parameters = new URLSearchParams(query);
  return {
    encoding: parameters.get('compression') ?? undefined,
    bytes: query.length,
    json: parameters.get('encoding') === 'json',
    problem: problemOf(query, parameters),
  };
};
