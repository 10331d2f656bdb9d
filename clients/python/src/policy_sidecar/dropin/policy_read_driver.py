"""`PolicyReadDriver`."""

from __future__ import annotations

from typing import Any

from ._shapes import one, rows, whole
from ._table import Op, SyncDriver

TABLE = {
    "get_tenant_budget_settings": Op("policy_read.get_tenant_budget_settings", "tenant_id", one("settings")),
    "get_usage_sum_since": Op("policy_read.get_usage_sum_since", "tenant_id, since", whole()),
    "get_guardrail_by_id": Op("policy_read.get_guardrail_by_id", "guardrail_id", one("guardrail")),
    "list_all_guardrails": Op("policy_read.list_all_guardrails", "", rows("guardrails")),
}


class PolicyReadDriver(SyncDriver, table=TABLE):
    """Reads of budgets, usage and guardrails."""


def get_policy_read_driver(session: Any) -> PolicyReadDriver:
    """A driver of the session."""
    return PolicyReadDriver(session)
