"""An engine that decides whether an agent may act: it reads what has happened, evaluates, and records its decision.

    python engine.py [address]
"""

from __future__ import annotations

import sys
import uuid
from datetime import datetime, timedelta, timezone

from policy_sidecar import IsolationLevel, Transaction, connect

BUDGET = 3


def decide(tx: Transaction, agent: str) -> str:
    """Decides and records, in one transaction; may run several times for one decision, and takes effect once."""
    now = datetime.now(timezone.utc)
    recent = tx.policy_engine.fetch_violations(agent_id=agent, since=now - timedelta(hours=1), limit=BUDGET).violations
    allowed = len(recent) < BUDGET
    evaluation = uuid.uuid4()
    tx.policy_engine.insert_evaluation(
        evaluation_id=evaluation,
        action_type="execute",
        agent_id=agent,
        request_context={"recent": len(recent), "budget": BUDGET},
        decision="allow" if allowed else "block",
        decision_reason=None if allowed else f"budget of {agent} is spent",
        policies_checked=1,
        evaluated_at=now,
    )
    if allowed:
        return "allow"
    tx.policy_engine.insert_violation(
        violation_id=uuid.uuid4(),
        evaluation_id=evaluation,
        policy_name="budget",
        violation_type="risk_ceiling_breach",
        severity=0.8,
        description=f"{agent} has {len(recent)} violations within an hour",
        evidence=[one.id for one in recent],
        agent_id=agent,
        routed_to_governor=False,
        detected_at=now,
    )
    return f"block: budget of {agent} is spent"


def main(address: str | None) -> None:
    with connect(address) as client:
        # Tried again where two engines decide at once, and where the sidecar is restarted meanwhile.
        def ask(agent: str) -> str:
            return client.run(lambda tx: decide(tx, agent), isolation=IsolationLevel.SERIALIZABLE, timeout=30)

        for _ in range(BUDGET):
            client.single_use.policy_engine.insert_violation(
                violation_id=uuid.uuid4(),
                violation_type="compliance_breach",
                severity=0.4,
                description="an example",
                evidence={},
                agent_id="agent-7",
                routed_to_governor=False,
                detected_at=datetime.now(timezone.utc),
            )
        print(ask("agent-7"))
        print(ask("agent-8"))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
