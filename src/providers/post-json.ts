import { ProviderError } from '../drivers/recovery-matcher/services.ts';

/** One POST of JSON that is answered with JSON. */
export interface JsonPost {
  readonly url: string;
  /** May hold a key: neither they nor the answer ever get into an error. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  readonly timeoutMs: number;
  /** The caller's own end. */
  readonly signal: AbortSignal | undefined;
}

/** Longest answer that is read, bytes: a vector of several thousand numbers is far shorter. */
const LONGEST_ANSWER = 1_048_576;

/** The body of an answer as text; what is too long is not read to its end. */
const textOf = async (answer: Response): Promise<string> => {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of answer.body ?? []) {
    length += chunk.length;
    if (length > LONGEST_ANSWER) throw new ProviderError(`the answer is longer than ${LONGEST_ANSWER} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
};

const causeOf = (error: unknown): string => {
  const { cause, name } = error as Error;
  return (cause as NodeJS.ErrnoException | undefined)?.code ?? name;
};

/**
 * Posts JSON and reads the JSON it is answered with.
 *
 * @throws ProviderError when there is no answer in time, its status is not 200, or it is too long or no JSON; the
 *   signal's reason when the caller has gone.
 */
export const postJson = async ({ url, headers, body, timeoutMs, signal }: JsonPost): Promise<unknown> => {
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: JSON.stringify(body),
      // A redirect would take the key to another host.
      redirect: 'error',
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    if (answer.status !== 200) {
      await answer.body?.cancel();
      throw new ProviderError(`answered with status ${answer.status}`);
    }
    return JSON.parse(await textOf(answer));
  } catch (error) {
    if (error instanceof ProviderError) throw error;
    if (signal?.aborted) throw signal.reason;
    if (timeout.aborted) throw new ProviderError(`no answer within ${timeoutMs} ms`);
    throw new ProviderError(error instanceof SyntaxError ? 'the answer is no JSON' : `no answer: ${causeOf(error)}`);
  }
};

/** URL of a path below a base URL, which may end in a slash. */
export const below = (base: string, path: string): string => `${base.replace(/\/+$/, '')}/${path}`;
