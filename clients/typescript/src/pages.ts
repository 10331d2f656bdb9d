import type { CallOptions } from './stubs.ts';

type List = (request: never, options?: CallOptions) => Promise<{ nextPageToken?: string | undefined }>;

/**
 * The answers of a list one after the other, each where the last one ended; the limit of the request is the size of a page.
 *
 * @param call a listing call of a stub, such as `client.policyEngine.fetchViolations`.
 */
export async function* pages<L extends List>(
  call: L,
  request: Parameters<L>[0],
  options?: CallOptions,
): AsyncGenerator<Awaited<ReturnType<L>>> {
  for (let next = request; ; ) {
    const answer = (await call(next as never, options)) as Awaited<ReturnType<L>>;
    yield answer;
    if (!answer.nextPageToken) return;
    next = { ...(request as object), pageToken: answer.nextPageToken } as typeof request;
  }
}
