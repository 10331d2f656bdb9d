import type { ClientBase } from 'pg';

/** What is done meanwhile; it may unlock it sooner. */
export type Locked = (unlock: () => Promise<unknown>) => Promise<void>;

/** Runs work while a person's transaction holds what its SQL has locked. What waits for that goes on afterwards. */
export const whileLocked = async (person: Pick<ClientBase, 'query'>, lock: string, work: Locked): Promise<void> => {
  const unlock = (): Promise<unknown> => person.query('rollback');
  await person.query(`begin; ${lock}`);
  try {
    await work(unlock);
  } finally {
    await unlock();
  }
};
