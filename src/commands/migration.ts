import type { Config } from '../config.ts';
import {
  findingText,
  migrateCheck,
  migrateUp,
  migrationStatus,
  SchemaError,
  withClient,
} from '../database/migrate/migrate.ts';
import { expectRole, grantServing } from '../database/migrate/serving-rights.ts';
import { migrateTenants } from '../database/migrate/tenant-policies.ts';
import { EXIT } from '../exit.ts';
import { ConfigError } from '../setting-forms.ts';
import { say, tell } from './output.ts';
import { patiently } from './patience.ts';
import { openSource } from './source.ts';

type Action = (url: string, config: Config) => Promise<number>;

const up: Action = async (url, { servingRole }) => {
  if (servingRole !== undefined) await expectRole(url, servingRole);
  const applied = await migrateUp(url, { say: tell, onApplied: (name) => say(`applied ${name}`) });
  if (applied.length === 0) say('nothing to apply');
  if (servingRole === undefined) return EXIT.done;
  const given = await grantServing(url, servingRole, tell);
  say(given === 0 ? `nothing to grant to ${servingRole}` : `granted ${given} right(s) to ${servingRole}`);
  return EXIT.done;
};

const status: Action = async (url) => {
  const { executed, pending, unknown } = await migrationStatus(url);
  for (const { name, at } of executed) say(`applied  ${name}  ${at}`);
  for (const name of pending) say(`pending  ${name}`);
  for (const name of unknown) say(`newer    ${name}`);
  return pending.length > 0 ? EXIT.olderSchema : EXIT.done;
};

const check: Action = async (url) => {
  const findings = await migrateCheck(url);
  for (const finding of findings) say(findingText(finding));
  if (findings.length === 0) say('nothing to change');
  return findings.some(({ level }) => level === 'stop') ? EXIT.no : EXIT.done;
};

const tenants: Action = async (url) => {
  const { pending } = await migrationStatus(url);
  if (pending.length > 0) throw new SchemaError(pending.length);
  await migrateTenants(url, { say: tell });
  say('callers can be bound to tenants');
  return EXIT.done;
};

const ACTIONS: Readonly<Record<string, Action>> = { up, status, check, tenants };

/** `migrate up | status | check | tenants`. */
export const migrate = async (name: string | undefined, config: Config): Promise<number> => {
  const action = name !== undefined && Object.hasOwn(ACTIONS, name) ? ACTIONS[name] : undefined;
  if (!action) throw new ConfigError('migrate takes `up`, `status`, `check` or `tenants`');
  const source = await openSource(config);
  try {
    await patiently(
      config.databaseWaitMs,
      () => withClient(source.url, async () => {}),
      (problem) => tell(`${problem}; it is waited for`),
    );
    return await action(source.url, config);
  } finally {
    await source.close();
  }
};
