import { sqlstateOf } from '../../database/errors.ts';
import { type ColumnOf, column, columnList, table } from '../../database/projection.ts';
import type { Session } from '../../database/session.ts';
import { statement } from '../../database/statement.ts';
import { FailureCatalogEntry } from '../../entities/failure-catalog-entry.ts';
import { FailureMatch } from '../../entities/failure-match.ts';
import type { CallContext } from '../driver.ts';
import { upsertCandidate } from '../recovery-candidates.ts';
import type { KnownFailure } from './hybrid.ts';
import type { Services } from './services.ts';
import type { History, SimilarFailure } from './suggest.ts';

const failure = (name: ColumnOf<typeof FailureMatch>): string => column(FailureMatch, name);
const entry = (name: ColumnOf<typeof FailureCatalogEntry>): string => column(FailureCatalogEntry, name, 'entry');

const SIMILAR_FAILURES = 10;

const similarFailures = statement(
  'recovery_matcher.similar_failures',
  `select ${columnList(FailureMatch, ['id', 'error_code', 'recovery_suggestion', 'recovery_succeeded', 'category'])},
    to_json(${failure('created_at')}) #>> '{}'
  from ${table(FailureMatch)}
  where ${failure('error_code')} = $1 and ${failure('recovery_suggestion')} is not null
  order by ${failure('created_at')} desc, ${failure('id')} desc limit ${SIMILAR_FAILURES}`,
  (row): SimilarFailure => ({
    id: row[0]!,
    errorCode: row[1]!,
    recoverySuggestion: row[2]!,
    recoverySucceeded: row[3] === 't',
    category: row[4]!,
    createdAt: row[5]!,
  }),
);

const occurrences = statement(
  'recovery_matcher.occurrences',
  `select count(*) from ${table(FailureMatch)}
  where ${failure('error_code')} = $1 and ${failure('created_at')} > now() - interval '7 days'`,
  (row) => Number(row[0]),
);

const store = statement(
  'recovery_matcher.upsert_candidate',
  upsertCandidate({
    columns: {
      suggestion: 'text',
      confidence: 'double precision',
      explain: 'jsonb',
      matched_catalog_entry: 'jsonb',
      error_code: 'text',
      error_signature: 'text',
      source: 'text',
    },
    maker: 'recovery_matcher',
    overwrite: ['suggestion', 'confidence', 'explain', 'matched_catalog_entry'],
    returning: 'candidate.id',
  }),
  (row) => Number(row[0]),
);

/** SQL: an element of a vector whose products neither overflow nor underflow, for which PostgreSQL has errors. */
const bounded = (element: string): string =>
  `case when abs(${element}) > 1e70 then 'NaN' when abs(${element}) < 1e-70 then 0 else ${element} end`;

// Vectors of another length come from another model and cannot be compared. NaN is above every number.
const mostSimilar = statement(
  'recovery_matcher.most_similar',
  `select ${columnList(FailureCatalogEntry, ['id', 'error_code', 'error_pattern', 'recovery_action'], 'entry')},
    coalesce(${entry('success_rate')}, 0), angle.cosine
  from ${table(FailureCatalogEntry)} entry
  cross join lateral (
    select sum(x * y) / nullif(sqrt(sum(x * x)) * sqrt(sum(y * y)), 0) as cosine
    from unnest(${entry('embedding')}, $1::double precision[]) as pair (stored, asked)
    cross join lateral (select ${bounded('stored')} as x, ${bounded('asked')} as y) as bounded
  ) angle
  where cardinality(${entry('embedding')}) = cardinality($1::double precision[]) and angle.cosine < 'NaN'
  order by angle.cosine desc, ${entry('id')} limit 1`,
  (row): KnownFailure => ({
    id: row[0]!,
    errorCode: row[1]!,
    errorPattern: row[2]!,
    recoveryAction: row[3]!,
    successRate: Number(row[4]),
    similarity: Number(row[5]),
  }),
);

/**
 * Awaits a statement that the call can do without: refused by the database, it is passed over with a warning. A lost
 * connection and the call's own end are no such refusal.
 */
const dispensable = async <T>(
  { signal }: CallContext,
  services: Services,
  layer: string,
  attempt: Promise<T>,
): Promise<T | undefined> => {
  try {
    return await attempt;
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === undefined || signal?.aborted) throw error;
    services.warn(layer, `SQLSTATE ${sqlstate}`);
    return undefined;
  }
};

/** History in the database that the call runs on. */
export const databaseHistory = (db: Session, call: CallContext, services: Services): History => ({
  similarFailures: (errorCode) => db.rows(similarFailures, [errorCode]),
  occurrences: async (errorCode) => await db.one(occurrences, [errorCode]),
  store: async (candidate) => {
    if (candidate.failureMatchId === '') return null;
    const params = [
      candidate.failureMatchId,
      candidate.suggestion,
      candidate.confidence,
      JSON.stringify(candidate.explain),
      candidate.matchedEntry && JSON.stringify(candidate.matchedEntry),
      candidate.errorCode,
      candidate.errorSignature,
      candidate.source,
    ];
    const id = await dispensable(
      call,
      services,
      'candidate',
      db.attempt((attempt) => attempt.row(store, params)),
    );
    return id ?? null;
  },
});

/** The known failure whose embedding is most similar to a vector. What comes after it may take long. */
export const mostSimilarFailure = (
  db: Session,
  call: CallContext,
  services: Services,
  vector: readonly number[],
): Promise<KnownFailure | undefined> =>
  dispensable(
    call,
    services,
    'embedding',
    db.aside((attempt) => attempt.row(mostSimilar, [vector])),
  );
