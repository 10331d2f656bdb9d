"""`ProposalsReadDriver`."""

from __future__ import annotations

from typing import Any

from ._arguments import filtered
from ._shapes import one, rows, value, whole
from ._table import AsyncDriver, Op

_items = rows("items")
_stats = whole()


def _with_integer_zero(answer: Any) -> Any:
    """A rate of nothing is the integer 0."""
    stats = _stats(answer)
    return stats if stats["reviewed"] else type(stats)(stats, approval_rate_percent=0)


TABLE = {
    "fetch_proposals": Op(
        "proposals_read.fetch_proposals",
        "tenant_id, *, status='draft', proposal_type=None, days_old=None, include_synthetic=False, limit=50, offset=0",
        lambda answer: (_items(answer), answer.pending_count),
        given={"proposal_type": filtered, "days_old": filtered, "include_synthetic": bool},
    ),
    "fetch_proposal_by_id": Op("proposals_read.fetch_proposal_by_id", "tenant_id, proposal_id", one("proposal")),
    "count_draft_proposals": Op("proposals_read.count_draft_proposals", "tenant_id", value("count")),
    "list_proposals_paginated": Op(
        "proposals_read.list_proposals_paginated",
        "*, tenant_id=None, status=None, proposal_type=None, limit=50, offset=0",
        whole("next_page_token"),
        given={"tenant_id": filtered, "status": filtered, "proposal_type": filtered},
    ),
    "get_proposal_stats": Op(
        "proposals_read.get_proposal_stats", "*, tenant_id=None", _with_integer_zero, given={"tenant_id": filtered}
    ),
    "get_proposal_detail": Op("proposals_read.get_proposal_detail", "proposal_id", one("proposal")),
    "list_proposal_versions": Op("proposals_read.list_proposal_versions", "proposal_id", rows("versions")),
}


class ProposalsReadDriver(AsyncDriver, table=TABLE):
    """Reads of proposals by those that review them."""


def get_proposals_read_driver(session: Any) -> ProposalsReadDriver:
    """A driver of the session."""
    return ProposalsReadDriver(session)
