import { createServer } from 'node:net';
import { beforeEach, describe, expect, test } from 'vitest';
import { ProviderError } from '../../src/drivers/recovery-matcher/services.ts';
import { anthropicModel } from '../../src/providers/anthropic.ts';
import { openAiEmbeddings } from '../../src/providers/embeddings.ts';
import { memoryCache } from '../../src/providers/memory-cache.ts';
import { createProviders } from '../../src/providers/providers.ts';
import { startProvider } from '../support/provider.ts';
import { useStarted } from '../support/use.ts';

const provider = useStarted(startProvider, ({ close }) => close());
beforeEach(() => {
  provider.requests.length = 0;
});

const KEY = 'key-that-nobody-may-see';
const BODY = 'body-that-nobody-may-see';

const KINDS = {
  embeddings: {
    good: { data: [{ object: 'embedding', index: 0, embedding: [0.5, -1e-9, 3] }] },
    result: [0.5, -1e-9, 3] as unknown,
    ask: (url: string, timeoutMs?: number, signal?: AbortSignal): Promise<unknown> =>
      openAiEmbeddings({ url: `${url}/v1/`, key: KEY, model: 'm', ...(timeoutMs ? { timeoutMs } : {}) }).embed(
        'text',
        signal,
      ),
    bad: [
      null,
      [],
      {},
      { data: null },
      { data: [] },
      { data: [{}] },
      { data: [{ embedding: [] }] },
      { data: [{ embedding: 'AAAA' }] },
      { data: [{ embedding: [1, null] }] },
      { data: [{ embedding: ['1'] }] },
    ] as unknown[],
  },
  model: {
    good: {
      id: 'msg',
      type: 'message',
      content: [
        { type: 'text', text: 'hello' },
        { type: 'text', text: 'more' },
      ],
    },
    result: 'hello' as unknown,
    ask: (url: string, timeoutMs?: number, signal?: AbortSignal): Promise<unknown> =>
      anthropicModel({ url, key: KEY, model: 'm', ...(timeoutMs ? { timeoutMs } : {}) }).complete('prompt', signal),
    bad: [null, [], {}, { content: null }, { content: [] }, { content: 'x' }, { content: [{ text: 7 }] }] as unknown[],
  },
};

const failure = async (asked: Promise<unknown>): Promise<ProviderError> => {
  const error = await asked.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ProviderError);
  const shown = `${(error as Error).stack} ${JSON.stringify(error)}`;
  expect(shown).not.toContain(KEY);
  expect(shown).not.toContain(BODY);
  return error as ProviderError;
};

describe.each(Object.entries(KINDS))('%s', (_kind, { good, result, ask, bad }) => {
  test('the answer', async () => {
    provider.answer = { json: good };
    expect(await ask(provider.url)).toEqual(result);
  });

  test.each(bad.map((json) => [JSON.stringify(json), json] as const))('%s is no answer', async (_name, json) => {
    provider.answer = { json };
    expect((await failure(ask(provider.url))).message).toMatch(/^the answer (holds|has) no /);
  });

  test.each([201, 204, 400, 401, 429, 500, 529])('status %d', async (status) => {
    provider.answer = { status, json: { ...good, error: BODY } };
    expect((await failure(ask(provider.url))).message).toBe(`answered with status ${status}`);
  });

  test.each(['', '{', `<html>${BODY}</html>`])('a body that is no JSON: %j', async (text) => {
    provider.answer = { text };
    expect((await failure(ask(provider.url))).message).toBe('the answer is no JSON');
  });

  test('a redirect is not followed', async () => {
    provider.answer = { status: 307, headers: { location: `${provider.url}/elsewhere` }, json: good };
    await failure(ask(provider.url));
    expect(provider.requests).toHaveLength(1);
  });

  test('silence', async () => {
    provider.answer = { silent: true };
    expect((await failure(ask(provider.url, 100))).message).toBe('no answer within 100 ms');
  });

  // It was read for as long as the provider had time, into memory.
  test.each([200, 500])('an answer without end, status %d', async (status) => {
    provider.answer = { status, endless: true, text: BODY.repeat(1_000) };
    provider.said = 0;
    const { message } = await failure(ask(provider.url));
    expect(message).toBe(status === 200 ? 'the answer is longer than 1048576 bytes' : 'answered with status 500');
    expect(provider.said).toBeLessThan(32 * 1_048_576);
  });

  test('nobody there, or somebody who hangs up', async () => {
    const server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    expect((await failure(ask(`http://127.0.0.1:${port}`))).message).toMatch(/^no answer: /);
    await new Promise((resolve) => server.close(resolve));
    expect((await failure(ask(`http://127.0.0.1:${port}`))).message).toBe('no answer: ECONNREFUSED');
  });

  test("the caller's end is not the provider's failure", async () => {
    provider.answer = { silent: true };
    const reason = new Error('gone');
    const caller = new AbortController();
    setTimeout(() => caller.abort(reason), 50);
    await expect(ask(provider.url, undefined, caller.signal)).rejects.toBe(reason);
    await expect(ask(provider.url, undefined, AbortSignal.abort(reason))).rejects.toBe(reason);
  });
});

