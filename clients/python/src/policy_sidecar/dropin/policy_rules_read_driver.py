"""`PolicyRulesReadDriver`."""

from __future__ import annotations

from typing import Any

from ..types import EnforcementMode, RuleScope, RuleSource, RuleStatus
from ._arguments import member
from ._shapes import one, rows, value
from ._table import AsyncDriver, Op

_SETS = {
    "status": member(RuleStatus),
    "enforcement_mode": member(EnforcementMode),
    "scope": member(RuleScope),
    "source": member(RuleSource),
}
_items = rows("items")

TABLE = {
    "fetch_policy_rules": Op(
        "policy_rules_read.fetch_policy_rules",
        "tenant_id, *, status='ACTIVE', enforcement_mode=None, scope=None, source=None, rule_type=None,"
        " created_after=None, created_before=None, limit=20, offset=0",
        lambda answer: (_items(answer), answer.total),
        given=_SETS,
    ),
    "fetch_policy_rule_by_id": Op("policy_rules_read.fetch_policy_rule_by_id", "tenant_id, rule_id", one("rule")),
    "count_policy_rules": Op(
        "policy_rules_read.count_policy_rules", "tenant_id, status='ACTIVE'", value("count"), given=_SETS
    ),
}


class PolicyRulesReadDriver(AsyncDriver, table=TABLE):
    """Reads of rules with their verdicts."""


def get_policy_rules_read_driver(session: Any) -> PolicyRulesReadDriver:
    """A driver of the session."""
    return PolicyRulesReadDriver(session)
