"""What drivers did is prepared before their caller's own database commits, and ends with that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import sqlalchemy
from conftest import evidence, new_id
from relay import Relay
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from test_write_behind import DRIVER, found

from policy_sidecar import Client, SidecarError, aio, connect, errors, types
from policy_sidecar.dropin import Unit
from policy_sidecar.dropin.policy_rules_driver import PolicyRulesDriver
from policy_sidecar.testing import Sidecar


@pytest.fixture(scope="module")
def engine(policy_sidecar_process: Sidecar) -> Iterator[Any]:
    """The caller's own way to the same PostgreSQL, with a table whose keys are checked by its commit alone."""
    at = sqlalchemy.make_url(policy_sidecar_process.database).set(drivername="postgresql+pg8000")
    engine = sqlalchemy.create_engine(at)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table own (what text unique deferrable initially deferred)"))
    yield engine
    engine.dispose()


def ids(client: Client) -> set[str | None]:
    return {one.id for one in client.transactions.list_prepared().transactions}


def info(client: Client) -> dict[str, Any]:
    return {"policy_sidecar": client, "policy_sidecar_prepares": True}


def note(session: Session, what: str) -> None:
    session.execute(sqlalchemy.text("insert into own values (:what)"), {"what": what})


def noted(engine: Any, what: str) -> int:
    with engine.connect() as connection:
        counted: int = connection.scalar(sqlalchemy.text("select count(*) from own where what = :what"), {"what": what})
        return counted


def test_ours_is_prepared_while_the_caller_commits_and_ends_as_that_does(client: Client, engine: Any) -> None:
    key, undone, later = (new_id() for _ in range(3))
    seen: list[int] = []

    def committing(connection: Any) -> None:
        seen.append(len(ids(client)))
        assert not any(found(client, key))

    sqlalchemy.event.listen(engine, "commit", committing)
    with Session(engine, info=info(client)) as session:
        note(session, key)
        DRIVER.insert_violation(session, **evidence(key))
        session.commit()
        assert (found(client, key), noted(engine, key), seen) == ([True], 1, [1])
        sqlalchemy.event.remove(engine, "commit", committing)

        note(session, key)
        DRIVER.insert_violation(session, **evidence(undone))
        with pytest.raises(sqlalchemy.exc.DatabaseError, match="own_what_key"):
            session.commit()
        assert len(ids(client)) == 1
        session.rollback()
        assert (found(client, undone), noted(engine, key), ids(client)) == ([False], 1, set())

        note(session, later)
        DRIVER.insert_violation(session, **evidence(undone, violation_type="x" * 1_000))
        with pytest.raises(sqlalchemy.exc.DataError):
            session.commit()
        session.rollback()
        assert noted(engine, later) == 0

        note(session, later)
        session.commit()
        assert noted(engine, later) == 1


def test_what_is_written_after_it_was_prepared_is_the_next_transactions(client: Client) -> None:
    prepared, later = new_id(), new_id()
    with Unit(client) as session:
        DRIVER.insert_violation(session, **evidence(prepared))
        session.prepare()
        DRIVER.insert_violation(session, **evidence(later))
        session.commit()
        assert found(client, prepared, later) == [True, False]
        session.commit()
    assert found(client, prepared, later) == [True, True]


def test_a_block_of_the_callers_session_that_fails_rolls_ours_back(client: Client, engine: Any) -> None:
    key = new_id()
    note_twice = pytest.raises(sqlalchemy.exc.DatabaseError, match="own_what_key")
    with note_twice, Session(engine, info=info(client)) as session, session.begin():
        DRIVER.insert_violation(session, **evidence(key))
        note(session, key)
        note(session, key)
    assert (found(client, key), noted(engine, key), ids(client)) == ([False], 0, set())


