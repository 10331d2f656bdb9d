import type { Session } from '../../database/session.ts';
import { sqlstateOf } from '../../database/sqlstate.ts';
import { firstNumber, statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { FailureCatalogEntry } from '../../entities/failure-catalog-entry.ts';
import { FailureMatch } from '../../entities/failure-match.ts';
import { cell, cells } from '../../statements/cells.ts';
import type { CallContext } from '../driver.ts';
import { upsertCandidate } from '../recovery-write/recovery-candidates.ts';
import type { KnownFailure } from './hybrid.ts';
import type { Services } from './services.ts';
import type { History, SimilarFailure } from './suggest.ts';

const failure = columnsOf(FailureMatch);
const entry = columnsOf(FailureCatalogEntry, 'entry');

const SIMILAR_FAILURES = 10;

const similarFailure = cells<SimilarFailure>({
  id: cell.text(failure('id')),
  errorCode: cell.text(failure('error_code')),
  recoverySuggestion: cell.text(failure('recovery_suggestion')),
  recoverySucceeded: cell.flag(failure('recovery_succeeded')),
  category: cell.textOrNull(failure('category')),
  createdAt: cell.text(`to_json(${failure('created_at')}) #>> '{}'`),
});

const similarFailures = statement(
  'recovery_matcher.similar_failures',
  `select ${similarFailure.columns} from ${table(FailureMatch)}
  where ${failure('error_code')} = $1 and ${failure('recovery_suggestion')} is not null
  order by ${failure('created_at')} desc, ${failure('id')} desc limit ${SIMILAR_FAILURES}`,
  similarFailure,
);

const occurrences = statement(
  'recovery_matcher.occurrences',
  `select count(*) from ${table(FailureMatch)}
  where ${failure('error_code')} = $1 and ${failure('created_at')} > now() - interval '7 days'`,
  firstNumber,
);

const store = upsertCandidate('recovery_matcher.upsert_candidate', {
  columns: ['suggestion', 'confidence', 'explain', 'matched_catalog_entry', 'error_code', 'error_signature', 'source'],
  maker: 'recovery_matcher',
  overwrite: ['suggestion', 'confidence', 'explain', 'matched_catalog_entry'],
  returning: 'candidate.id',
  reading: firstNumber,
});

/** SQL: an element of a vector whose products neither overflow nor underflow, for which PostgreSQL has errors. */
const bounded = (element: string): string =>
  `case when abs(${element}) > 1e70 then 'NaN' when abs(${element}) < 1e-70 then 0 else ${element} end`;

const knownFailure = cells<KnownFailure>({
  id: cell.text(entry('id')),
  errorCode: cell.text(entry('error_code')),
  errorPattern: cell.textOrNull(entry('error_pattern')),
  recoveryAction: cell.textOrNull(entry('recovery_action')),
  successRate: cell.number(`coalesce(${entry('success_rate')}, 0)`),
  similarity: cell.number('angle.cosine'),
});

// Vectors of another length come from another model and cannot be compared. NaN is above every number.
const mostSimilar = statement(
  'recovery_matcher.most_similar',
  `select ${knownFailure.columns} from ${table(FailureCatalogEntry)} entry
  cross join lateral (
    select sum(x * y) / nullif(sqrt(sum(x * x)) * sqrt(sum(y * y)), 0) as cosine
    from unnest(${entry('embedding')}, $1::double precision[]) as pair (stored, asked)
    cross join lateral (select ${bounded('stored')} as x, ${bounded('asked')} as y) as bounded
  ) angle
  where cardinality(${entry('embedding')}) = cardinality($1::double precision[]) and angle.cosine < 'NaN'
  order by angle.cosine desc, ${entry('id')} limit 1`,
  knownFailure,
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
    const { statement: upsert, params } = store(candidate.failureMatchId, {
      suggestion: candidate.suggestion,
      confidence: candidate.confidence,
      explain: JSON.stringify(candidate.explain),
      matched_catalog_entry: candidate.matchedEntry && JSON.stringify(candidate.matchedEntry),
      error_code: candidate.errorCode,
      error_signature: candidate.errorSignature,
      source: candidate.source,
    });
    const id = await dispensable(
      call,
      services,
      'candidate',
      db.attempt((attempt) => attempt.row(upsert, params)),
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
