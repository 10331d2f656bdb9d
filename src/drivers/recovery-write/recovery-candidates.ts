import { type Param, type Query, type Reading, type RowMap, statement } from '../../database/statement.ts';
import { type ColumnOf, columnList, columnsOf, table } from '../../database/table.ts';
import { RecoveryCandidate } from '../../entities/recovery-candidate.ts';
import { parameterOf } from '../../statements/parameters.ts';

type Column = ColumnOf<typeof RecoveryCandidate>;

const of = columnsOf(RecoveryCandidate);

interface Upsert<C extends Column, T> {
  /** Columns besides the failure and the maker. */
  readonly columns: readonly C[];
  /** Stored as `created_by`. */
  readonly maker: string;
  /** Columns that a candidate of the same failure takes over; its occurrence is counted anyway. */
  readonly overwrite: readonly NoInfer<C>[];
  readonly returning: string;
  readonly reading: Reading<T> | RowMap<T>;
}

/**
 * Declares a statement that stores a candidate, or counts an occurrence of the one that its failure has.
 *
 * Callers take turns per failure: without that, two of them with one idempotency key can collide on that key's index
 * before either sees the other's failure.
 *
 * @returns the query for a failure and what is stored of it.
 */
export const upsertCandidate = <C extends Column, T>(
  name: string,
  { columns, maker, overwrite, returning, reading }: Upsert<C, T>,
): ((failureMatchId: string, stored: Readonly<Record<C, Param>>) => Query<T>) => {
  const values = columns.map((each, index) => parameterOf(RecoveryCandidate, each, index + 2));
  const assignments = [
    ...overwrite.map((each) => `${of(each)} = excluded.${of(each)}`),
    `${of('occurrence_count')} = candidate.${of('occurrence_count')} + 1`,
    `${of('last_occurrence_at')} = now()`,
  ];
  const upsert = statement(
    name,
    `with turn as materialized (
      select pg_advisory_xact_lock(hashtextextended('recovery_candidates ' || $1::uuid, 0))
    )
    insert into ${table(RecoveryCandidate)} as candidate
      (${columnList(RecoveryCandidate, ['failure_match_id', ...columns, 'created_by'])})
    select $1::uuid, ${values.join(', ')}, '${maker}' from turn
    on conflict (${of('failure_match_id')}) do update set ${assignments.join(', ')}
    returning ${returning}`,
    reading,
  );
  return (failureMatchId, stored) => upsert.with(failureMatchId, ...columns.map((each) => stored[each]));
};
