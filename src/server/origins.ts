import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { isIP } from 'node:net';
import { cors } from '@connectrpc/connect';
import { type RpcError, refuse } from '../contract/errors.ts';
import { DECISIVE } from './headers.ts';
import { CONSISTENCY_TOKEN, INEXACT } from './reply.ts';

/** Whom the HTTP port answers. */
export interface WebRules {
  /** Names that a request may call this server by, or `*`; addresses in digits and the name it listens at are others. */
  readonly hosts: readonly string[];
  /** Origins of web pages that may call: `https://console.example`. */
  readonly origins: readonly string[];
  /** Where the port listens. Nobody calls a socket file by name, so there `Host` is free. */
  readonly listen: string;
}

type Request = IncomingMessage | Http2ServerRequest;
type Response = ServerResponse | Http2ServerResponse;

const distinct = (names: Iterable<string>): string =>
  [...new Set([...names].map((name) => name.toLowerCase()))].join(', ');

const ALLOWED_METHODS = cors.allowedMethods.join(', ');
const ALLOWED_HEADERS = distinct([...cors.allowedHeaders, ...DECISIVE, 'traceparent', 'tracestate']);
/** Connect sends the trailers of an answer that is no stream as headers with a prefix. */
const EXPOSED_HEADERS = distinct([
  ...cors.exposedHeaders,
  ...[INEXACT, CONSISTENCY_TOKEN].flatMap((name) => [name, `trailer-${name}`]),
]);
/** Characters that are told of a name that is refused. */
const TOLD = 128;
/** What a browser says of the site that asks where it is a person's own address bar, or this server. */
const OWN_SITES: ReadonlySet<string> = new Set(['none', 'same-origin']);
/** How long a browser need not ask again, seconds: the longest that one of them keeps. */
const PREFLIGHT_S = 7_200;

/** `Example.com.:8080` -> `example.com`, `[::1]:80` -> `::1`. */
const nameOf = (host: string): string =>
  host
    .toLowerCase()
    .replace(/:\d*$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '');

const valuesOf = (raw: readonly string[], ...names: readonly string[]): string[] => {
  const values: string[] = [];
  for (let at = 0; at < raw.length; at += 2) if (names.includes(raw[at]!.toLowerCase())) values.push(raw[at + 1]!);
  return values;
};

const hostsOf = (raw: readonly string[]): string[] => valuesOf(raw, 'host', ':authority');

/**
 * Keeps web pages that were not invited away from the HTTP port. A page whose name was made to lead here betrays itself
 * by that name in `Host`, and every other by its `Origin`, or where it asks by GET in the way of an image by
 * `Sec-Fetch-Site`: a browser sends all of them truly.
 */
export class WebGuard {
  readonly #hosts: ReadonlySet<string> | 'any';
  readonly #origins: ReadonlySet<string>;

  constructor({ hosts, origins, listen }: WebRules) {
    const any = hosts.includes('*') || listen.startsWith('unix:');
    this.#hosts = any ? 'any' : new Set([...hosts, listen].map(nameOf));
    this.#origins = new Set(origins);
  }

  /** Why a request is refused for the name it calls this server by; undefined for one that may go on. */
  strangerOf({ rawHeaders }: Request): RpcError | undefined {
    const stranger = hostsOf(rawHeaders).find((host) => !this.#knows(nameOf(host)));
    return stranger === undefined
      ? undefined
      : refuse('HOST_NOT_ALLOWED', 'this server is not called by that name: set SIDECAR_HTTP_HOSTS', {
          metadata: { host: stranger.slice(0, TOLD) },
        });
  }

  /** Why a call is refused; undefined for one that may go on. */
  problemOf(request: Request): RpcError | undefined {
    const stranger = this.strangerOf(request);
    if (stranger) return stranger;
    const { method, rawHeaders } = request;
    const hosts = hostsOf(rawHeaders);
    const origins = valuesOf(rawHeaders, 'origin');
    const uninvited = origins.find((origin) => !this.#origins.has(origin) && !isOwn(origin, hosts));
    if (uninvited !== undefined) {
      return refuse('ORIGIN_NOT_ALLOWED', 'pages of that origin may not call: set SIDECAR_HTTP_ORIGINS', {
        metadata: { origin: uninvited.slice(0, TOLD) },
      });
    }
    const nameless = method === 'GET' && origins.length === 0;
    return nameless && valuesOf(rawHeaders, 'sec-fetch-site').some((site) => !OWN_SITES.has(site))
      ? refuse('ORIGIN_NOT_ALLOWED', 'pages of other sites may not call without telling their origin')
      : undefined;
  }

  /**
   * Says to the browser of an invited page that it may have the answer.
   *
   * @returns true when the request was only the question whether the page may call, and has been answered.
   */
  welcome(request: Request, response: Response, problem: RpcError | undefined): boolean {
    const [origin] = valuesOf(request.rawHeaders, 'origin');
    if (origin === undefined) return false;
    response.setHeader('vary', 'origin');
    const invited = this.#origins.has(origin);
    if (invited) {
      response.setHeader('access-control-allow-origin', origin);
      response.setHeader('access-control-expose-headers', EXPOSED_HEADERS);
    }
    if (request.method !== 'OPTIONS' || problem) return false;
    if (invited) {
      response.setHeader('access-control-allow-methods', ALLOWED_METHODS);
      response.setHeader('access-control-allow-headers', ALLOWED_HEADERS);
      response.setHeader('access-control-max-age', PREFLIGHT_S);
    }
    response.statusCode = 204;
    response.end();
    return true;
  }

  /** An address cannot be made to lead elsewhere, so whoever calls by one means this server. */
  #knows(name: string): boolean {
    return this.#hosts === 'any' || this.#hosts.has(name) || isIP(name) !== 0;
  }
}

/** Whether a page came from this very server. */
const isOwn = (origin: string, hosts: readonly string[]): boolean =>
  hosts.length > 0 && hosts.every((host) => URL.canParse(origin) && new URL(origin).host === host.toLowerCase());
