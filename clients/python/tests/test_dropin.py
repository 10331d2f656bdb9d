"""The drop-in: all methods of the original are there, and what writes works in the transactions of its caller."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from conftest import NOW, evidence, new_id
from golden import read
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from policy_sidecar import Client, aio, errors, types
from policy_sidecar.dropin import AsyncUnit, Unit
from policy_sidecar.dropin._table import Driver
from policy_sidecar.dropin.policy_engine_driver import PolicyEngineDriver
from policy_sidecar.dropin.policy_proposal_read_driver import PolicyProposalReadDriver
from policy_sidecar.dropin.policy_proposal_write_driver import PolicyProposalWriteDriver
from policy_sidecar.dropin.policy_rules_driver import PolicyRulesDriver
from policy_sidecar.dropin.proposals_read_driver import ProposalsReadDriver
from policy_sidecar.dropin.recovery_matcher import RecoveryMatcher
from policy_sidecar.dropin.recovery_write_driver import RecoveryWriteService
from policy_sidecar.testing import Sidecar


def test_every_public_method_of_the_original_is_there_and_calls_its_rpc() -> None:
    inventory = read("inventory.json")
    assert len(inventory) == 159
    for line in inventory:
        kind = getattr(importlib.import_module(f"policy_sidecar.dropin.{line['driver']}"), line["class"])
        method = line["method"]
        assert callable(getattr(kind, method, None)), line
        table = getattr(kind, "table", {}) if issubclass(kind, Driver) else {}
        if method in table:
            service, _, rpc = line["rpc"].partition("/")
            words = table[method].rpc.replace(".", "_service/").replace("_", "").lower()
            assert words == f"{service}/{rpc}".lower(), line


def test_signatures_are_those_of_the_original() -> None:
    driver = PolicyEngineDriver
    assert str(inspect.signature(driver.fetch_violation_by_id)) == "(self, conn, violation_id)"
    assert str(inspect.signature(driver.fetch_policy_versions_auto)) == "(self, include_inactive=False, limit=20)"
    assert str(inspect.signature(driver.reset_risk_ceiling_committed)) == "(self, ceiling_id)"


def test_the_engine_driver_writes_in_its_callers_transaction(client: Client, address: str) -> None:
    driver = PolicyEngineDriver(address)
    kept, undone = new_id(), new_id()
    with driver.get_engine().begin() as conn:
        assert driver.insert_violation(conn, **evidence(kept)) is None
        with driver.managed_connection(conn):
            assert driver.fetch_violation_by_id_auto(kept)["evidence"] == {"a": 1}
    with pytest.raises(KeyError):
        with driver.get_engine().begin() as conn:
            driver.insert_violation(conn, **evidence(undone))
            raise KeyError
    assert driver.update_violation_acknowledged(Unit(client), kept) == 1
    assert str(driver.fetch_violation_by_id_auto(kept)["id"]) == kept
    assert driver.fetch_violation_by_id_auto(undone) is None
    with pytest.raises(RuntimeError, match="needs a transaction"):
        driver.insert_violation_committed(**evidence(undone))


def test_what_comes_after_the_end_of_a_connection_is_refused(address: str) -> None:
    driver = PolicyEngineDriver(address)
    with driver.get_engine().begin() as committed:
        pass
    with driver.get_engine().connect() as left:
        driver.insert_violation(left, **evidence(new_id()))
    for conn in (committed, left):
        assert conn.closed
        for late in (
            lambda conn: driver.insert_violation(conn, **evidence(new_id())),
            lambda conn: driver.reset_risk_ceiling(conn, new_id()),
            lambda conn: driver.fetch_risk_ceilings(conn),
            lambda conn: conn.commit(),
        ):
            with pytest.raises(sqlalchemy.exc.ResourceClosedError) as refused:
                late(conn)
            assert isinstance(refused.value, errors.TransactionEndedError) and not refused.value.retriable
        conn.rollback()
        conn.close()


def test_a_list_without_a_limit_is_whole(client: Client, address: str) -> None:
    driver, tenant = PolicyEngineDriver(address), new_id()

    async def proposals() -> list[int]:
        async with aio.connect(address) as caller, AsyncUnit(caller) as session:
            write, read = PolicyProposalWriteDriver(session), PolicyProposalReadDriver(session)
            for _ in range(51):
                await write.create_proposal(tenant, "n", "cost_cap", "r", {}, [])
            return [len(await read.fetch_proposals(tenant)), len(await read.fetch_proposals(tenant, limit=None))]

    with driver.get_engine().begin() as conn:
        for _ in range(101):
            driver.insert_violation(conn, **evidence(new_id(), tenant_id=tenant))
    assert len(driver.fetch_violations_auto(tenant_id=tenant)) == 100
    assert len(driver.fetch_violations_auto(tenant_id=tenant, limit=None)) == 101
    assert asyncio.run(proposals()) == [50, 51]


@pytest.fixture
def database(policy_sidecar_process: Sidecar) -> Iterator[sqlalchemy.Engine]:
    """The sidecar's own, for rows that no driver makes."""
    at = sqlalchemy.make_url(policy_sidecar_process.database).set(drivername="postgresql+pg8000")
    engine = sqlalchemy.create_engine(at)
    yield engine
    engine.dispose()


