import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { extname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { PROGRAM_FOLDER } from '../place.ts';
import { VERSION } from '../version.ts';

/** What `npm run generate` and `npm run build` make of the contract: files of one folder, read when they are asked for. */
const FOLDER = join(PROGRAM_FOLDER, 'docs');

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.txt': 'text/plain; charset=utf-8',
};

/**
 * Nothing runs or is drawn in these pages but files of this folder; they talk to this server alone, and stand in no other
 * page. Swagger UI has its pictures in its style sheet.
 */
const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  // The browser asks whether what it has is still what there is.
  'cache-control': 'no-cache',
};

type Request = Pick<IncomingMessage, 'method' | 'url' | 'headers'>;

const PATH = /^\/docs(?:\/([\w-]+(?:\.[\w-]+)+)?)?(?:\?.*)?$/;

/** Whether a request is for one of the pages. */
export const wantsDocs = ({ method, url = '' }: Request): boolean =>
  (method === 'GET' || method === 'HEAD') && PATH.test(url);

const refuse = (response: ServerResponse, text: string): void => {
  response.writeHead(404, { ...HEADERS, 'content-type': TYPES['.txt'] });
  response.end(text);
};

const send = async (file: FileHandle, name: string, request: Request, response: ServerResponse): Promise<void> => {
  const { size, mtimeMs } = await file.stat();
  // All files of a package bear one time.
  const etag = `"${VERSION}-${size.toString(36)}-${Math.trunc(mtimeMs).toString(36)}"`;
  const known = request.headers['if-none-match'] === etag;
  const length = known ? {} : { 'content-length': size };
  response.writeHead(known ? 304 : 200, { ...HEADERS, 'content-type': TYPES[extname(name)], etag, ...length });
  if (known || request.method === 'HEAD') {
    response.end();
    await file.close();
  } else {
    await pipeline(file.createReadStream(), response);
  }
};

/** Answers a request for one of the pages. A reader that leaves is no fault. */
export const answerDocs = async (request: Request, response: ServerResponse): Promise<void> => {
  const { url = '' } = request;
  if (!url.startsWith('/docs/')) {
    response.writeHead(308, { location: 'docs/' }).end();
    return;
  }
  const name = PATH.exec(url)?.[1] ?? 'index.html';
  const type = TYPES[extname(name)];
  const file = type === undefined ? undefined : await open(join(FOLDER, name)).catch(() => undefined);
  if (!file) {
    refuse(response, 'there is no such page; in a checkout `npm run generate` makes them\n');
    return;
  }
  await send(file, name, request, response).catch(() => response.destroy());
};
