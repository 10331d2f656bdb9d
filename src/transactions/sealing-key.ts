import { refuse } from '../contract/errors.ts';
import type { Lane } from '../database/lane.ts';
import { firstText, statement } from '../database/statement.ts';
import { column, table } from '../database/table.ts';
import { Secret } from '../entities/secret.ts';

const find = statement(
  'secrets.transaction_id_key',
  `select encode(${column(Secret, 'value')}, 'hex') from ${table(Secret)} where ${column(Secret, 'name')} = 'transaction_id_key'`,
  firstText,
);

/**
 * Reads the key that seals transaction ids, and of which the keys of page tokens come.
 *
 * @throws SCHEMA_OUTDATED where there is none.
 */
export const sealingKey = async (lane: Lane): Promise<Uint8Array> => {
  const [key] = await lane.use(undefined, (connection) => connection.rows(find.with()));
  if (key === undefined) throw refuse('SCHEMA_OUTDATED', 'the database holds no transaction id key');
  return Buffer.from(key, 'hex');
};
