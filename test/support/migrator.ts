import { migrateUp } from '../../src/database/migrate/migrate.ts';

// A process of its own that a test can kill: `<url> <tuning as JSON>`.
const [, , url, tuning] = process.argv;
await migrateUp(url!, {
  say: (line) => process.stdout.write(`${line}\n`),
  onApplied: (name) => process.stdout.write(`applied ${name}\n`),
  tuning: JSON.parse(tuning!),
});
