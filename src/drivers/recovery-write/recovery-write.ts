import { type FieldViolation, RpcError, refuse } from '../../contract/errors.ts';
import { between, filled, page, type Rule, required } from '../../contract/rules.ts';
import type { Session } from '../../database/session.ts';
import { count, firstFlag, firstNumber, firstText, statement } from '../../database/statement.ts';
import { column, columnsOf, table } from '../../database/table.ts';
import { jsonText } from '../../database/values.ts';
import { FailureCatalogEntry } from '../../entities/failure-catalog-entry.ts';
import { FailureMatch } from '../../entities/failure-match.ts';
import { RecoveryCandidate } from '../../entities/recovery-candidate.ts';
import { SuggestionProvenance } from '../../entities/suggestion-provenance.ts';
import {
  CandidateKeySchema,
  ClaimedWorkSchema,
  FailureMatchPatchSchema,
  InsertFailureMatchRequestSchema,
  InsertSuggestionProvenanceRequestSchema,
  RecoveryCandidatePatchSchema,
  RecoveryWriteService,
  type UpdateRecoveryCandidateRequest,
  UpsertFailureCatalogEntryRequestSchema,
  type UpsertRecoveryCandidateRequest,
  UpsertRecoveryCandidateResponseSchema,
} from '../../gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { affected, one, row, rows } from '../../statements/answers.ts';
import { lowerEnumText } from '../../statements/codecs.ts';
import { fits } from '../../statements/fits.ts';
import { insert, overwriting } from '../../statements/insert.ts';
import { patch, patchUpdate } from '../../statements/patch.ts';
import { projection, rowsOf } from '../../statements/projection.ts';
import { driver, read, write } from '../driver.ts';
import { upsertCandidate } from './recovery-candidates.ts';

const candidate = columnsOf(RecoveryCandidate);

const ingest = upsertCandidate('recovery_write.upsert_recovery_candidate', {
  columns: ['suggestion', 'confidence', 'explain', 'error_code', 'error_signature', 'source', 'idempotency_key'],
  maker: 'ingest_api',
  overwrite: [],
  // A row that this statement has made has no other version.
  returning: 'candidate.id, candidate.xmax = 0, candidate.occurrence_count',
  reading: rowsOf(UpsertRecoveryCandidateResponseSchema),
});

const key = projection(CandidateKeySchema, RecoveryCandidate);

const candidateByKey = statement(
  'recovery_write.candidate_by_idempotency_key',
  `select ${key.columns} from ${table(RecoveryCandidate)} where ${candidate('idempotency_key')} = $1::uuid`,
  key,
);

const enqueue = statement(
  'recovery_write.enqueue_work',
  `select m10_recovery.enqueue_work($1::integer, $2::uuid, $3::integer, 'db_fallback')`,
  firstNumber,
);

const claim = statement(
  'recovery_write.claim_work',
  `select ${ClaimedWorkSchema.fields.map(({ name }) => name).join(', ')}
  from m10_recovery.claim_work($1::text, $2::integer) order by priority desc, work_id`,
  rowsOf(ClaimedWorkSchema),
);

const complete = statement(
  'recovery_write.complete_work',
  'select m10_recovery.complete_work($1::integer, $2::boolean, $3::text)::integer',
  count,
);

const release = statement(
  'recovery_write.release_stalled_work',
  'select m10_recovery.release_stalled_work($1::integer)',
  count,
);

const rate = between(0, 1);

const candidatePatch = patch(RecoveryCandidate, RecoveryCandidatePatchSchema, {
  rules: { confidence: rate },
  neverNull: ['decision'],
  clocks: { executed_at: 2 },
  textOf: lowerEnumText,
});

const updateCandidate = statement(
  'recovery_write.update_recovery_candidate',
  `update ${table(RecoveryCandidate)} set ${candidatePatch.assignments(3)} where ${candidate('id')} = $1::integer`,
);

/** The clock is one more field to change, and not to be set twice. */
const candidateCheck = (request: UpdateRecoveryCandidateRequest): FieldViolation[] => {
  if (!request.executedNow) return candidatePatch.check(request);
  const named = candidatePatch.named(request);
  if (named.length === 0) return [];
  const description = 'must not name executed_at, which executed_now sets';
  const twice = named.includes('executed_at') ? [{ field: 'update_mask', description }] : [];
  return [...candidatePatch.check(request), ...twice];
};

const newProvenance = insert(SuggestionProvenance, InsertSuggestionProvenanceRequestSchema, {
  defaults: { actor: `'api'` },
  textOf: lowerEnumText,
});

const insertProvenance = newProvenance.statement(
  'recovery_write.insert_suggestion_provenance',
  `returning ${column(SuggestionProvenance, 'id')}`,
  firstNumber,
);

const newFailure = insert(FailureMatch, InsertFailureMatchRequestSchema, {
  columns: { context: 'context_json' },
  defaults: {
    id: 'gen_random_uuid()',
    match_type: `'unknown'`,
    confidence_score: '0',
    is_retryable: 'false',
    recovery_attempted: 'false',
    recovery_succeeded: 'false',
    context: `'{}'`,
    created_at: 'now()',
  },
});

