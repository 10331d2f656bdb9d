import { existsSync, globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, test } from 'vitest';
import { migrations } from '../migrations/index.ts';

const ROOT = join(import.meta.dirname, '..');
const LONGEST = 300;

/** Files that may be longer, and why. */
const LONGER: Readonly<Record<string, string>> = {
  'src/database/connection.ts': 'one backend and all that it may be asked',
  'src/server/json.ts': 'one format',
  'src/settings.ts': 'one setting after the other',
  'src/transactions/transaction.ts': 'one transaction from its beginning to every end it may have',
};

/** Drivers whose RPCs are tested together with those of a sibling. */
const TESTED_IN: Readonly<Record<string, string>> = {
  'policy-proposal-read': 'proposals',
  'policy-proposal-write': 'proposals',
  'proposals-read': 'proposals',
  'policy-rules-read': 'policy-rules',
};

const sources = globSync('src/**/*.ts', { cwd: ROOT }).filter((path) => !path.startsWith('src/gen/'));

/** What lies in the drivers' room besides what a driver is and the list of all of them. */
const drivers = globSync('src/drivers/*', { cwd: ROOT })
  .map((path) => basename(path, '.ts'))
  .filter((name) => name !== 'driver' && name !== 'drivers');

test('the list of migrations is that of their files, oldest first', () => {
  const files = globSync('migrations/Migration*.ts', { cwd: ROOT }).map((path) => basename(path, '.ts'));
  expect(Object.keys(migrations)).toEqual(files.sort());
  expect(Object.values(migrations).map(({ name }) => name)).toEqual(files.sort());
});

test('no two source files share a name', () => {
  const names = sources.map((path) => basename(path));
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
});

test('a source file is short, or says here why it is not', () => {
  const long = sources.filter((path) => readFileSync(join(ROOT, path), 'utf8').trimEnd().split('\n').length > LONGEST);
  expect(long.sort()).toEqual(Object.keys(LONGER).sort());
});

test('there are fourteen drivers, and a folder is entered by the file of its name', () => {
  expect(drivers).toHaveLength(14);
  const entry = (name: string): boolean =>
    [`${name}.ts`, `${name}/${name}.ts`].some((path) => existsSync(join(ROOT, 'src/drivers', path)));
  expect(drivers.filter((name) => !entry(name))).toEqual([]);
});

test('every driver has the contract of its name', () => {
  const contracts = globSync('proto/hoc/**/*.proto', { cwd: ROOT }).map((path) => basename(path, '.proto'));
  expect(drivers.filter((name) => !contracts.includes(name.replaceAll('-', '_')))).toEqual([]);
});

test('every driver has its contract tests', () => {
  const tests = globSync('test/contract/*', { cwd: ROOT }).map((path) => basename(path).split('.')[0]);
  expect(drivers.filter((name) => !tests.includes(TESTED_IN[name] ?? name))).toEqual([]);
});
