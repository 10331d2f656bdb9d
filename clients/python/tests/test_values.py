"""Native values go in and come out as they are."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from decimal import Decimal

import pytest
import sqlalchemy
from conftest import NOW, evaluation, new_id, violation

from policy_sidecar import JSON_NULL, Client, JsonText, types
from policy_sidecar.dropin.policy_engine_driver import PolicyEngineDriver
from policy_sidecar.errors import InvalidRequestError
from policy_sidecar.testing import Sidecar


def test_values_come_back_as_they_went_in(client: Client) -> None:
    key = uuid.uuid4()
    document = {"a": [1, 1.0, -2.5, 2**70, None, True, "ä"], "b": {"c": {}}, "d": []}
    answer = client.single_use.policy_engine.insert_evaluation(
        evaluation_id=key,
        action_type="route",
        request_context=document,
        decision="allow",
        evaluation_ms=0.1,
        policies_checked=3,
        rules_matched=[],
        evaluated_at=NOW,
    )
    assert (answer.evaluation_id, answer.rows_affected) == (str(key), 1)
    stored = client.policy_engine.fetch_evaluation_by_id(evaluation_id=key).evaluation
    assert stored is not None
    assert stored.evaluated_at == NOW and stored.evaluated_at.utcoffset() is not None
    assert repr(stored.request_context) == repr(document)
    assert (stored.rules_matched, stored.evaluation_ms, stored.agent_id, stored.modifications) == ([], 0.1, None, None)


def test_the_json_null_is_not_the_absence_of_a_document(client: Client) -> None:
    key = new_id()
    given = {**evaluation(key), "request_context": JSON_NULL, "modifications": None}
    client.single_use.policy_engine.insert_evaluation(**given)
    stored = client.policy_engine.fetch_evaluation_by_id(evaluation_id=key).evaluation
    assert stored is not None
    assert stored.request_context is JSON_NULL and stored.modifications is None


def test_a_document_can_be_given_as_its_text(client: Client) -> None:
    key = new_id()
    given = {**violation(key), "evidence": JsonText('{"a": 1.50}')}
    client.single_use.policy_engine.insert_violation(**given)
    stored = client.policy_engine.fetch_violation_by_id(violation_id=key).violation
    assert stored is not None and stored.evidence == {"a": 1.5}
    for evidence, error in ((float("nan"), ValueError), ("\ud800", ValueError), (JsonText("{"), InvalidRequestError)):
        with pytest.raises(error, match="evidence"):
            client.single_use.policy_engine.insert_violation(**{**violation(new_id()), "evidence": evidence})


def test_a_document_that_python_does_not_read_comes_as_its_text(
    client: Client, policy_sidecar_process: Sidecar, address: str
) -> None:
    key, tenant = new_id(), new_id()
    given = {**violation(key), "evidence": JsonText('{"a": 1e5000}'), "tenant_id": tenant}
    client.single_use.policy_engine.insert_violation(**given)
    deep = {levels: "[" * levels + "]" * levels for levels in (500, 5_000)}
    at = sqlalchemy.make_url(policy_sidecar_process.database).set(drivername="postgresql+pg8000")
    engine = sqlalchemy.create_engine(at)
    with engine.begin() as connection:  # The sidecar itself takes 30 levels.
        for levels, text in deep.items():
            connection.execute(
                sqlalchemy.text(
                    "insert into policy.violations (violation_type, severity, description, evidence, tenant_id)"
                    " values ('other', 0, :levels, cast(:evidence as jsonb), :tenant)"
                ),
                {"levels": str(levels), "evidence": text, "tenant": tenant},
            )
    engine.dispose()
    for found in (
        client.policy_engine.fetch_violations(tenant_id=tenant).violations,
        PolicyEngineDriver(address).fetch_violations_auto(tenant_id=tenant),
    ):
        evidence = {one.description: one.evidence for one in found}
        assert evidence[given["description"]] == '{"a": 1' + 5_000 * "0" + "}"
        assert evidence["5000"] == deep[5_000] and isinstance(evidence["5000"], JsonText)
        assert json.dumps(evidence["500"]) == deep[500]
    client.single_use.policy_engine.insert_violation(**{**given, "violation_id": new_id(), "evidence": evidence["d"]})


def test_integers_beyond_doubles_stay_whole(client: Client) -> None:
    large = 2**53 + 1
    governance = types.IrGovernance(category=types.PolicyCategory.SAFETY, priority=large)
    module = types.IrModule(name="m", functions=[types.IrFunction(name="f", governance=governance)])
    back = client.conflict_resolver.resolve(module=module).module
    assert back.functions[0].governance is not None and back.functions[0].governance.priority == large


def test_decimals_and_closed_sets_are_types_of_their_own(client: Client) -> None:
    rule, verdict = new_id(), new_id()
    with client.transaction() as tx:
        made = tx.policy_rules.create_rule(
            id=rule, tenant_id="t", name="n", enforcement_mode=types.EnforcementMode.WARN
        ).rule
        tx.policy_rules.create_integrity(
            id=verdict,
            rule_id=rule,
            integrity_status=types.IntegrityStatus.VERIFIED,
            integrity_score=Decimal("0.125"),
            hash_root="h",
        )
    assert made.enforcement_mode is types.EnforcementMode.WARN and made.status is types.RuleStatus.ACTIVE
    assert types.ScopeType.ALL_RUNS.value == "all_runs" and types.RuleStatus("ACTIVE") is types.RuleStatus.ACTIVE
    detail = client.policy_rules_read.fetch_policy_rule_by_id(tenant_id="t", rule_id=rule).rule
    assert detail is not None and detail.integrity_score == Decimal("0.125")
    assert isinstance(detail.integrity_score, Decimal)


def test_an_update_changes_what_it_is_given_and_clears_what_is_none(client: Client) -> None:
    rule = new_id()
    services = client.single_use.policy_rules
    services.create_rule(id=rule, tenant_id="t", name="before", description="text", conditions={"a": 1})
    services.update_rule(tenant_id="t", rule_id=rule, name="after", description=None)
    stored = client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=rule).rule
    assert stored is not None
    assert (stored.name, stored.description, stored.conditions) == ("after", None, {"a": 1})


def test_what_a_field_cannot_hold_is_refused_by_its_name(client: Client) -> None:
    services = client.single_use.policy_engine
    wrong: dict[str, object] = {
        "detected_at": datetime(2026, 1, 1),
        "evidence": {"a": object()},
        "severity": "high",
        "description": 1,
    }
    for name, value in wrong.items():
        with pytest.raises(TypeError, match=f"^{name}: "):
            services.insert_violation(**{**violation(new_id()), name: value})


def test_a_length_of_time_is_a_timedelta(client: Client) -> None:
    with client.transaction(label="held") as tx:
        found = [one for one in client.transactions.list().transactions if one.id == tx.id]
    assert [(one.label, one.state) for one in found] == [("held", types.TransactionState.OPEN)]
    assert found[0].total_lease.total_seconds() > 0
