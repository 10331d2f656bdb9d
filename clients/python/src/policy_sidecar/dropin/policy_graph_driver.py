"""`PolicyGraphDriver`."""

from __future__ import annotations

from typing import Any

from ._shapes import rows
from ._table import AsyncDriver, Op

TABLE = {
    "fetch_active_policies": Op("policy_graph.fetch_active_policies", "tenant_id", rows("policies")),
    "fetch_all_policies": Op("policy_graph.fetch_all_policies", "tenant_id", rows("policies")),
    "fetch_active_limits": Op("policy_graph.fetch_active_limits", "tenant_id", rows("limits")),
    "fetch_all_limits": Op("policy_graph.fetch_all_limits", "tenant_id", rows("limits")),
    "fetch_resolved_conflicts": Op(
        "policy_graph.fetch_resolved_conflicts", "", lambda answer: {(one.policy_a, one.policy_b) for one in answer.pairs}
    ),
}


class PolicyGraphDriver(AsyncDriver, table=TABLE):
    """Reads behind the graphs of policy conflicts and dependencies."""


def get_policy_graph_driver(session: Any) -> PolicyGraphDriver:
    """A driver of the session."""
    return PolicyGraphDriver(session)
