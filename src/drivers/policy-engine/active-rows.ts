import { column, type Table } from '../../database/table.ts';
import { list } from '../../statements/lists.ts';
import type { Selected } from '../../statements/projection.ts';

/** The rows of a table that are active, oldest first. */
export const activeRows = <T>(name: string, entity: Table<'id' | 'is_active' | 'created_at'>, reading: Selected<T>) =>
  list(`policy_engine.${name}`, {
    entity,
    always: [column(entity, 'is_active')],
    order: ['created_at', 'id'],
    reading,
  });
