import { existsSync, globSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildCheckout, type Checkout } from '../support/package.ts';

let checkout: Checkout;
let root: string;
beforeAll(async () => {
  checkout = await buildCheckout();
  const { stdout } = await checkout.run('npm', ['pack', '--json', '--ignore-scripts']);
  const [{ filename }] = Object.values(JSON.parse(stdout)) as { filename: string }[] as [{ filename: string }];
  const folder = join(checkout.scratch, 'unpacked');
  await mkdir(folder);
  await checkout.run('tar', ['-xzf', join(checkout.path, filename), '-C', folder]);
  root = join(folder, 'package');
});
afterAll(() => checkout.remove());

/** The anchors of a page's headings, as they are made of their text. */
const anchorsOf = (page: string): string[] =>
  [...page.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );

/** Links of a page that lead to no other site; what is code is none. */
const linksOf = (page: string): string[] =>
  [...page.replace(/^```.*?^```$/gms, '').matchAll(/\]\((?!https?:)([^)\s]+)\)/g)].map(([, link]) => link!);

// Story: pages of the package linked to tests, to the source and to clients, which only a checkout has.
test('every link of its pages leads to what it holds, and to a heading that is there', () => {
  const pages = globSync(['*.md', 'docs/*.md'], { cwd: root });
  expect(pages).toEqual(expect.arrayContaining(['README.md', 'SECURITY.md', 'docs/security.md']));
  const broken: string[] = [];
  let seen = 0;
  for (const page of pages) {
    const text = readFileSync(join(root, page), 'utf8');
    for (const link of linksOf(text)) {
      seen += 1;
      const [file, anchor] = link.split('#') as [string, string?];
      const target = file === '' ? join(root, page) : join(root, dirname(page), file);
      const leads = existsSync(target) && (!anchor || anchorsOf(readFileSync(target, 'utf8')).includes(anchor));
      if (!leads) broken.push(`${page}: ${link}`);
    }
  }
  expect(broken).toEqual([]);
  expect(seen).toBeGreaterThan(50);
});

test('it holds the schema that docs/security.md gives to an editor', () => {
  const schema = JSON.parse(readFileSync(join(root, 'docs', 'authorization.schema.json'), 'utf8'));
  expect(schema.properties).toHaveProperty('identities');
});
