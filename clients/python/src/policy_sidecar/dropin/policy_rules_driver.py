"""`PolicyRulesDriver`, whose objects are tracked: what is changed of them is sent at the next flush, or at the commit."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from .._operations import Operation
from ..types import EnforcementMode, IntegrityStatus, RuleScope, RuleSource, RuleStatus
from ._arguments import column
from ._parts import Waiting
from ._sessions import async_unit_of
from ._shapes import Row, one
from ._table import AsyncDriver, Op, operation_of, perform_async
from .errors import refused

_SETS = {
    "enforcement_mode": column("enforcement_mode", EnforcementMode),
    "scope": column("scope", RuleScope),
    "status": column("status", RuleStatus),
    "source": column("source", RuleSource),
    "integrity_status": column("integrity_status", IntegrityStatus),
    "integrity_score": lambda given: given if given is None else Decimal(str(given)),
}
_FETCH = Op("policy_rules.fetch_rule_by_id", "tenant_id, rule_id", one("rule"))
_CREATE = Op("policy_rules.create_rule", "", one("rule"), given=_SETS)
_UPDATE = Op("policy_rules.update_rule", "", one("rule"), given=_SETS)
_VERDICT = Op("policy_rules.create_integrity", "", one("integrity"), given=_SETS)

RULE = (
    "id tenant_id name description enforcement_mode scope scope_id conditions status created_by source rule_type"
    " source_proposal_id parent_rule_id legacy_rule_id retired_at retired_by retirement_reason superseded_by created_at"
    " updated_at"
).split()
INTEGRITY = "id rule_id integrity_status integrity_score hash_root details computed_at".split()


def _now() -> datetime:
    return datetime.now(timezone.utc)


class PolicyRule(Row):
    """A rule; names that are no column are ignored."""

    def __init__(self, **columns: Any) -> None:
        defaults = {"enforcement_mode": "WARN", "scope": "TENANT", "status": "ACTIVE", "source": "MANUAL"}
        times = {"rule_type": "SYSTEM", "created_at": _now(), "updated_at": _now()}
        given = {**defaults, **times, **columns}
        super().__init__({name: given.get(name) for name in RULE})

    def retire(self, by: str, reason: str, superseded_by: str | None = None) -> None:
        """Takes it out of force, now."""
        self.update(status="RETIRED", retired_at=_now(), retired_by=by, retirement_reason=reason)
        self.update(superseded_by=superseded_by, updated_at=_now())


class PolicyRuleIntegrity(Row):
    """A verdict on a rule."""

    def __init__(self, **columns: Any) -> None:
        super().__init__({name: {"computed_at": _now(), **columns}.get(name) for name in INTEGRITY})


class Tracked:
    """An object, and what the database has of it; None: nothing yet."""

    def __init__(self, of: Any, columns: list[str], create: Op, stored: dict[str, Any] | None = None) -> None:
        self.of = of
        self._columns = columns
        self._create = create
        self.found = self.stored = stored

    @property
    def key(self) -> tuple[Any, ...] | None:
        """Tenant and id of a rule that was sent or read."""
        return None if self.goes_last or self.stored is None else (str(self.stored["tenant_id"]), str(self.stored["id"]))

    @property
    def goes_last(self) -> bool:
        """Verdicts refer to rules."""
        return self._create is _VERDICT

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self.of, name, None) for name in self._columns}

    def change(self) -> Waiting | None:
        """The object where it is new, or what was changed of it since; ValueError or TypeError for what no column takes."""
        values = self._values()
        if self.stored is not None and (self.stored == values or self.goes_last):
            return None
        now = deepcopy(values)
        made = self._operation(self.stored, now)
        self.stored = now  # Not of what is refused, which would count as written.
        return Waiting(made, max(made.message.ByteSize(), len(json.dumps(now, default=str))))

    def go_back(self, stored: dict[str, Any]) -> None:
        """Gives the object the values that the database has again."""
        self.stored = stored
        for name, value in stored.items():
            if getattr(self.of, name, None) != value:
                setattr(self.of, name, deepcopy(value))

    def _operation(self, stored: dict[str, Any] | None, now: dict[str, Any]) -> Operation[Any]:
        if stored is None:
            return operation_of(self._create, now)
        changes = {name: given for name, given in now.items() if given != stored[name]}
        for name in ("id", "tenant_id"):
            if name in changes:
                raise refused(name, "cannot be changed", changes[name])
        selected = {"tenant_id": stored["tenant_id"], "rule_id": stored["id"]}
        return operation_of(_UPDATE, {**selected, **changes}).expecting(1)


class PolicyRulesDriver(AsyncDriver):
    """Rules and their verdicts as objects."""

    async def fetch_rule_by_id(self, tenant_id: str, rule_id: str) -> Any:
        """The rule, tracked; what is queued is sent before. One that is tracked already stays the object that it is.

        Without a session nothing is tracked.
        """
        found = await perform_async(_FETCH, {"tenant_id": tenant_id, "rule_id": rule_id}, self._session)
        if found is None:
            return None
        if self._session is None:
            return PolicyRule(**found)
        work = async_unit_of(self._session).work
        known: Any = work.find((found.tenant_id, found.id))
        if known is None:
            rule = PolicyRule(**found)
            known = Tracked(rule, RULE, _CREATE, deepcopy(dict(rule)))
            work.track(known)
        return known.of

    def add_rule(self, rule: Any) -> None:
        """Queues a rule, of this module's class or of another one with its attributes; not one that is tracked already."""
        async_unit_of(self._session).work.track(Tracked(rule, RULE, _CREATE))

    def add_integrity(self, integrity: Any) -> None:
        """Queues a verdict."""
        async_unit_of(self._session).work.track(Tracked(integrity, INTEGRITY, _VERDICT))

    def create_rule(self, **columns: Any) -> PolicyRule:
        """Makes a rule and queues it."""
        rule = PolicyRule(**columns)
        self.add_rule(rule)
        return rule

    def create_integrity(self, **columns: Any) -> PolicyRuleIntegrity:
        """Makes a verdict and queues it."""
        integrity = PolicyRuleIntegrity(**columns)
        self.add_integrity(integrity)
        return integrity

    async def flush(self) -> None:
        """Sends what is queued and what was changed, rules before verdicts."""
        await async_unit_of(self._session).flush()


def get_policy_rules_driver(session: Any) -> PolicyRulesDriver:
    """A driver of the session."""
    return PolicyRulesDriver(session)
