"""`RecoveryMatcher`."""

from __future__ import annotations

import asyncio
from typing import Any

from ..errors import NotFoundError
from ..types import CandidateDecision, CandidateStatus, FailurePayload
from ._sessions import unit_of
from ._shapes import Row, iso, row, value, whole
from ._table import Op, SyncDriver, perform

_INSTANTS = iso("last_occurrence_at", "created_at", "approved_at")


def _candidate(found: Any) -> Row:
    made: Row = _INSTANTS(row(found))
    return made


_REQUEST = "request"
_SUGGEST = Op("recovery_matcher.suggest", _REQUEST, whole(), writes=True)
_HYBRID = Op("recovery_matcher.suggest_hybrid", _REQUEST, whole(), writes=True)
_APPROVE = Op(
    "recovery_matcher.approve_candidate",
    "candidate_id, approved_by, decision, note",
    lambda answer: _candidate(answer.candidate),
    writes=True,
)
_STATUSES = {status.value: status for status in CandidateStatus}

TABLE = {
    "count_by_status": Op("recovery_matcher.count_by_status", "", whole()),
}
_LIST = Op("recovery_matcher.get_candidates", "", lambda answer: [_candidate(one) for one in answer.candidates])
_COUNT = Op("recovery_matcher.count_candidates", "", value("count"))


def _reported(request: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a report of failure."""
    failure = request.get("failure_match_id")
    payload = {key: text for key, text in request.get("failure_payload", {}).items() if key in FailurePayload.__slots__}
    return {
        "failure_match_id": "" if failure is None else str(failure),
        "failure_payload": FailurePayload(**payload),
        "source": request.get("source"),
    }


class RecoveryMatcher(SyncDriver, table=TABLE):
    """Suggests recoveries, and decides on what was suggested."""

    def suggest(self, request: dict[str, Any]) -> Any:
        """A suggestion for a report of failure, from what was done before."""
        return perform(_SUGGEST, _reported(request), self._session)

    async def suggest_hybrid(self, request: dict[str, Any]) -> Any:
        """The same from the cache, similar failures or a model first; does not block the loop."""
        unit = None
        if self._session is not None:
            # A `scoped_session` has another session in the other thread, which nobody would commit.
            unit = unit_of(self._session)
            unit.work.begin_session()
        return await asyncio.to_thread(perform, _HYBRID, _reported(request), unit)

    def get_candidates(self, status: str = "pending", limit: int = 50, offset: int = 0) -> Any:
        """Candidates of a status, newest first; none of a status that there is not."""
        if status not in _STATUSES:
            return []
        return perform(_LIST, {"status": _STATUSES[status], "limit": limit, "offset": offset}, self._session)

    def count_candidates(self, status: str = "pending") -> Any:
        """How many candidates have that status."""
        return perform(_COUNT, {"status": _STATUSES[status]}, self._session) if status in _STATUSES else 0

    def approve_candidate(self, candidate_id: int, approved_by: str, decision: str = "approved", note: str = "") -> Any:
        """Decides on a candidate; ValueError for another decision, or where there is no such candidate."""
        if decision not in ("approved", "rejected"):
            raise ValueError("decision must be 'approved' or 'rejected'")
        given = {
            "candidate_id": candidate_id,
            "approved_by": approved_by,
            "decision": CandidateDecision(decision),
            "note": note,
        }
        try:
            return perform(_APPROVE, given, self._session)
        except NotFoundError as error:
            raise ValueError(f"Candidate {candidate_id} not found") from error