def test_a_flag_of_a_list_is_what_python_takes_it_for(database: sqlalchemy.Engine, address: str) -> None:
    driver, edge, tenant = PolicyEngineDriver(address), ("a", new_id()), new_id()
    with database.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "insert into policy.policy_dependencies (source_policy, target_policy, dependency_type, is_active)"
                " values ('a', :target, 'requires', false)"
            ),
            {"target": edge[1]},
        )
    for given, expected in ((None, True), (0, True), ("", True), ("yes", False)):
        assert (edge in driver.fetch_dependency_edges_auto(active_only=given)) == expected

    async def proposals() -> list[int]:
        async with aio.connect(address) as caller, AsyncUnit(caller) as session:
            await PolicyProposalWriteDriver(session).create_proposal(tenant, "n", "cost_cap", "r", {}, [])
            read = ProposalsReadDriver(session)
            return [len((await read.fetch_proposals(tenant, include_synthetic=given))[0]) for given in (None, "yes")]

    assert asyncio.run(proposals()) == [1, 1]


def test_numbers_of_updates_may_be_text(database: sqlalchemy.Engine, address: str) -> None:
    driver, name = PolicyEngineDriver(address), new_id()
    with database.begin() as connection:
        for insert in (
            "risk_ceilings (name, metric, max_value, breach_action) values (:name, 'm', 1, 'block')",
            "safety_rules (name, rule_type, condition, action) values (:name, 'r', '{}', 'a')",
        ):
            connection.execute(sqlalchemy.text(f"insert into policy.{insert}"), {"name": name})

    def read(conn: Any) -> list[Any]:
        found = driver.fetch_risk_ceilings(conn) + driver.fetch_safety_rules(conn)
        return [one for one in found if one["name"] == name]

    with driver.get_engine().connect() as conn:  # Nobody commits it.
        ceiling, rule = read(conn)
        driver.update_risk_ceiling(conn, ceiling.id, {"max_value": "12.5", "current_value": "3.5", "window_seconds": "60"})
        driver.update_safety_rule(conn, rule.id, {"priority": "7", "cooldown_seconds": "30"})
        ceiling, rule = read(conn)
        assert (ceiling.max_value, ceiling.current_value, ceiling.window_seconds) == (12.5, 3.5, 60)
        assert (rule.priority, rule.cooldown_seconds) == (7, 30)


