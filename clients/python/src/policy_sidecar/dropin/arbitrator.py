"""`PolicyArbitrator`."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..types import ArbitrationInput, PolicyAction, PolicyLimit
from ._shapes import whole
from ._table import Op, SyncDriver


def _input(given: Any) -> ArbitrationInput | None:
    """What is arbitrated, of the original's objects or of this module's."""
    if given is None:
        return None

    def limits(name: str) -> list[PolicyLimit]:
        return [
            PolicyLimit(policy_id=one.policy_id, limit_type=one.limit_type, value=one.value, precedence=one.precedence)
            for one in getattr(given, name)
        ]

    return ArbitrationInput(
        policy_ids=list(given.policy_ids),
        token_limits=limits("token_limits"),
        cost_limits=limits("cost_limits"),
        burn_rate_limits=limits("burn_rate_limits"),
        breach_actions=[
            PolicyAction(policy_id=one.policy_id, action=one.action, precedence=one.precedence)
            for one in given.breach_actions
        ],
    )


TABLE = {
    "arbitrate": Op(
        "policy_arbitrator.arbitrate",
        "policy_ids, tenant_id, arb_input=None",
        whole("settled_token_limit", "settled_cost_limit_cents"),
        given={"arb_input": _input},
    ),
}


class PolicyArbitrator(SyncDriver, table=TABLE):
    """Settles what several policies ask for."""


@cache
def get_policy_arbitrator() -> PolicyArbitrator:
    """The one without a session."""
    return PolicyArbitrator()


__all__ = ["ArbitrationInput", "PolicyAction", "PolicyArbitrator", "PolicyLimit", "get_policy_arbitrator"]
