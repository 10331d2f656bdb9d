"""`PolicyProposalReadDriver`."""

from __future__ import annotations

from typing import Any

from ._arguments import filtered
from ._shapes import one, rows, value
from ._table import AsyncDriver, Op

_FILTERS = {"tenant_id": filtered, "feedback_type": filtered, "status": filtered}

TABLE = {
    "fetch_unacknowledged_feedback": Op(
        "policy_proposal_read.fetch_unacknowledged_feedback",
        "tenant_id=None, feedback_type=None",
        rows("feedback"),
        given=_FILTERS,
    ),
    "fetch_proposal_by_id": Op("policy_proposal_read.fetch_proposal_by_id", "proposal_id", one("proposal")),
    "fetch_proposal_status": Op("policy_proposal_read.fetch_proposal_status", "proposal_id", value("status")),
    "count_versions_for_proposal": Op("policy_proposal_read.count_versions_for_proposal", "proposal_id", value("count")),
    "fetch_proposals": Op(
        "policy_proposal_read.fetch_proposals", "tenant_id=None, status=None, limit=50", rows("proposals"), given=_FILTERS
    ),
    "check_rule_exists": Op("policy_proposal_read.check_rule_exists", "rule_id", value("exists")),
    "fetch_rule_by_id": Op("policy_proposal_read.fetch_rule_by_id", "rule_id, tenant_id", one("rule")),
}


class PolicyProposalReadDriver(AsyncDriver, table=TABLE):
    """Reads of proposals by those that make them."""


def get_policy_proposal_read_driver(session: Any) -> PolicyProposalReadDriver:
    """A driver of the session."""
    return PolicyProposalReadDriver(session)