def test_errors_are_those_of_sqlalchemy_too(address: str) -> None:
    driver = PolicyEngineDriver(address)
    key = new_id()
    with pytest.raises(sqlalchemy.exc.IntegrityError) as refused:
        with driver.get_engine().begin() as conn:
            driver.insert_violation(conn, **evidence(key))
            driver.insert_violation(conn, **evidence(key))
    assert type(refused.value).__name__ == "IntegrityError" and refused.value.reason == "UNIQUE_VIOLATION"
    with pytest.raises(sqlalchemy.exc.DataError):
        driver.fetch_violation_by_id_auto("no")


def test_a_session_of_sqlalchemy_is_followed(client: Client) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    match, other = new_id(), new_id()

    def upsert(session: Session, failure: str) -> Any:
        return RecoveryWriteService(session).upsert_recovery_candidate(
            failure, "retry", 0.5, json.dumps({}), "E", "s", "matcher", None
        )

    with Session(engine, info={"policy_sidecar": client}) as session:
        session.execute(sqlalchemy.text("create table ledger (what text)"))
        candidate, is_insert, count = upsert(session, match)
        assert (is_insert, count) == (True, 1)
        session.execute(sqlalchemy.text("insert into ledger values ('kept')"))
        session.commit()
        upsert(session, other)
        session.execute(sqlalchemy.text("insert into ledger values ('undone')"))
        session.rollback()
        matcher = RecoveryMatcher(session)
        found = [one["failure_match_id"] for one in matcher.get_candidates("all")]
        assert match in found and other not in found
        assert matcher.approve_candidate(candidate, "ann")["decision"] == "approved"
        RecoveryWriteService(session).update_recovery_candidate(
            candidate,
            ["execution_status = :status", "review_note = :note", "executed_at = now()"],
            {"id": candidate, "status": "skipped", "note": "n"},
        )
        with pytest.raises(ValueError, match="is not of the form"):
            RecoveryWriteService(session).update_recovery_candidate(candidate, ["confidence = 1 / 0"], {"id": candidate})
        session.commit()
        with pytest.raises(ValueError, match="Candidate 2147483647 not found"):
            matcher.approve_candidate(2147483647, "ann")
        assert session.execute(sqlalchemy.text("select what from ledger")).scalars().all() == ["kept"]
        assert next(one for one in matcher.get_candidates("all") if one["id"] == candidate)["review_note"] == "n"


def test_what_a_session_does_not_commit_is_rolled_back(client: Client) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    keys = [new_id() for _ in range(3)]

    def insert(session: Session, key: str) -> None:
        PolicyEngineDriver("").insert_violation(session, **evidence(key))

    with Session(engine, info={"policy_sidecar": client}) as session:
        insert(session, keys[0])
    with Session(engine, info={"policy_sidecar": client}) as session:
        insert(session, keys[1])
        with session.begin_nested():
            session.execute(sqlalchemy.text("select 1"))
        session.rollback()
        insert(session, keys[2])
        session.commit()
    found = [client.policy_engine.fetch_violation_by_id(violation_id=key).violation is not None for key in keys]
    assert found == [False, False, True]


def test_a_session_of_asyncio_is_followed_and_its_rules_are_tracked(client: Client, address: str) -> None:
    rule, undone = new_id(), new_id()

    async def main() -> None:
        async with aio.connect(address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            async with AsyncSession(engine, info={"policy_sidecar": own}) as session:
                rules = PolicyRulesDriver(session)
                rules.create_integrity(
                    id=new_id(), rule_id=rule, integrity_status="VERIFIED", integrity_score="1.000", hash_root="h"
                )
                made = rules.create_rule(id=rule, tenant_id="t", name="before", conditions={"a": 1}, unknown=1)
                assert (made.status, made.scope) == ("ACTIVE", "TENANT")
                await rules.flush()
                made.name = "after"
                await session.commit()

                rules.create_rule(id=undone, tenant_id="t", name="n")
                await rules.flush()
                await session.rollback()

                found = await rules.fetch_rule_by_id("t", rule)
                assert found is not None and found.name == "after"
                found.retire("ann", "old")
                await session.commit()

                proposal = await PolicyProposalWriteDriver(session).create_proposal("t", "n", "cost_cap", "r", {"a": 1}, [])
                assert (await PolicyProposalReadDriver(session).fetch_proposal_status(proposal)) == "draft"
                await session.commit()
            await engine.dispose()

    asyncio.run(main())
    stored = client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=rule).rule
    assert stored is not None and (stored.name, stored.status) == ("after", types.RuleStatus.RETIRED)
    assert client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=undone).rule is None


