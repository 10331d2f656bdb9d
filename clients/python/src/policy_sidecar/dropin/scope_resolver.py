"""`ScopeResolver`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from typing import Any
from uuid import uuid4

from .. import types
from ..types import ScopeType
from ._shapes import Row, one, value, whole
from ._table import Op, SyncDriver

_whole = whole()
_row = one("scope")
_COLUMNS = (
    "id scope_id policy_id tenant_id scope_type agent_ids_json api_key_ids_json human_actor_ids_json description"
    " created_by created_at updated_at"
).split()


def _ids(column: str) -> property:
    """The list whose JSON text is in a column; an empty one is stored as none."""

    def read(scope: Row) -> Any:
        return json.loads(scope[column]) if scope[column] else []

    def write(scope: Row, ids: Any) -> None:
        scope[column] = json.dumps(ids) if ids else None

    return property(read, write)


class PolicyScope(Row):
    """To which runs of a tenant a policy applies; names that are no column are ignored."""

    agent_ids = _ids("agent_ids_json")
    api_key_ids = _ids("api_key_ids_json")
    human_actor_ids = _ids("human_actor_ids_json")

    def __init__(self, **columns: Any) -> None:
        now = datetime.now(timezone.utc)
        defaults = {"scope_id": f"SCOPE-{uuid4().hex[:12]}", "scope_type": "all_runs", "created_at": now, "updated_at": now}
        given = {**defaults, **columns}
        super().__init__({name: given.get(name) for name in _COLUMNS})

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def matches(
        self, agent_id: str | None = None, api_key_id: str | None = None, human_actor_id: str | None = None
    ) -> bool:
        """Whether it takes in a run of these ids; ValueError or TypeError where its type is unknown, or its ids no list."""
        kind = getattr(self.scope_type, "value", self.scope_type)
        given = {"agent": agent_id, "api_key": api_key_id, "human_actor": human_actor_id}
        if kind == "all_runs":
            return True
        if kind not in given:
            raise ValueError(f"{kind!r} is not a valid ScopeType")
        return given[kind] is not None and given[kind] in getattr(self, f"{kind}_ids")

    def to_snapshot(self) -> dict[str, Any]:
        """The map that is stored with a run."""
        return {name: getattr(self, name) for name in "scope_id scope_type agent_ids api_key_ids human_actor_ids".split()}

    @classmethod
    def create_all_runs_scope(cls, policy_id: str, tenant_id: str, created_by: str | None = None) -> PolicyScope:
        """A scope of every run."""
        return cls(policy_id=policy_id, tenant_id=tenant_id, created_by=created_by)

    @classmethod
    def create_agent_scope(
        cls, policy_id: str, tenant_id: str, agent_ids: list[str], created_by: str | None = None
    ) -> PolicyScope:
        """A scope of the runs of agents."""
        return cls._of("agent", agent_ids, policy_id=policy_id, tenant_id=tenant_id, created_by=created_by)

    @classmethod
    def create_api_key_scope(
        cls, policy_id: str, tenant_id: str, api_key_ids: list[str], created_by: str | None = None
    ) -> PolicyScope:
        """A scope of the runs under API keys."""
        return cls._of("api_key", api_key_ids, policy_id=policy_id, tenant_id=tenant_id, created_by=created_by)

    @classmethod
    def create_human_actor_scope(
        cls, policy_id: str, tenant_id: str, human_actor_ids: list[str], created_by: str | None = None
    ) -> PolicyScope:
        """A scope of the runs of people."""
        return cls._of("human_actor", human_actor_ids, policy_id=policy_id, tenant_id=tenant_id, created_by=created_by)

    @classmethod
    def _of(cls, kind: str, ids: list[str], **columns: Any) -> PolicyScope:
        made = cls(scope_type=kind, **columns)
        setattr(made, f"{kind}_ids", ids)
        return made


@dataclass
class RunContext:
    """What is known of a run."""

    tenant_id: str
    agent_id: str | None = None
    api_key_id: str | None = None
    human_actor_id: str | None = None
    run_id: str | None = None


class ScopeResolutionResult(Row):
    """Which policies hold for a run, and why."""

    def to_snapshot(self) -> dict[str, Any]:
        """The map that is stored with the run."""
        snapshot: dict[str, Any] = self["snapshot"]
        return snapshot


def _context(given: Any) -> types.RunContext:
    """The run, of the original's object or of this module's."""
    names = ("tenant_id", "agent_id", "api_key_id", "human_actor_id", "run_id")
    return types.RunContext(**{name: getattr(given, name) for name in names})


def _resolution(answer: Any) -> ScopeResolutionResult:
    resolution = ScopeResolutionResult(_whole(answer))
    resolution.context = RunContext(**resolution.context)
    return resolution


def _scope(given: Any) -> types.PolicyScope:
    """A scope of its ids and its lists of ids as JSON text."""
    lists: dict[str, Any] = {name: getattr(given, name, None) for name in ("agent_ids_json", "api_key_ids_json", "human_actor_ids_json")}
    return types.PolicyScope(
        scope_id=given.scope_id,
        policy_id=given.policy_id,
        tenant_id=given.tenant_id,
        scope_type=ScopeType(getattr(given.scope_type, "value", given.scope_type)),
        **lists,
    )


def _found(answer: Any) -> PolicyScope | None:
    found = _row(answer)
    return None if found is None else PolicyScope(**found)


TABLE = {
    "resolve_applicable_policies": Op(
        "scope_resolver.resolve_applicable_policies",
        "context",
        _resolution,
        given={"context": _context},
    ),
    "matches_scope": Op(
        "scope_resolver.matches_scope", "scope, context", value("matches"), given={"scope": _scope, "context": _context}
    ),
    "get_scope_for_policy": Op("scope_resolver.get_scope_for_policy", "policy_id, tenant_id", _found),
}


class ScopeResolver(SyncDriver, table=TABLE):
    """Says which policies hold for a run."""


@cache
def get_scope_resolver() -> ScopeResolver:
    """The one without a session."""
    return ScopeResolver()


__all__ = ["PolicyScope", "RunContext", "ScopeResolutionResult", "ScopeResolver", "ScopeType", "get_scope_resolver"]
