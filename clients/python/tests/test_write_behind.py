"""Writes without a result wait on their session and are sent together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy
from conftest import NOW, evaluation, evidence, new_id, violation
from relay import Relay
from sqlalchemy.orm import Session

from policy_sidecar import Client, aio, connect, errors, types
from policy_sidecar.dropin import AsyncUnit, Unit, unit_of
from policy_sidecar.dropin.policy_engine_driver import PolicyEngineDriver
from policy_sidecar.dropin.policy_rules_driver import PolicyRulesDriver

WRITES = 40
DRIVER = PolicyEngineDriver("")


def found(client: Client, *keys: str) -> list[bool]:
    return [client.policy_engine.fetch_violation_by_id(violation_id=key).violation is not None for key in keys]


def test_sixty_evaluations_are_64_calls_in_place_of_42_each(client: Client, address: str) -> None:
    relay = Relay(address)
    with connect(relay.address) as caller:
        for _ in range(3):
            with caller.transaction() as tx:
                tx.policy_engine.insert_evaluation(**evaluation(new_id()))
                for _ in range(WRITES - 1):
                    tx.policy_engine.insert_violation(**violation(new_id()))
        assert relay.calls.total() == 3 * (WRITES + 2)
        relay.calls.clear()

        keys = []
        with Unit(caller) as session:
            for read in ("ethical_constraints", "risk_ceilings", "safety_rules", "business_rules"):
                getattr(DRIVER, f"fetch_{read}")(session)
            for _ in range(60):
                decided = {**evaluation(new_id()), "request_context": "{}"}
                absent = dict.fromkeys(
                    ("agent_id", "tenant_id", "decision_reason", "modifications", "evaluation_ms", "rules_matched")
                )
                DRIVER.insert_evaluation(session, **{**absent, **decided})
                for _ in range(WRITES - 1):
                    keys.append(new_id())
                    DRIVER.insert_violation(session, **evidence(keys[-1]))
                session.commit()
        assert relay.calls.total() == 64 and relay.calls["Execute"] == 60
    relay.close()
    assert all(found(client, *keys[:: WRITES - 1], keys[-1]))


def test_a_read_sees_what_was_written_before_it_and_a_rollback_undoes_it(client: Client) -> None:
    key, waiting = new_id(), new_id()
    with Unit(client) as session:
        DRIVER.insert_violation(session, **evidence(key))
        assert not any(found(client, key))
        assert str(DRIVER.fetch_violation_by_id(session, key)["id"]) == key
        assert DRIVER.update_violation_acknowledged(session, key) == 1
        DRIVER.insert_violation(session, **evidence(waiting))
        session.rollback()
        assert DRIVER.fetch_violation_by_id(session, key) is None
        session.commit()
    assert found(client, key, waiting) == [False, False]


def test_what_a_caller_changes_after_a_call_is_not_sent(client: Client) -> None:
    key, matched = new_id(), ["a"]
    with Unit(client) as session:
        absent = dict.fromkeys(("agent_id", "tenant_id", "decision_reason", "modifications", "evaluation_ms"))
        given = {**absent, **evaluation(key), "request_context": "{}", "rules_matched": matched}
        DRIVER.insert_evaluation(session, **given)
        matched.append("b")
        session.commit()
    stored = client.policy_engine.fetch_evaluation_by_id(evaluation_id=key).evaluation
    assert stored is not None and stored.rules_matched == ["a"]


def test_many_and_large_writes_are_sent_in_pieces_of_one_transaction(client: Client, address: str) -> None:
    relay = Relay(address)
    keys = [new_id() for _ in range(1_203)]
    with connect(relay.address) as caller, Unit(caller) as session:
        for at, key in enumerate(keys):
            DRIVER.insert_violation(session, **evidence(key, description="x" * (100_000 if at > 1_200 else 1)))
        assert not any(found(client, keys[0]))
        session.commit()
    relay.close()
    assert all(found(client, keys[0], keys[-1]))
    assert relay.calls == {"Hold": 1, "Execute": relay.calls["Execute"], "Commit": 1} and relay.calls["Execute"] < 5


def test_a_commit_whose_answers_are_all_lost_is_looked_up(client: Client, address: str) -> None:
    relay = Relay(address)
    kept, undone, alone = (new_id() for _ in range(3))
    with connect(relay.address) as caller, Unit(caller) as session:
        relay.loses += ["Execute"] * 5
        DRIVER.insert_violation(session, **evidence(kept))
        session.commit()
        relay.drops += ["Execute"] * 5
        DRIVER.insert_violation(session, **evidence(undone))
        with pytest.raises(sqlalchemy.exc.OperationalError) as told:
            session.commit()
        assert isinstance(told.value, errors.SidecarError) and told.value.code == "ABORTED" and told.value.retriable
        session.rollback()
        relay.loses += ["InsertViolation"] * 5
        with pytest.raises(errors.UnavailableError) as lost:
            caller.single_use.policy_engine.insert_violation(**violation(alone))
        assert lost.value.idempotency_key is not None
        outcome = caller.transactions.get_outcome(idempotency_key=lost.value.idempotency_key).outcome
        assert outcome is types.Outcome.COMMITTED
    relay.close()
    assert (found(client, kept, undone, alone), relay.calls["GetOutcome"]) == ([True, False, True], 3)


def test_an_error_comes_at_the_flush_and_only_a_rollback_is_possible_then(client: Client) -> None:
    kept, undone = new_id(), new_id()
    with Unit(client) as session:
        DRIVER.insert_violation(session, **evidence(undone))
        DRIVER.insert_violation(session, **evidence(undone))
        with pytest.raises(sqlalchemy.exc.IntegrityError) as refused:
            session.flush()
        assert (refused.value.reason, refused.value.operation) == ("UNIQUE_VIOLATION", 1)
        for use in (session.commit, lambda: DRIVER.fetch_violation_by_id(session, kept)):
            with pytest.raises(sqlalchemy.exc.PendingRollbackError, match="UNIQUE_VIOLATION"):
                use()
        session.rollback()
        DRIVER.insert_violation(session, **evidence(kept))
        session.commit()
        DRIVER.insert_violation(session, **evidence(kept))
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            session.commit()
        with pytest.raises(errors.TransactionAbortedError):
            session.commit()
    with pytest.raises(TypeError, match="detected_at"):
        DRIVER.insert_violation(session, **evidence(kept, detected_at="yesterday"))
    assert found(client, kept, undone) == [True, False]


def test_what_a_session_cannot_flush_of_its_own_rows_keeps_the_drivers_from_being_committed(client: Client) -> None:
    registry: Any = sqlalchemy.orm.registry()
    table = sqlalchemy.Table("ledger", registry.metadata, sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
    entry: Any = type("Entry", (), {})
    registry.map_imperatively(entry, table)
    engine = sqlalchemy.create_engine("sqlite://")
    registry.metadata.create_all(engine)
    keys = [new_id() for _ in range(3)]

    def note(session: Session, number: int, key: str) -> None:
        made = entry()
        made.id = number
        session.add(made)
        DRIVER.insert_violation(session, **evidence(key))

    with Session(engine, info={"policy_sidecar": client}) as session:
        note(session, 1, keys[0])
        session.commit()
    with Session(engine, info={"policy_sidecar": client}) as session:
        note(session, 1, keys[1])
        with pytest.raises(sqlalchemy.exc.IntegrityError, match="ledger"):
            session.commit()
        session.rollback()
        note(session, 2, keys[2])
        unit_of(session).flush()
        session.commit()
    assert found(client, *keys) == [True, False, True]


def test_the_same_for_asyncio_with_what_is_tracked(client: Client, address: str) -> None:
    relay = Relay(address)
    rules = [new_id() for _ in range(20)]

    async def work() -> None:
        async with aio.connect(relay.address) as own, AsyncUnit(own) as session:
            driver = PolicyRulesDriver(session)
            for rule in rules:
                driver.create_rule(id=rule, tenant_id="t", name="n", conditions={"at": NOW.isoformat()})
                driver.create_integrity(id=new_id(), rule_id=rule, integrity_status="VERIFIED", integrity_score=1, hash_root="h")
            await session.commit()
            assert relay.calls == {"Execute": 1}
            first = await driver.fetch_rule_by_id("t", rules[0])
            assert first is not None
            first.conditions["changed"] = True
            driver.create_rule(id=rules[0], tenant_id="t", name="twice")
            with pytest.raises(sqlalchemy.exc.IntegrityError):
                await session.flush()
            await session.rollback()
            again = await driver.fetch_rule_by_id("t", rules[0])
            assert again is not None and "changed" not in again.conditions
            again.conditions["changed"] = True
            await session.commit()

    asyncio.run(work())
    relay.close()
    stored = client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=rules[0]).rule
    assert stored is not None and stored.conditions["changed"]
