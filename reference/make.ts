import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { readContract } from './contract.ts';
import { page } from './markup.ts';
import { openApiOf } from './openapi.ts';
import { pagesOf } from './pages.ts';

const ROOT = join(import.meta.dirname, '..');
const STATIC = join(import.meta.dirname, 'static');
/** The package that calls are tried with. */
export const EXPLORER = join(ROOT, 'node_modules', 'swagger-ui-dist');
const TAKEN = ['swagger-ui-bundle.js', 'swagger-ui-bundle.js.LICENSE.txt', 'swagger-ui.css'];

/** Writes the reference, the OpenAPI document, the explorer and the page of the state into a folder of their own. */
export const makeReference = (folder: string): void => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const files = readContract();
  for (const [name, html] of pagesOf(files)) writeFileSync(join(folder, name), html);
  writeFileSync(join(folder, 'openapi.json'), JSON.stringify(openApiOf(files)));
  for (const name of TAKEN) cpSync(join(EXPLORER, name), join(folder, name));
  for (const name of readdirSync(STATIC)) {
    if (!name.endsWith('.html')) cpSync(join(STATIC, name), join(folder, name));
  }
  const body = (name: string): string => readFileSync(join(STATIC, name), 'utf8');
  const scripts = (...names: readonly string[]): string =>
    names.map((name) => `<script src="${name}" defer></script>\n`).join('');
  const swagger = '<link rel="stylesheet" href="swagger-ui.css">\n<link rel="stylesheet" href="explorer.css">\n';
  writeFileSync(
    join(folder, 'explorer.html'),
    page('Explorer', body('explorer.html'), 'explorer', swagger + scripts('swagger-ui-bundle.js', 'explorer.js')),
  );
  writeFileSync(join(folder, 'state.html'), page('State', body('state.html'), 'state', scripts('state.js')));
};

if (basename(process.argv[1] ?? '') === 'make.ts') makeReference(resolve(process.argv[2] ?? join(ROOT, 'src', 'docs')));
