import { readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { readContract } from '../../reference/contract.ts';
import { openApiOf } from '../../reference/openapi.ts';
import { browserAvailable, PROGRAM } from '../support/browser.ts';
import { endAll, startCommand } from '../support/command.ts';
import { tokenLine } from '../support/token-line.ts';
import { useDatabase, useFolder } from '../support/use.ts';

if (!browserAvailable) console.log('no Chromium here: the explorer is not tested');

const FOLDER = join(dirname(inject('program')), 'docs');
const TOKEN = 'secret-a';

const database = useDatabase();
const tokensFile = join(useFolder(), 'tokens');
/** `http://host:port` of a server that lets everybody in, of one that wants a token, and of one without pages. */
let origin: string;
let locked: string;
let bare: string;
beforeAll(async () => {
  await writeFile(tokensFile, tokenLine('ann', TOKEN));
  const start = async (env: Readonly<Record<string, string>>): Promise<string> =>
    `http://${(await startCommand(['serve'], { DATABASE_URL: database.url, ...env }).serving()).http}`;
  [origin, locked, bare] = await Promise.all([
    start({}),
    start({ SIDECAR_TOKENS_FILE: tokensFile }),
    start({ SIDECAR_DOCS: 'off' }),
  ]);
});
afterAll(endAll);

/** A GET as it is written, which `fetch` would tidy up. */
const get = (path: string, headers: Readonly<Record<string, string>> = {}) =>
  new Promise<{ status: number | undefined; text: string }>((resolve, reject) => {
    const { hostname, port } = new URL(origin);
    const call = request({ hostname, port, path, headers }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode, text }));
    });
    call.on('error', reject).end();
  });

