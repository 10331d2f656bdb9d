import type { Config } from '../config.ts';
import { findingText, migrateCheck, migrateUp, migrationStatus } from '../database/migrate/migrate.ts';
import { migrateTenants } from '../database/migrate/tenant-policies.ts';
import { EXIT } from '../exit.ts';
import { ConfigError } from '../setting-forms.ts';
import { say, tell } from './output.ts';
import { openSource } from './source.ts';

/** `migrate up | status | check | tenants`. */
export const migrate = async (action: string | undefined, config: Config): Promise<number> => {
  if (action !== 'up' && action !== 'status' && action !== 'check' && action !== 'tenants') {
    throw new ConfigError('migrate takes `up`, `status`, `check` or `tenants`');
  }
  const source = await openSource(config);
  try {
    if (action === 'up') {
      const applied = await migrateUp(source.url, { say: tell, onApplied: (name) => say(`applied ${name}`) });
      if (applied.length === 0) say('nothing to apply');
      return EXIT.done;
    }
    if (action === 'tenants') {
      await migrateTenants(source.url, { say: tell });
      say('callers can be bound to tenants');
      return EXIT.done;
    }
    if (action === 'check') {
      const findings = await migrateCheck(source.url);
      for (const finding of findings) say(findingText(finding));
      if (findings.length === 0) say('nothing to change');
      return findings.some(({ level }) => level === 'stop') ? EXIT.no : EXIT.done;
    }
    const { executed, pending, unknown } = await migrationStatus(source.url);
    for (const { name, at } of executed) say(`applied  ${name}  ${at}`);
    for (const name of pending) say(`pending  ${name}`);
    for (const name of unknown) say(`newer    ${name}`);
    return pending.length > 0 ? EXIT.olderSchema : EXIT.done;
  } finally {
    await source.close();
  }
};
