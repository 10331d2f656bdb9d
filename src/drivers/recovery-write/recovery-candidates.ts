import { type ColumnOf, column, columnList, table } from '../../database/table.ts';
import { RecoveryCandidate } from '../../entities/recovery-candidate.ts';
import { parameterOf } from '../../statements/parameters.ts';

type Column = ColumnOf<typeof RecoveryCandidate>;

const of = (name: Column): string => column(RecoveryCandidate, name);

interface Upsert {
  /** Columns besides the failure and the maker, in the order of the parameters from `$2` on. */
  readonly columns: readonly Column[];
  /** Stored as `created_by`. */
  readonly maker: string;
  /** Columns that a candidate of the same failure takes over; its occurrence is counted anyway. */
  readonly overwrite: readonly Column[];
  readonly returning: string;
}

/**
 * SQL: stores a candidate, or counts an occurrence of the one that the failure `$1` has.
 *
 * Callers take turns per failure: without that, two of them with one idempotency key can collide on that key's index
 * before either sees the other's failure.
 */
export const upsertCandidate = ({ columns, maker, overwrite, returning }: Upsert): string => {
  const values = columns.map((name, index) => parameterOf(RecoveryCandidate, name, index + 2));
  const assignments = [
    ...overwrite.map((name) => `${of(name)} = excluded.${of(name)}`),
    `${of('occurrence_count')} = candidate.${of('occurrence_count')} + 1`,
    `${of('last_occurrence_at')} = now()`,
  ];
  return `with turn as materialized (
      select pg_advisory_xact_lock(hashtextextended('recovery_candidates ' || $1::uuid, 0))
    )
    insert into ${table(RecoveryCandidate)} as candidate
      (${columnList(RecoveryCandidate, ['failure_match_id', ...columns, 'created_by'])})
    select $1::uuid, ${values.join(', ')}, '${maker}' from turn
    on conflict (${of('failure_match_id')}) do update set ${assignments.join(', ')}
    returning ${returning}`;
};
