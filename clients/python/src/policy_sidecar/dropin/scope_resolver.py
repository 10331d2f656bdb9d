"""`ScopeResolver`."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..types import PolicyScope, RunContext, ScopeType
from ._shapes import Row, one, value, whole
from ._table import Op, SyncDriver

_whole = whole()
_COLUMNS = (
    "id scope_id policy_id tenant_id scope_type agent_ids_json api_key_ids_json human_actor_ids_json description"
    " created_by created_at updated_at"
)


class ScopeResolutionResult(Row):
    """Which policies hold for a run, and why."""

    def to_snapshot(self) -> dict[str, Any]:
        """The map that is stored with the run."""
        snapshot: dict[str, Any] = self["snapshot"]
        return snapshot


def _context(given: Any) -> RunContext:
    """The run, of the original's object or of this module's."""
    names = ("tenant_id", "agent_id", "api_key_id", "human_actor_id", "run_id")
    return RunContext(**{name: getattr(given, name) for name in names})


def _scope(given: Any) -> PolicyScope:
    """A scope of its ids and its lists of ids as JSON text."""
    lists: dict[str, Any] = {name: getattr(given, name, None) for name in ("agent_ids_json", "api_key_ids_json", "human_actor_ids_json")}
    return PolicyScope(
        scope_id=given.scope_id,
        policy_id=given.policy_id,
        tenant_id=given.tenant_id,
        scope_type=ScopeType(getattr(given.scope_type, "value", given.scope_type)),
        **lists,
    )


TABLE = {
    "resolve_applicable_policies": Op(
        "scope_resolver.resolve_applicable_policies",
        "context",
        lambda answer: ScopeResolutionResult(_whole(answer)),
        given={"context": _context},
    ),
    "matches_scope": Op(
        "scope_resolver.matches_scope", "scope, context", value("matches"), given={"scope": _scope, "context": _context}
    ),
    "get_scope_for_policy": Op(
        "scope_resolver.get_scope_for_policy", "policy_id, tenant_id", one("scope", only=_COLUMNS)
    ),
}


class ScopeResolver(SyncDriver, table=TABLE):
    """Says which policies hold for a run."""


@cache
def get_scope_resolver() -> ScopeResolver:
    """The one without a session."""
    return ScopeResolver()


__all__ = ["PolicyScope", "RunContext", "ScopeResolutionResult", "ScopeResolver", "get_scope_resolver"]
