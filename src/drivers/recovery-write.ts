import { RpcError, refuse } from '../contract/errors.ts';
import {
  type ColumnOf,
  column,
  columnList,
  firstText,
  lowerEnumText,
  projection,
  rowMapper,
  table,
} from '../database/projection.ts';
import type { Session } from '../database/session.ts';
import { statement } from '../database/statement.ts';
import { jsonText, timestampToText } from '../database/values.ts';
import { FailureCatalogEntry } from '../entities/failure-catalog-entry.ts';
import { FailureMatch } from '../entities/failure-match.ts';
import { RecoveryCandidate } from '../entities/recovery-candidate.ts';
import { SuggestionProvenance } from '../entities/suggestion-provenance.ts';
import {
  CandidateKeySchema,
  ClaimedWorkSchema,
  FailureMatchPatchSchema,
  type InsertFailureMatchRequest,
  RecoveryCandidatePatchSchema,
  RecoveryWriteService,
  SuggestionEventTypeSchema,
  type UpsertRecoveryCandidateRequest,
  UpsertRecoveryCandidateResponseSchema,
} from '../gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { driver, read, write } from './driver.ts';
import { byMask, notNull, patchAssignments, patchCheck, patchParams, patchUpdate } from './patch.ts';
import { upsertCandidate } from './recovery-candidates.ts';
import { all, between, filled, fits, mask, page, type Rule, required } from './rules.ts';

const candidate = (name: ColumnOf<typeof RecoveryCandidate>): string => column(RecoveryCandidate, name);

const ingest = statement(
  'recovery_write.upsert_recovery_candidate',
  upsertCandidate({
    columns: {
      suggestion: 'text',
      confidence: 'double precision',
      explain: 'jsonb',
      error_code: 'text',
      error_signature: 'text',
      source: 'text',
      idempotency_key: 'uuid',
    },
    maker: 'ingest_api',
    overwrite: [],
    // A row that this statement has made has no other version.
    returning: 'candidate.id, candidate.xmax = 0, candidate.occurrence_count',
  }),
  rowMapper(UpsertRecoveryCandidateResponseSchema),
);

const key = projection(CandidateKeySchema, RecoveryCandidate);

const candidateByKey = statement(
  'recovery_write.candidate_by_idempotency_key',
  `select ${key.columns} from ${table(RecoveryCandidate)} where ${candidate('idempotency_key')} = $1::uuid`,
  key.map,
);

const enqueue = statement(
  'recovery_write.enqueue_work',
  `select m10_recovery.enqueue_work($1::integer, $2::uuid, $3::integer, 'db_fallback')`,
  (row) => Number(row[0]),
);

const claim = statement(
  'recovery_write.claim_work',
  `select ${ClaimedWorkSchema.fields.map(({ name }) => name).join(', ')}
  from m10_recovery.claim_work($1::text, $2::integer) order by priority desc, work_id`,
  rowMapper(ClaimedWorkSchema),
);

const complete = statement(
  'recovery_write.complete_work',
  'select m10_recovery.complete_work($1::integer, $2::boolean, $3::text)',
  (row) => row[0] === 't',
);

const release = statement(
  'recovery_write.release_stalled_work',
  'select m10_recovery.release_stalled_work($1::integer)',
  (row) => BigInt(row[0]!),
);

const candidatePaths = RecoveryCandidatePatchSchema.fields.map(({ name }) => name);

const updateCandidate = statement(
  'recovery_write.update_recovery_candidate',
  `update ${table(RecoveryCandidate)} set ${patchAssignments(RecoveryCandidate, RecoveryCandidatePatchSchema, 2)}
  where ${candidate('id')} = $1::integer`,
);

const insertProvenance = statement(
  'recovery_write.insert_suggestion_provenance',
  `insert into ${table(SuggestionProvenance)}
    (${columnList(SuggestionProvenance, ['suggestion_id', 'event_type', 'details', 'action_id', 'confidence_before', 'actor'])})
  values ($1, $2, $3::jsonb, $4, $5, $6)
  returning ${column(SuggestionProvenance, 'id')}`,
  (row) => Number(row[0]),
);

/** Values of a new failure where the request leaves them out. */
const FAILURE_DEFAULTS: Readonly<Record<string, string>> = {
  id: 'gen_random_uuid()',
  match_type: `'unknown'`,
  confidence_score: '0',
  is_retryable: 'false',
  recovery_attempted: 'false',
  recovery_succeeded: 'false',
  context_json: `'{}'`,
  created_at: 'now()',
};

/** Columns of a new failure and their types, in the order of the parameters. */
const FAILURE_COLUMNS = {
  id: 'uuid',
  run_id: 'text',
  tenant_id: 'text',
  error_code: 'text',
  error_message: 'text',
  catalog_entry_id: 'text',
  match_type: 'text',
  confidence_score: 'double precision',
  category: 'text',
  severity: 'text',
  is_retryable: 'boolean',
  recovery_mode: 'text',
  recovery_suggestion: 'text',
  recovery_attempted: 'boolean',
  recovery_succeeded: 'boolean',
  skill_id: 'text',
  step_index: 'integer',
  context_json: 'jsonb',
  created_at: 'timestamptz',
} as const;