const insertFailure = newFailure.statement(
  'recovery_write.insert_failure_match',
  `returning ${column(FailureMatch, 'id')}`,
  firstText,
);

const failurePatch = patchUpdate('recovery_write.update_failure_match', FailureMatch, FailureMatchPatchSchema, {
  idField: 'failure_match_id',
  neverNull: ['is_retryable', 'recovery_attempted', 'recovery_succeeded'],
});

const newEntry = insert(FailureCatalogEntry, UpsertFailureCatalogEntryRequestSchema, {
  binders: { embedding: (vector: readonly number[]) => (vector.length === 0 ? null : vector) },
});

// A row that this statement has made has no other version.
const upsertCatalogEntry = newEntry.statement(
  'recovery_write.upsert_failure_catalog_entry',
  `on conflict (${column(FailureCatalogEntry, 'id')})
  do update set ${overwriting(FailureCatalogEntry, ['error_code', 'error_pattern', 'recovery_action', 'success_rate', 'embedding'])}
  returning xmax = 0`,
  firstFlag,
);

/** The candidate whose failure owns the key that a report was refused for. */
const keyOwner = async (db: Session, idempotencyKey: string, cause: RpcError): Promise<RpcError | undefined> => {
  const owner = await db.row(candidateByKey, [idempotencyKey]);
  if (!owner) return undefined;
  return refuse('UNIQUE_VIOLATION', 'the idempotency key belongs to another failure', {
    metadata: {
      ...cause.metadata,
      candidate_id: String(owner.id),
      failure_match_id: owner.failureMatchId,
    },
    cause,
  });
};

const report = async (db: Session, request: UpsertRecoveryCandidateRequest) => {
  const { idempotencyKey } = request;
  const { statement: upsert, params } = ingest(request.failureMatchId, {
    suggestion: request.suggestion,
    confidence: request.confidence,
    explain: jsonText(request.explain),
    error_code: request.errorCode,
    error_signature: request.errorSignature,
    source: request.source,
    idempotency_key: idempotencyKey,
  });
  if (idempotencyKey === undefined) return await db.one(upsert, params);
  try {
    return await db.attempt(async (attempt) => await attempt.one(upsert, params));
  } catch (error) {
    if (!(error instanceof RpcError) || error.reason !== 'UNIQUE_VIOLATION') throw error;
    throw (await keyOwner(db, idempotencyKey, error)) ?? error;
  }
};

/** The id of a row: 0 is what an unset field reads as, and no row has it. */
const given: Rule<number> = (value) => (value === 0 ? 'must be set' : undefined);

/** `RecoveryWriteService`: failures, the candidates they lead to, and the queue of those to evaluate. */
export const recoveryWrite = driver(RecoveryWriteService, {
  upsertRecoveryCandidate: write(
    {
      failure_match_id: fits(RecoveryCandidate, 'failure_match_id'),
      suggestion: required(),
      confidence: required(rate),
      idempotency_key: fits(RecoveryCandidate, 'idempotency_key'),
    },
    report,
  ),
  getCandidateByIdempotencyKey: read(
    { idempotency_key: fits(RecoveryCandidate, 'idempotency_key') },
    row('candidate', ({ idempotencyKey }) => candidateByKey.with(idempotencyKey)),
  ),
  enqueueEvaluationDbFallback: write(
    { candidate_id: given, idempotency_key: fits(RecoveryCandidate, 'idempotency_key') },
    one(
      'workId',
      ({ candidateId, idempotencyKey, priority = 0 }) => enqueue.with(candidateId, idempotencyKey, priority),
      {
        enqueued: true,
      },
    ),
  ),
  updateRecoveryCandidate: write(
    candidatePatch.rules,
    affected((request) =>
      updateCandidate.with(request.candidateId, request.executedNow, ...candidatePatch.params(request)),
    ),
    candidateCheck,
  ),
  insertSuggestionProvenance: write(
    { ...newProvenance.rules, suggestion_id: given },
    one('provenanceId', insertProvenance, { rowsAffected: 1n }),
  ),
  claimWork: write(
    { worker_id: filled, batch_size: page },
    rows('work', ({ workerId, batchSize = 10 }) => claim.with(workerId, batchSize)),
  ),
  completeWork: write(
    {},
    one('rowsAffected', ({ workId, success = true, error }) => complete.with(workId, success, error)),
  ),
  releaseStalledWork: write(
    {},
    one('rowsAffected', ({ stalledSeconds = 300 }) => release.with(stalledSeconds)),
  ),
  insertFailureMatch: write(newFailure.rules, one('failureMatchId', insertFailure, { rowsAffected: 1n })),
  updateFailureMatch: write(failurePatch.rules, affected(failurePatch.ask), failurePatch.check),
  upsertFailureCatalogEntry: write(
    { id: filled, success_rate: rate },
    one('isInsert', upsertCatalogEntry, { rowsAffected: 1n }),
  ),
});
