import type { Isolation } from '../database/transaction-mode.ts';
import { IsolationLevel } from '../gen/hoc/cus/policies/v1/transaction_pb.ts';

const NAMES: Readonly<Record<number, Isolation>> = {
  [IsolationLevel.UNSPECIFIED]: 'read committed',
  [IsolationLevel.READ_COMMITTED]: 'read committed',
  [IsolationLevel.REPEATABLE_READ]: 'repeatable read',
  [IsolationLevel.SERIALIZABLE]: 'serializable',
};

const LEVELS: Readonly<Record<Isolation, IsolationLevel>> = {
  'read committed': IsolationLevel.READ_COMMITTED,
  'repeatable read': IsolationLevel.REPEATABLE_READ,
  serializable: IsolationLevel.SERIALIZABLE,
};

/** PostgreSQL's word for an isolation level; for none that of the one that is taken then. */
export const isolationOf = (level: IsolationLevel = IsolationLevel.READ_COMMITTED): Isolation => NAMES[level]!;

/** Isolation level of PostgreSQL's word. */
export const isolationLevelOf = (isolation: Isolation): IsolationLevel => LEVELS[isolation];