const insertFailure = statement(
  'recovery_write.insert_failure_match',
  `insert into ${table(FailureMatch)}
    (${columnList(FailureMatch, Object.keys(FAILURE_COLUMNS) as (keyof typeof FAILURE_COLUMNS)[])})
  values (${Object.entries(FAILURE_COLUMNS)
    .map(([name, type], index) => {
      const value = `$${index + 1}::${type}`;
      const fallback = FAILURE_DEFAULTS[name];
      return fallback === undefined ? value : `coalesce(${value}, ${fallback})`;
    })
    .join(', ')})
  returning ${column(FailureMatch, 'id')}`,
  firstText,
);

const failureParams = (given: InsertFailureMatchRequest) => [
  given.id,
  given.runId,
  given.tenantId,
  given.errorCode,
  given.errorMessage,
  given.catalogEntryId,
  given.matchType,
  given.confidenceScore,
  given.category,
  given.severity,
  given.isRetryable,
  given.recoveryMode,
  given.recoverySuggestion,
  given.recoveryAttempted,
  given.recoverySucceeded,
  given.skillId,
  given.stepIndex,
  jsonText(given.contextJson),
  given.createdAt && timestampToText(given.createdAt),
];

const failurePatch = patchUpdate(
  'recovery_write.update_failure_match',
  FailureMatch,
  FailureMatchPatchSchema,
  'failure_match_id',
  {},
  ['is_retryable', 'recovery_attempted', 'recovery_succeeded'],
);

const catalogColumns = (
  ['id', 'error_code', 'error_pattern', 'recovery_action', 'success_rate', 'embedding'] as const
).map((name) => column(FailureCatalogEntry, name));

const upsertCatalogEntry = statement(
  'recovery_write.upsert_failure_catalog_entry',
  `insert into ${table(FailureCatalogEntry)} as entry (${catalogColumns.join(', ')})
  values ($1, $2, $3, $4, $5, $6::double precision[])
  on conflict (${column(FailureCatalogEntry, 'id')}) do update set
    ${catalogColumns
      .slice(1)
      .map((name) => `${name} = excluded.${name}`)
      .join(', ')}
  returning entry.xmax = 0`,
  (row) => row[0] === 't',
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
  const params = [
    request.failureMatchId,
    request.suggestion,
    request.confidence,
    jsonText(request.explainJson),
    request.errorCode,
    request.errorSignature,
    request.source,
    idempotencyKey,
  ];
  if (idempotencyKey === undefined) return await db.one(ingest, params);
  try {
    return await db.attempt(async (attempt) => await attempt.one(ingest, params));
  } catch (error) {
    if (!(error instanceof RpcError) || error.reason !== 'UNIQUE_VIOLATION') throw error;
    throw (await keyOwner(db, idempotencyKey, error)) ?? error;
  }
};

const rate = between(0, 1);

/** The id of a row: 0 is what an unset field reads as, and no row has it. */
const given: Rule = (value) => (value === 0 ? 'must be set' : undefined);

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
    async (db, { idempotencyKey }) => ({ candidate: await db.row(candidateByKey, [idempotencyKey]) }),
  ),
  enqueueEvaluationDbFallback: write(
    { candidate_id: given, idempotency_key: fits(RecoveryCandidate, 'idempotency_key') },
    async (db, { candidateId, idempotencyKey, priority = 0 }) => ({
      enqueued: true,
      workId: await db.one(enqueue, [candidateId, idempotencyKey, priority]),
    }),
  ),
  updateRecoveryCandidate: write(
    { updates: byMask, update_mask: required(all(mask(candidatePaths), filled)) },
    async (db, { candidateId, updates, updateMask }) => {
      const values = patchParams(RecoveryCandidatePatchSchema, updates, updateMask!.paths, lowerEnumText);
      return { rowsAffected: await db.execute(updateCandidate, [candidateId, ...values]) };
    },
    patchCheck(RecoveryCandidatePatchSchema, { confidence: rate }, notNull(RecoveryCandidate, ['decision'])),
  ),
  insertSuggestionProvenance: write({ suggestion_id: given, details_json: required() }, async (db, request) => ({
    provenanceId: await db.one(insertProvenance, [
      request.suggestionId,
      lowerEnumText(SuggestionEventTypeSchema, request.eventType),
      jsonText(request.detailsJson),
      request.actionId,
      request.confidenceBefore,
      request.actor ?? 'api',
    ]),
    rowsAffected: 1n,
  })),
  claimWork: write({ worker_id: filled, batch_size: page }, async (db, { workerId, batchSize = 10 }) => ({
    work: await db.rows(claim, [workerId, batchSize]),
  })),
  completeWork: write({}, async (db, { workId, success = true, error }) => ({
    found: await db.one(complete, [workId, success, error]),
  })),
  releaseStalledWork: write({}, async (db, { stalledSeconds = 300 }) => ({
    rowsAffected: await db.one(release, [stalledSeconds]),
  })),
  insertFailureMatch: write({ id: fits(FailureMatch, 'id') }, async (db, request) => ({
    failureMatchId: await db.one(insertFailure, failureParams(request)),
    rowsAffected: 1n,
  })),
  updateFailureMatch: write(
    { updates: byMask, update_mask: mask(failurePatch.paths) },
    async (db, request) => ({
      rowsAffected: await failurePatch.run(db, request.failureMatchId, request),
    }),
    (request) => failurePatch.check(request.failureMatchId, request),
  ),
  upsertFailureCatalogEntry: write({ id: filled, success_rate: rate }, async (db, request) => ({
    isInsert: await db.one(upsertCatalogEntry, [
      request.id,
      request.errorCode,
      request.errorPattern,
      request.recoveryAction,
      request.successRate,
      request.embedding.length === 0 ? null : request.embedding,
    ]),
    rowsAffected: 1n,
  })),
});
