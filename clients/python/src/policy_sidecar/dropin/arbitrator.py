"""`PolicyArbitrator`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from .. import types
from ._shapes import whole
from ._table import Op, SyncDriver


@dataclass
class PolicyLimit:
    """A limit that a policy asks for."""

    policy_id: str
    limit_type: str
    value: float
    precedence: int = 100


@dataclass
class PolicyAction:
    """What a policy asks for when a limit is passed."""

    policy_id: str
    action: str
    precedence: int = 100


@dataclass
class ArbitrationInput:
    """What the policies of a run ask for."""

    policy_ids: list[str]
    token_limits: list[PolicyLimit] = field(default_factory=list)
    cost_limits: list[PolicyLimit] = field(default_factory=list)
    burn_rate_limits: list[PolicyLimit] = field(default_factory=list)
    breach_actions: list[PolicyAction] = field(default_factory=list)


def _input(given: Any) -> types.ArbitrationInput | None:
    """What is arbitrated, of the original's objects or of this module's."""
    if given is None:
        return None

    def limits(name: str) -> list[types.PolicyLimit]:
        return [
            types.PolicyLimit(policy_id=one.policy_id, limit_type=one.limit_type, value=one.value, precedence=one.precedence)
            for one in getattr(given, name)
        ]

    return types.ArbitrationInput(
        policy_ids=list(given.policy_ids),
        token_limits=limits("token_limits"),
        cost_limits=limits("cost_limits"),
        burn_rate_limits=limits("burn_rate_limits"),
        breach_actions=[
            types.PolicyAction(policy_id=one.policy_id, action=one.action, precedence=one.precedence)
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
