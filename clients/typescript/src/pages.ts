import type { CallOptions } from './stubs.ts';

/**
 * The answers of a list one after the other, each where the last one ended; the limit of the request is the size of a page.
 *
 * @param call a listing call of a stub, such as `client.policyEngine.fetchViolations`.
 */
export async function* pages<Q extends { pageToken?: string }, A extends { nextPageToken?: string }>(
  call: (request: Q, options?: CallOptions) => Promise<A>,
  request: NoInfer<Q>,
  options?: CallOptions,
): AsyncGenerator<A> {
  for (let next: Q = request; ; ) {
    const answer = await call(next, options);
    yield answer;
    if (!answer.nextPageToken) return;
    next = { ...request, pageToken: answer.nextPageToken };
  }
}
