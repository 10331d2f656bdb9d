import { join } from 'node:path';
import { Migrator } from '@mikro-orm/migrations';
import { defineConfig, type MikroORM, SchemaGenerator } from '@mikro-orm/postgresql';
import { entities } from './src/entities/all.ts';

const refuse = async (): Promise<never> => {
  throw new Error(
    'the schema is changed by migrations that are written by hand, applied by `npm run migrate`: a generated change would drop what a platform keeps beside the tables of this program',
  );
};

/**
 * MikroORM's generator without all that changes a database. Its comparator takes checks for changed that are not, and
 * whatever no entity knows for left over: tables, columns and triggers of the platform that a database is shared with.
 *
 * What it prints for an empty database (`getCreateSchemaSQL`) stays: it says what the entities say.
 */
class PrintingGenerator extends SchemaGenerator {
  static override register(orm: MikroORM): void {
    orm.config.registerExtension('@mikro-orm/schema-generator', () => new PrintingGenerator(orm.em as never));
  }

  override create = refuse;
  override update = refuse;
  override refresh = refuse;
  override drop = refuse;
  override clear = refuse;
  override getUpdateSchemaSQL = refuse;
  override getUpdateSchemaMigrationSQL = refuse;
  override getDropSchemaSQL = refuse;
  override createDatabase = refuse;
  override dropDatabase = refuse;
  override dropNamespace = refuse;
  override dropTableIfExists = refuse;
}

/** What MikroORM's own tools find when somebody starts them here. */
export default defineConfig({
  clientUrl: process.env['DATABASE_URL'] ?? 'postgres:///policy_sidecar',
  entities,
  extensions: [Migrator, PrintingGenerator as never],
  migrations: {
    path: join(import.meta.dirname, 'migrations'),
    glob: 'Migration*.ts',
    tableName: 'policy_sidecar.migrations',
    snapshot: false,
  },
});