describe('the pages', () => {
  test('stand at /docs, run nothing but their own files, and are asked for anew when they have changed', async () => {
    const first = await fetch(`${origin}/docs`);
    expect(first.url).toBe(`${origin}/docs/`);
    expect(await first.text()).toContain('<h1>policy-sidecar</h1>');
    const headers = Object.fromEntries(first.headers);
    expect(headers).toMatchObject({ 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-cache' });
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self';/);
    expect(headers['content-security-policy']).not.toContain('unsafe');
    const again = await fetch(first.url, { headers: { 'if-none-match': headers['etag']! } });
    expect(again.status).toBe(304);
  });

  test('bring the OpenAPI document of the contract as it is', async () => {
    const served = await (await fetch(`${origin}/docs/openapi.json`)).json();
    expect(served).toEqual(JSON.parse(JSON.stringify(openApiOf(readContract()))));
  });

  test('need no token, answer to names that the server knows, and may be linked to from elsewhere', async () => {
    expect((await fetch(`${locked}/docs/`)).status).toBe(200);
    const stranger = await get('/docs/', { host: 'evil.example' });
    expect(stranger).toMatchObject({ status: 403, text: expect.stringContaining('HOST_NOT_ALLOWED') });
    expect((await get('/docs/', { 'sec-fetch-site': 'cross-site' })).status).toBe(200);
  });

  test.each([
    '/docs/../start.js',
    '/docs/..%2fstart.js',
    '/docs/%2e%2e/start.js',
    '/docs/.',
    '/docs/a/b.html',
    '/docs/none.html',
    '/docs//etc/passwd',
    '/docs/constructor',
    '/docsx',
  ])('there is no %s', async (path) => {
    expect((await get(path)).status).toBe(404);
  });

  test('can be switched off', async () => {
    expect((await fetch(`${bare}/docs/`)).status).toBe(404);
  });

  test('every link in them leads to something', () => {
    const pages = readdirSync(FOLDER).filter((name) => name.endsWith('.html'));
    const ids = new Map<string, Set<string>>();
    const targets = new Set<string>();
    for (const name of pages) {
      const html = readFileSync(join(FOLDER, name), 'utf8');
      const found = [...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id!);
      ids.set(name, new Set(found));
      expect({ name, twice: found.filter((id, at) => found.indexOf(id) !== at) }).toEqual({ name, twice: [] });
      for (const [, href = ''] of html.matchAll(/(?:href|src)="(?!data:)([^"]+)"/g)) {
        targets.add(href.startsWith('#') ? `${name}${href}` : href);
      }
    }
    const { paths } = openApiOf(readContract()) as { paths: Record<string, { post: { operationId: string } }> };
    const operations = new Set(Object.values(paths).map(({ post }) => post.operationId));
    const broken = [...targets].filter((target) => {
      const [file = '', anchor] = target.split('#');
      if (!readdirSync(FOLDER).includes(file)) return true;
      if (anchor === undefined) return false;
      return !(anchor.startsWith('/') ? operations.has(anchor.split('/').at(-1)!) : ids.get(file)?.has(anchor));
    });
    expect(targets.size).toBeGreaterThan(400);
    expect(broken).toEqual([]);
  });
});

describe.skipIf(!browserAvailable)('in a real browser', () => {
  let browser: Browser;
  let page: Page;
  let problems: string[];
  beforeAll(async () => {
    browser = await puppeteer.launch({
      executablePath: PROGRAM!,
      args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-proxy-server'],
    });
    page = await browser.newPage();
    page.setDefaultTimeout(60_000);
    page.on('console', (message) => problems.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => problems.push(String(error)));
    page.on('request', (asked) => {
      const { origin: at, protocol } = new URL(asked.url());
      if (at !== origin && at !== locked && protocol !== 'data:') problems.push(`asked ${asked.url()}`);
    });
  });
  afterAll(() => browser?.close());

  const open = async (url: string): Promise<void> => {
    problems = [];
    // From elsewhere, or a new anchor alone would not load it again.
    await page.goto('about:blank');
    await page.goto(url);
  };

  /** Goes on by the key of the keyboard that does so until what matches has the focus. */
  const tabTo = async (selector: string): Promise<void> => {
    const seen: string[] = [];
    while (!(await page.$(`${selector}:focus`))) {
      seen.push(String(await page.evaluate('document.activeElement?.outerHTML.slice(0, 80)')));
      if (seen.length > 100) throw new Error(`the keyboard does not lead to ${selector}:\n${seen.join('\n')}`);
      await page.keyboard.press('Tab');
    }
  };

  const textOf = (selector: string): Promise<string> =>
    page.$eval(selector, (found) => (found as unknown as { readonly innerText: string }).innerText);

  test.each([
    ['index.html', 'h2'],
    ['policy_engine.html', 'section.rpc'],
    ['explorer.html', '.opblock-tag'],
    ['state.html', '#services li'],
  ])('%s is drawn at any width, in light and dark, without an error or a request elsewhere', async (name, selector) => {
    const ground = (): Promise<unknown> => page.evaluate('getComputedStyle(document.body).backgroundColor');
    const grounds: unknown[] = [];
    await open(`${origin}/docs/${name}`);
    await page.waitForSelector(selector);
    for (const [width, value] of [
      [1280, 'light'],
      [390, 'dark'],
    ] as const) {
      await page.setViewport({ width, height: 900 });
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value }]);
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
      // A page that is still busy takes another scheme a moment later, and its script hears of it later still.
      await page.waitForFunction(`matchMedia('(prefers-color-scheme: ${value})').matches`);
      await vi.waitFor(async () => expect(grounds).not.toContain(await ground()));
      grounds.push(await ground());
    }
    expect(problems).toEqual([]);
  });

  // Story: whoever pressed Execute as soon as it was there, a third of a second before the fields were, got nothing at all.
  test('the keyboard alone finds an RPC, sends it, and the answer is shown', async () => {
    await open(`${origin}/docs/explorer.html`);
    await page.waitForSelector('.operation-filter-input');
    await tabTo('.operation-filter-input');
    await page.keyboard.type('fetchriskceil');
    await page.waitForFunction("document.querySelectorAll('.opblock').length === 1");
    await tabTo('.opblock-summary-control');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.btn.execute', { visible: true });
    await tabTo('.btn.execute');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.live-responses-table .response');
    expect(await textOf('.live-responses-table')).toContain('hourly_cost_ceiling');
    expect(await textOf('#said')).toMatch(/^Answer: 200/);
    expect(problems).toEqual([]);
  });

  test('a refusal is shown with its details, and the header `transaction` takes the write along', async () => {
    await open(`${origin}/docs/explorer.html#/PolicyEngineService/PolicyEngineService.ResetRiskCeiling`);
    await page.locator('.btn.execute').click();
    await page.waitForSelector('.live-responses-table .response');
    expect(await textOf('.live-responses-table')).toMatch(/failed_precondition[\s\S]*TRANSACTION_REQUIRED/);
    await page.type('input[placeholder="transaction"]', 'single-use');
    await page.locator('.btn.execute').click();
    await page.waitForSelector(
      '::-p-xpath(//*[contains(@class, "live-responses-table")]//tr[@class="response"]/td[normalize-space()="200"])',
    );
    expect(await textOf('.live-responses-table .response .response-col_description')).toContain('{}');
  });

  test('a stream is listed, and cannot be tried', async () => {
    await open(`${origin}/docs/explorer.html#/PolicyEngineService/PolicyEngineService.StreamRiskCeilings`);
    await page.waitForSelector('.opblock.is-open .opblock-description');
    expect(await textOf('.opblock.is-open .opblock-description')).toContain('A stream');
    expect(await page.$('.btn.execute')).toBeNull();
  });

  test('one page tells health and the open transactions, to who has a token where tokens are wanted', async () => {
    const begun = await fetch(`${locked}/hoc.cus.policies.v1.TransactionService/Begin`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${TOKEN}` },
      body: JSON.stringify({ label: '<b>nightly</b>' }),
    });
    expect(begun.status).toBe(200);
    await open(`${locked}/docs/state.html`);
    await page.waitForFunction("document.querySelector('#said').textContent.includes('unauthenticated')");
    expect(await textOf('#services')).toMatch(/^SERVING the server as a whole/);
    await tabTo('#token');
    await page.keyboard.type(TOKEN);
    await page.keyboard.press('Enter');
    await page.waitForFunction("document.querySelector('#said').textContent.endsWith('1 open transaction')");
    expect(await textOf('#open')).toMatch(/^OPEN <b>nightly<\/b>[\s\S]*caller\s+ann/);
  });
});