def test_an_end_whose_answer_is_lost_is_asked_for_again_and_told_where_nobody_answers(
    client: Client, address: str, engine: Any
) -> None:
    relay = Relay(address)
    kept, told, after = (new_id() for _ in range(3))
    with connect(relay.address) as caller, Session(engine, info=info(caller)) as session:
        relay.loses += ["CommitPrepared", "CommitPrepared"]
        note(session, kept)
        DRIVER.insert_violation(session, **evidence(kept))
        session.commit()
        assert found(client, kept) == [True]

        relay.loses += ["CommitPrepared"] * 5
        note(session, told)
        DRIVER.insert_violation(session, **evidence(told))
        with pytest.raises(errors.OutcomeUnknownError) as unknown:
            session.commit()
        outcome = client.transactions.get_outcome(transaction_id=unknown.value.transaction_id).outcome
        assert outcome is types.Outcome.COMMITTED and noted(engine, told) == 1
        session.close()
        note(session, after)
        DRIVER.insert_violation(session, **evidence(after))
        session.commit()
    relay.close()
    assert found(client, kept, told, after) == [True, True, True] and ids(client) == set()


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"])
def test_an_end_that_fails_after_the_callers_commit_is_told_with_the_id_whatever_it_failed_with(
    client: Client, address: str, engine: Any, code: str
) -> None:
    relay = Relay(address)
    relay.codes = [grpc.StatusCode[code]]
    key, other = new_id(), new_id()
    with connect(relay.address) as caller, Session(engine, info=info(caller)) as session:
        relay.loses += ["CommitPrepared"] * 5
        note(session, key)
        DRIVER.insert_violation(session, **evidence(key))
        with pytest.raises(errors.OutcomeUnknownError) as unknown:
            session.commit()
        relay.loses.clear()
        assert unknown.value.__cause__ is not None
        caller.transactions.commit_prepared(transaction_id=unknown.value.transaction_id)
        assert (found(client, key), noted(engine, key)) == ([True], 1)

    async def work() -> None:
        async with aio.connect(relay.address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            async with AsyncSession(engine, info={"policy_sidecar": own, "policy_sidecar_prepares": True}) as session:
                relay.loses += ["CommitPrepared"] * 5
                PolicyRulesDriver(session).create_rule(id=other, tenant_id="t", name="n")
                with pytest.raises(errors.OutcomeUnknownError) as unknown:
                    await session.commit()
                assert unknown.value.transaction_id is not None
            await engine.dispose()

    asyncio.run(work())
    relay.close()
    assert client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=other).rule is not None and ids(client) == set()


def test_an_end_that_somebody_else_has_made_is_told_as_it_is(client: Client, engine: Any) -> None:
    key = new_id()

    def committing(connection: Any) -> None:
        for one in ids(client):
            client.transactions.rollback_prepared(transaction_id=one)

    with Session(engine, info=info(client)) as session:
        note(session, key)
        DRIVER.insert_violation(session, **evidence(key))
        sqlalchemy.event.listen(engine, "commit", committing)
        with pytest.raises(errors.TransactionEndedError) as told:
            session.commit()
        sqlalchemy.event.remove(engine, "commit", committing)
    assert (told.value.reason, found(client, key), noted(engine, key)) == ("TRANSACTION_ROLLED_BACK", [False], 1)


def test_a_preparation_whose_answer_is_lost_is_rolled_back(client: Client, address: str, engine: Any) -> None:
    relay = Relay(address)
    key = new_id()
    with connect(relay.address) as caller, Session(engine, info=info(caller)) as session:
        relay.loses += ["Prepare"]
        note(session, key)
        DRIVER.insert_violation(session, **evidence(key))
        with pytest.raises(sqlalchemy.exc.OperationalError) as lost:
            session.commit()
        assert isinstance(lost.value, SidecarError) and lost.value.retriable
        assert len(ids(client)) == 1
        session.rollback()
        assert (found(client, key), noted(engine, key), ids(client)) == ([False], 0, set())
    relay.close()


def test_a_session_of_asyncio_and_sessions_of_ours(client: Client, address: str) -> None:
    rule, undone, kept = (new_id() for _ in range(3))

    async def work() -> None:
        async with aio.connect(address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            async with AsyncSession(engine, info={"policy_sidecar": own, "policy_sidecar_prepares": True}) as session:
                PolicyRulesDriver(session).create_rule(id=rule, tenant_id="t", name="n")
                await session.commit()
            await engine.dispose()

    asyncio.run(work())
    assert client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=rule).rule is not None
    with Unit(client) as session:
        assert session.prepare() is None
        session.commit()
        DRIVER.insert_violation(session, **evidence(undone))
        assert session.prepare() in ids(client)
        session.rollback()
        DRIVER.insert_violation(session, **evidence(kept))
        session.prepare()
        session.commit()
        assert (found(client, undone, kept), ids(client)) == ([False, True], set())
