import type { Value } from '@bufbuild/protobuf/wkt';
import { type RpcError, refuse } from '../../contract/errors.ts';
import { page } from '../../contract/rules.ts';
import { statement } from '../../database/statement.ts';
import { columnList, columnsOf, table } from '../../database/table.ts';
import { jsonToValue, parseJson } from '../../database/values.ts';
import { RecoveryCandidate } from '../../entities/recovery-candidate.ts';
import { RecoveryCandidateAudit } from '../../entities/recovery-candidate-audit.ts';
import {
  CandidateDecision,
  CandidateDecisionSchema,
  CandidateStatus,
  CandidateStatusSchema,
  CountByStatusResponseSchema,
  RecoveryCandidateSchema,
  type RecoveryMatcherService,
} from '../../gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { each, one, response, rows } from '../../statements/answers.ts';
import { document, lowerEnumText } from '../../statements/codecs.ts';
import { filteredCount, where } from '../../statements/filters.ts';
import { list } from '../../statements/lists.ts';
import { projection, rowsOf } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(RecoveryCandidate);

const isNothing = (json: unknown): boolean => !json || (typeof json === 'object' && Object.keys(json).length === 0);

/**
 * How a confidence came about, as it is shown: a text that holds JSON is read once more, as the original does; one that
 * holds none is shown as it is.
 */
const explanation = (stored: unknown): unknown => {
  let json = stored;
  if (typeof stored === 'string') {
    try {
      json = parseJson(stored);
    } catch {
      json = stored;
    }
  }
  return isNothing(json) ? {} : json;
};

const explained = (text: string): Value | undefined => {
  try {
    return jsonToValue(explanation(parseJson(text)));
  } catch {
    return undefined;
  }
};

const candidate = projection(RecoveryCandidateSchema, RecoveryCandidate, {
  expressions: { explain: `coalesce(${of('explain')}, 'null')` },
  codecs: { explain: document(explained) },
});

const filters = { decision: where.exactText(`${of('decision')} = ?`) };

const candidates = list('recovery_matcher.candidates', {
  entity: RecoveryCandidate,
  filters,
  order: ['created_at desc', 'id desc'],
  paged: true,
  reading: candidate,
});

const candidateCount = filteredCount('recovery_matcher.count_candidates', {
  select: `select count(*) from ${table(RecoveryCandidate)}`,
  filters,
});

const countByStatus = statement(
  'recovery_matcher.count_by_status',
  `select ${CountByStatusResponseSchema.fields
    .map(({ name }) => `count(*) filter (where ${of('decision')} = '${name}')`)
    .join(', ')}
  from ${table(RecoveryCandidate)}`,
  rowsOf(CountByStatusResponseSchema),
);

const audit = columnList(RecoveryCandidateAudit, [
  'candidate_id',
  'action',
  'actor',
  'old_decision',
  'new_decision',
  'note',
]);

// The row is locked before its decision is read, so that the trail of two deciders is in order.
const decide = statement(
  'recovery_matcher.approve_candidate',
  `with found as materialized (
    select ${of('id')} as found_id, ${of('decision')} as old_decision from ${table(RecoveryCandidate)}
    where ${of('id')} = $1::integer for update
  ), decided as (
    update ${table(RecoveryCandidate)} set ${of('decision')} = $2::text, ${of('approved_by_human')} = $3::text,
      ${of('approved_at')} = now(), ${of('review_note')} = $4::text
    from found where ${of('id')} = found_id
    returning ${candidate.columns}
  ), recorded as (
    insert into ${table(RecoveryCandidateAudit)} (${audit})
    select found_id, $2::text, $3::text, old_decision, $2::text, $4::text from found
  )
  select * from decided`,
  candidate,
);

/** The decision that candidates of a status have; undefined: any. */
const ofStatus = (status: CandidateStatus = CandidateStatus.PENDING): string | undefined =>
  status === CandidateStatus.ALL ? undefined : lowerEnumText(CandidateStatusSchema, status);

const noCandidate = (id: number): RpcError =>
  refuse('CANDIDATE_NOT_FOUND', `Candidate ${id} not found`, {
    metadata: { candidate_id: String(id) },
  });

/** Candidates: lists, counts and decisions. */
export const candidateRpcs = {
  getCandidates: read(
    { limit: page, offset: page },
    rows('candidates', ({ status, limit = 50, offset }, walk) =>
      candidates({ decision: ofStatus(status) }, walk, { limit, offset }),
    ),
  ),
  streamCandidates: read(
    {},
    each('candidate', ({ status }, walk) => candidates({ decision: ofStatus(status) }, walk)),
  ),
  countCandidates: read(
    {},
    one('count', ({ status }) => candidateCount({ decision: ofStatus(status) })),
  ),
  countByStatus: read(
    {},
    response(() => countByStatus.with()),
  ),
  approveCandidate: write(
    {
      decision: (value: CandidateDecision) =>
        value === CandidateDecision.PENDING ? 'must be approved or rejected' : undefined,
    },
    async (db, { candidateId, approvedBy, decision = CandidateDecision.APPROVED, note = '' }) => {
      const decided = lowerEnumText(CandidateDecisionSchema, decision);
      const candidate = await db.row(decide, [candidateId, decided, approvedBy, note]);
      if (!candidate) throw noCandidate(candidateId);
      return { candidate };
    },
  ),
} satisfies Part<typeof RecoveryMatcherService>;