def test_a_rule_that_is_no_good_is_refused_until_it_is_mended(client: Client, address: str) -> None:
    made, changed = new_id(), new_id()
    client.single_use.policy_rules.create_rule(id=changed, tenant_id="t", name="n")

    async def main() -> None:
        async with aio.connect(address) as own, AsyncUnit(own) as session:
            rules = PolicyRulesDriver(session)
            new = rules.create_rule(id=made, tenant_id="t", name="n", status="GONE")
            for _ in range(2):
                with pytest.raises(ValueError, match="GONE"):
                    await session.commit()
            new.status = "ACTIVE"
            await session.commit()
            old = await rules.fetch_rule_by_id("t", changed)
            assert old is not None
            old.status = "GONE"
            for _ in range(2):
                with pytest.raises(ValueError, match="GONE"):
                    await session.commit()
            old.status = "RETIRED"
            await session.commit()

    asyncio.run(main())
    found = [client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=key).rule for key in (made, changed)]
    assert [one and one.status for one in found] == [types.RuleStatus.ACTIVE, types.RuleStatus.RETIRED]


def test_a_session_of_a_thread_or_of_a_task_is_followed_as_any_other(client: Client, address: str) -> None:
    keys = [new_id() for _ in range(3)]
    engine = sqlalchemy.create_engine("sqlite://")
    scoped = scoped_session(sessionmaker(engine, info={"policy_sidecar": client}))
    for key in keys[:2]:
        PolicyEngineDriver("").insert_violation(scoped, **evidence(key))
        scoped.commit()
        scoped.remove()
    PolicyEngineDriver("").insert_violation(scoped, **evidence(keys[2]))
    # What follows a session follows no other.
    with Session(engine) as other:
        other.execute(sqlalchemy.text("select 1"))
        other.commit()
    scoped.rollback()
    scoped.commit()
    scoped.remove()
    found = [client.policy_engine.fetch_violation_by_id(violation_id=key).violation is not None for key in keys]
    assert found == [True, True, False]

    async def main() -> str | None:
        async with aio.connect(address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            made = async_sessionmaker(engine, info={"policy_sidecar": own})
            scoped = async_scoped_session(made, scopefunc=asyncio.current_task)
            proposal = await PolicyProposalWriteDriver(scoped).create_proposal("t", "n", "cost_cap", "r", {}, [])
            await scoped.commit()
            await scoped.remove()
            await engine.dispose()
            return await PolicyProposalReadDriver(AsyncUnit(own)).fetch_proposal_status(proposal)

    assert asyncio.run(main()) == "draft"


def test_a_session_of_its_own_rolls_back_what_was_not_committed(address: str) -> None:
    async def main() -> list[str | None]:
        async with aio.connect(address) as own:
            async with AsyncUnit(own) as session:
                lost = await PolicyProposalWriteDriver(session).create_proposal("t", "n", "cost_cap", "r", {}, [])
            async with AsyncUnit(own) as session:
                driver = PolicyProposalWriteDriver(session)
                kept = await driver.create_proposal("t", "n", "cost_cap", "r", {}, [])
                assert await driver.update_proposal_status(kept, "approved", reviewed_at=NOW.replace(tzinfo=None))
                await session.commit()
            async with AsyncUnit(own) as session:
                reads = PolicyProposalReadDriver(session)
                return [await reads.fetch_proposal_status(one) for one in (lost, kept)]

    assert asyncio.run(main()) == [None, "approved"]
