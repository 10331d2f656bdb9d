"""`RecoveryWriteService`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..types import CandidateDecision, ExecutionStatus, SuggestionEventType
from ._arguments import column, demanded, json_text
from ._shapes import nothing, one_tuple, value
from ._table import Op, SyncDriver, perform

TABLE = {
    "upsert_recovery_candidate": Op(
        "recovery_write.upsert_recovery_candidate",
        "failure_match_id, suggestion, confidence, explain_json, error_code, error_signature, source, idempotency_key",
        lambda answer: (answer.candidate_id, answer.is_insert, answer.occurrence_count),
        given={"explain_json": json_text, "failure_match_id": demanded("failure_match_id")},
        rename={"explain_json": "explain"},
        writes=True,
    ),
    "get_candidate_by_idempotency_key": Op(
        "recovery_write.get_candidate_by_idempotency_key",
        "idempotency_key",
        one_tuple("candidate", "id failure_match_id"),
    ),
    "enqueue_evaluation_db_fallback": Op(
        "recovery_write.enqueue_evaluation_db_fallback", "candidate_id, idempotency_key", value("enqueued"), writes=True
    ),
    "insert_suggestion_provenance": Op(
        "recovery_write.insert_suggestion_provenance",
        "suggestion_id, event_type, details_json, action_id, confidence_before, actor='api'",
        nothing,
        given={"details_json": json_text, "event_type": column("event_type", SuggestionEventType)},
        rename={"details_json": "details"},
        writes=True,
    ),
}
_UPDATE = Op("recovery_write.update_recovery_candidate", "", nothing, writes=True)
_COLUMNS = {
    "execution_status": column("execution_status", ExecutionStatus),
    "decision": column("decision", CandidateDecision),
    "execution_result": lambda given: json_text(given) if isinstance(given, str) else given,
    "rules_evaluated": lambda given: json_text(given) if isinstance(given, str) else given,
}


class RecoveryWriteService(SyncDriver, table=TABLE):
    """Writes of recovery candidates."""

    def update_recovery_candidate(self, candidate_id: int, updates: Sequence[str], params: dict[str, Any]) -> None:
        """Sets columns by fragments `column = :name`, a cast allowed, and `executed_at = now()`.

        ValueError for a fragment of another form.
        """
        fields: dict[str, Any] = {}
        for fragment in updates:
            target, equals, name = (part.strip() for part in fragment.partition("="))
            if (target, name.lower()) == ("executed_at", "now()"):
                fields["executed_now"] = True
                continue
            name = name.removeprefix("CAST(").partition(" AS ")[0].partition("::")[0].strip()
            if not equals or not name.startswith(":") or name[1:] not in params:
                raise ValueError(f"`{fragment}` is not of the form `column = :name`")
            given = params[name[1:]]
            fields[target] = _COLUMNS[target](given) if target in _COLUMNS else given
        perform(_UPDATE, {"candidate_id": candidate_id, **fields}, self._session)
