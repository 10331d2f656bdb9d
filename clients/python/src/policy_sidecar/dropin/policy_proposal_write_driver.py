"""`PolicyProposalWriteDriver`."""

from __future__ import annotations

from typing import Any

from ._arguments import document
from ._shapes import changed, value
from ._table import AsyncDriver, Op

TABLE = {
    "create_proposal": Op(
        "policy_proposal_write.create_proposal",
        "tenant_id, proposal_name, proposal_type, rationale, proposed_rule, triggering_feedback_ids",
        value("id"),
        given={"proposed_rule": document},
        writes=True,
    ),
    "update_proposal_status": Op(
        "policy_proposal_write.update_proposal_status",
        "proposal_id, new_status, reviewed_at=None, reviewed_by=None, review_notes=None, effective_from=None",
        changed,
        writes=True,
    ),
    "create_version": Op(
        "policy_proposal_write.create_version",
        "proposal_id, version_number, rule_snapshot, created_by, change_reason",
        value("id"),
        given={"rule_snapshot": document},
        writes=True,
    ),
    "create_policy_rule": Op(
        "policy_proposal_write.create_policy_rule",
        "rule_id, tenant_id, name, description, rule_type, conditions, actions, source_incident_id=None,"
        " is_synthetic=False, synthetic_scenario_id=None",
        value("rule_id"),
        given={"conditions": document, "actions": document},
        writes=True,
    ),
    "delete_policy_rule": Op("policy_proposal_write.delete_policy_rule", "rule_id, tenant_id", changed, writes=True),
}


class PolicyProposalWriteDriver(AsyncDriver, table=TABLE):
    """Writes of proposals and of the rules that come of them."""


def get_policy_proposal_write_driver(session: Any) -> PolicyProposalWriteDriver:
    """A driver of the session."""
    return PolicyProposalWriteDriver(session)
