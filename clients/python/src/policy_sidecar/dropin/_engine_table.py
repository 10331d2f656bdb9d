"""The operations of `PolicyEngineDriver`, without their connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..types import IntegrityTable
from ._arguments import demanded, filtered, json_text, number
from ._shapes import affected, named, nothing, one, one_tuple, rows, tuples, value, whole
from ._table import Op

_FILTERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("violation_type", "agent_id", "tenant_id", "since", "policy_version", "metric"), filtered),
    **dict.fromkeys(("include_inactive", "include_resolved", "active_only"), bool),
}


def _read(rpc: str, parameters: str, answer: Any, **others: Any) -> Op:
    return Op(f"policy_engine.{rpc}", parameters, answer, given=_FILTERS, **others)


def _write(rpc: str, parameters: str, answer: Any = nothing, **given: Any) -> Op:
    return Op(f"policy_engine.{rpc}", parameters, answer, given=given, writes=True)


#: Columns of updates that take text for what they hold.
_COLUMNS = {
    "condition": json_text,
    **{name: number(name) for name in ("max_value", "current_value")},
    **{name: number(name, int) for name in "window_seconds breach_count cooldown_seconds priority triggered_count".split()},
}


def _spread(rpc: str, key: str) -> Op:
    """An update by a map of columns."""

    def converted(updates: dict[str, Any]) -> dict[str, Any]:
        return {name: _COLUMNS[name](given) if name in _COLUMNS else given for name, given in updates.items()}

    return Op(f"policy_engine.{rpc}", f"{key}, updates", nothing, given={"updates": converted}, writes=True, spread="updates")


_VERSION = "id version policy_hash is_active"

READS = {
    "fetch_ethical_constraints": _read("fetch_ethical_constraints", "", rows("ethical_constraints", "id")),
    "fetch_risk_ceilings": _read("fetch_risk_ceilings", "", rows("risk_ceilings", "id")),
    "fetch_safety_rules": _read("fetch_safety_rules", "", rows("safety_rules", "id")),
    "fetch_business_rules": _read("fetch_business_rules", "", rows("business_rules", "id")),
    "fetch_violations": _read(
        "fetch_violations",
        "violation_type=None, agent_id=None, tenant_id=None, severity_min=None, since=None, limit=100",
        rows("violations", "id"),
    ),
    "fetch_violation_by_id": _read("fetch_violation_by_id", "violation_id", one("violation", "id")),
    "fetch_policy_versions": _read(
        "fetch_policy_versions", "include_inactive=False, limit=20", rows("policy_versions", "id")
    ),
    "fetch_current_active_version": _read("fetch_current_active_version", "", one("policy_version", "id")),
    "fetch_policy_version_by_id": _read("fetch_policy_version_by_id", "version_id", one("policy_version", "id")),
    "fetch_policy_version_by_id_or_version": _read(
        "fetch_policy_version_by_id_or_version", "version_id", one_tuple("policy_version", _VERSION, "id")
    ),
    "fetch_version_for_rollback": _read("fetch_version_for_rollback", "version", one("policy_version", "id")),
    "fetch_provenance": _read("fetch_provenance", "policy_version=None, limit=50", rows("provenance")),
    "fetch_dependencies": _read("fetch_dependencies", "", rows("dependencies", "id")),
    "fetch_dependency_edges": _read(
        "fetch_dependency_edges", "active_only=True", tuples("edges", "source_policy target_policy")
    ),
    "fetch_dependency_edges_with_type": _read(
        "fetch_dependency_edges_with_type", "", tuples("edges", "source_policy target_policy dependency_type")
    ),
    "fetch_conflicts": _read("fetch_conflicts", "include_resolved=False, severity_min=None", rows("conflicts", "id")),
    "fetch_unresolved_conflicts": _read("fetch_unresolved_conflicts", "", rows("conflicts")),
    "fetch_temporal_policies": _read(
        "fetch_temporal_policies", "metric=None, include_inactive=False", rows("temporal_policies", "id")
    ),
    "fetch_temporal_policy_for_utilization": _read(
        "fetch_temporal_policy_for_utilization", "policy_id", one_tuple("utilization", "max_value window_seconds")
    ),
    "fetch_temporal_metric_sum": _read("fetch_temporal_metric_sum", "policy_id, window_seconds", value("total")),
    "fetch_temporal_stats": _read("fetch_temporal_stats", "", whole()),
    "fetch_temporal_storage_stats": _read(
        "fetch_temporal_storage_stats",
        "",
        named("event_count window_count oldest_event newest_event policies_with_events events_size windows_size"),
    ),
    "fetch_active_policies_for_integrity": Op(
        "policy_engine.fetch_active_policies_for_integrity",
        "table, name_col",
        value("names"),
        given={"table": IntegrityTable},
        drop=("name_col",),
    ),
    "fetch_temporal_policies_for_integrity": _read("fetch_temporal_policies_for_integrity", "", rows("temporal_policies")),
    "fetch_ethical_constraints_for_integrity": _read(
        "fetch_ethical_constraints_for_integrity", "", rows("ethical_constraints")
    ),
    "fetch_snapshot_by_id": _read("fetch_snapshot_by_id", "snapshot_id", one("snapshot")),
}

WRITES = {
    "insert_evaluation": _write(
        "insert_evaluation",
        "evaluation_id, action_type, agent_id, tenant_id, request_context, decision, decision_reason, modifications,"
        " evaluation_ms, policies_checked, rules_matched, evaluated_at",
        evaluation_id=demanded("evaluation_id"),
        request_context=json_text,
        modifications=json_text,
    ),
    "insert_violation": _write(
        "insert_violation",
        "violation_id, evaluation_id, policy_name, violation_type, severity, description, evidence, agent_id, tenant_id,"
        " action_attempted, routed_to_governor, governor_action, detected_at",
        violation_id=demanded("violation_id"),
        evidence=json_text,
        severity=number("severity"),
    ),
    "update_violation_acknowledged": _write("update_violation_acknowledged", "violation_id, notes=None", affected),
    "update_risk_ceiling": _spread("update_risk_ceiling", "ceiling_id"),
    "reset_risk_ceiling": _write("reset_risk_ceiling", "ceiling_id", affected),
    "update_safety_rule": _spread("update_safety_rule", "rule_id"),
    "deactivate_all_versions": _write("deactivate_all_versions", ""),
    "insert_policy_version": _write(
        "insert_policy_version",
        "version_id, version, policy_hash, created_by, description",
        version_id=demanded("version_id"),
    ),
    "mark_version_rolled_back": _write("mark_version_rolled_back", "by"),
    "activate_version": _write("activate_version", "version"),
    "insert_provenance": _write(
        "insert_provenance",
        "policy_id, policy_type, action, changed_by, policy_version, reason",
        policy_id=demanded("policy_id"),
    ),
    "insert_dependency": _write(
        "insert_dependency", "source_policy, target_policy, dependency_type, resolution_strategy, priority, description"
    ),
    "resolve_conflict": _write("resolve_conflict", "conflict_id, resolution, resolved_by", affected),
    "insert_temporal_policy": _write(
        "insert_temporal_policy",
        "name, description, temporal_type, metric, max_value, window_seconds, breach_action, cooldown_on_breach",
    ),
    "delete_old_temporal_events": _write("delete_old_temporal_events", "retention_hours", affected),
    "compact_temporal_events": _write("compact_temporal_events", "compact_hours, retention_hours", affected),
    "cap_temporal_events": _write("cap_temporal_events", "max_per_policy", affected),
    "insert_snapshot": _write(
        "insert_snapshot",
        "snapshot_id, tenant_id, policies, thresholds, policy_count, integrity_hash",
        snapshot_id=demanded("snapshot_id"),
        policies=json_text,
        thresholds=json_text,
    ),
}