test('what the model is sent', async () => {
  provider.answer = { json: KINDS.model.good };
  await KINDS.model.ask(`${provider.url}/`);
  expect(provider.requests).toMatchObject([
    {
      method: 'POST',
      path: '/v1/messages',
      headers: { 'x-api-key': KEY, 'anthropic-version': '2023-06-01', 'content-type': 'application/json' },
      body: { model: 'm', max_tokens: 500, messages: [{ role: 'user', content: 'prompt' }] },
    },
  ]);
});

test('what the embedding endpoint is sent, with a key and without', async () => {
  provider.answer = { json: KINDS.embeddings.good };
  await KINDS.embeddings.ask(provider.url);
  await openAiEmbeddings({ url: `${provider.url}/v1`, key: undefined, model: 'm' }).embed('text', undefined);
  expect(provider.requests).toMatchObject([
    {
      method: 'POST',
      path: '/v1/embeddings',
      headers: { authorization: `Bearer ${KEY}` },
      body: { model: 'm', input: 'text', encoding_format: 'float' },
    },
    { path: '/v1/embeddings' },
  ]);
  expect(provider.requests[1]!.headers).not.toHaveProperty('authorization');
});

test('only what is configured is there', async () => {
  const settings = {
    redisUrl: undefined,
    anthropicApiKey: undefined,
    llmUrl: provider.url,
    llmModel: 'm',
    embeddingUrl: undefined,
    embeddingKey: KEY,
    embeddingModel: 'm',
  };
  const none = createProviders(settings, () => {});
  expect([none.embeddings, none.model]).toEqual([undefined, undefined]);
  await none.cache.set('k', 'v', 1);
  expect(await none.cache.get('k')).toBe('v');
  none.close();
  const both = createProviders({ ...settings, anthropicApiKey: KEY, embeddingUrl: provider.url }, () => {});
  expect([typeof both.embeddings, typeof both.model]).toEqual(['object', 'object']);
  both.close();
});

describe('the cache of a process', () => {
  test('keeps a value for its time', async () => {
    let now = 1_000;
    const cache = memoryCache({}, () => now);
    await cache.set('k', 'v', 2);
    now = 2_999;
    expect(await cache.get('k')).toBe('v');
    await cache.set('k', 'w', 1);
    now = 3_998;
    expect(await cache.get('k')).toBe('w');
    now = 4_000;
    expect(await cache.get('k')).toBe(undefined);
    expect(await cache.get('none')).toBe(undefined);
  });

  test('drops what was not asked for the longest', async () => {
    const cache = memoryCache({ maxEntries: 2 });
    await cache.set('a', '1', 60);
    await cache.set('b', '2', 60);
    await cache.get('a');
    await cache.set('c', '3', 60);
    expect([await cache.get('a'), await cache.get('b'), await cache.get('c')]).toEqual(['1', undefined, '3']);
    await cache.set('c', '4', 60);
    expect([await cache.get('a'), await cache.get('c')]).toEqual(['1', '4']);
  });

  // Entries alone were counted, however long a model's reasoning was.
  test('holds so many characters and no more', async () => {
    const cache = memoryCache({ maxCharacters: 10 });
    await cache.set('a', '12345', 60);
    await cache.set('b', '12345', 60);
    expect([await cache.get('b'), await cache.get('a')]).toEqual(['12345', '12345']);
    await cache.set('b', '123', 60);
    await cache.set('c', '12', 60);
    expect([await cache.get('a'), await cache.get('b'), await cache.get('c')]).toEqual(['12345', '123', '12']);
    await cache.set('d', '1', 60);
    expect([await cache.get('a'), await cache.get('b'), await cache.get('d')]).toEqual([undefined, '123', '1']);
    await cache.set('e', '12345678901', 60);
    expect([await cache.get('b'), await cache.get('e')]).toEqual(['123', undefined]);
    await cache.set('f', '1234567890', 60);
    expect(await cache.get('f')).toBe('1234567890');
  });
});
