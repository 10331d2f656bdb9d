"""A savepoint of a session is one at the sidecar, for what drivers do on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from conftest import evidence, new_id, wait_for
from relay import Relay
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction, create_async_engine
from sqlalchemy.orm import Session
from test_write_behind import DRIVER, found

from policy_sidecar import Client, aio, connect, errors
from policy_sidecar.dropin import unit_of
from policy_sidecar.dropin.policy_rules_driver import PolicyRulesDriver


@pytest.fixture
def relay(address: str) -> Iterator[Relay]:
    between = Relay(address)
    yield between
    between.close()


def session_of(client: Client, **info: Any) -> Session:
    return Session(sqlalchemy.create_engine("sqlite://"), info={"policy_sidecar": client, **info})


def insert(session: Session, key: str, **others: object) -> None:
    DRIVER.insert_violation(session, **evidence(key, **others))


@pytest.mark.parametrize("prepares", [False, True])
@pytest.mark.parametrize("sent", [False, True])
def test_a_part_that_is_rolled_back_is_undone_alone(client: Client, sent: bool, prepares: bool) -> None:
    before, part, after = (new_id() for _ in range(3))
    with session_of(client, policy_sidecar_prepares=prepares) as session:
        insert(session, before)
        undone = session.begin_nested()
        insert(session, part)
        if sent:
            assert DRIVER.fetch_violation_by_id(session, part) is not None
        undone.rollback()
        assert DRIVER.fetch_violation_by_id(session, part) is None
        assert DRIVER.fetch_violation_by_id(session, before) is not None
        insert(session, after)
        session.commit()
    assert found(client, before, part, after) == [True, False, True]


def test_a_part_before_which_there_was_nothing_is_undone_also_where_it_brought_the_first_driver(client: Client) -> None:
    keys = [new_id() for _ in range(4)]
    with session_of(client) as session:
        with pytest.raises(KeyError), session.begin_nested():
            insert(session, keys[0])
            unit_of(session).flush()
            raise KeyError
        insert(session, keys[1])
        session.commit()
        with pytest.raises(KeyError), session.begin_nested():
            with session.begin_nested():
                insert(session, keys[2])
            raise KeyError
        with session.begin_nested():
            insert(session, keys[3])
        session.commit()
    assert found(client, *keys) == [False, True, False, True]


def test_parts_in_parts_are_undone_and_kept_each_by_itself(client: Client) -> None:
    keys = [new_id() for _ in range(7)]
    with session_of(client) as session:
        insert(session, keys[0])
        with session.begin_nested():
            insert(session, keys[1])
            for key in keys[2:4]:
                with session.begin_nested():
                    insert(session, key)
            with pytest.raises(KeyError), session.begin_nested():
                insert(session, keys[4])
                raise KeyError
        with pytest.raises(KeyError), session.begin_nested():
            with session.begin_nested():
                insert(session, keys[5])
            session.begin_nested()
            insert(session, keys[6])
            raise KeyError
        session.commit()
    assert found(client, *keys) == [True] * 4 + [False] * 3


def test_after_a_part_that_failed_the_session_goes_on(client: Client) -> None:
    kept, undone, after = (new_id() for _ in range(3))
    with session_of(client) as session:
        insert(session, kept)
        for _ in range(2):
            with pytest.raises(sqlalchemy.exc.IntegrityError), session.begin_nested():
                insert(session, undone)
                insert(session, kept)
        insert(session, after)
        session.commit()
    assert found(client, kept, undone, after) == [True, False, True]


def test_what_fails_before_a_part_is_not_undone_with_it(client: Client) -> None:
    twice = new_id()
    with session_of(client) as session:
        insert(session, twice)
        insert(session, twice)
        for refused in (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.PendingRollbackError):
            with pytest.raises(refused), session.begin_nested():
                pass
        assert not session.in_nested_transaction()
        with pytest.raises(sqlalchemy.exc.PendingRollbackError):
            session.commit()
    assert found(client, twice) == [False]


@pytest.mark.parametrize("prepares", [False, True])
def test_a_part_that_cannot_be_undone_keeps_all_from_being_committed(client: Client, relay: Relay, prepares: bool) -> None:
    before, part, after = (new_id() for _ in range(3))
    with connect(relay.address) as caller, session_of(caller, policy_sidecar_prepares=prepares) as session:
        insert(session, before)
        with pytest.raises(KeyError), session.begin_nested():
            insert(session, part)
            unit_of(session).flush()
            relay.drops.append("RollbackToSavepoint")
            raise KeyError
        with pytest.raises(sqlalchemy.exc.OperationalError):
            session.commit()
        session.rollback()
        insert(session, after)
        session.commit()
    assert found(client, before, part, after) == [False, False, True]


def test_a_savepoint_that_is_open_to_the_end_goes_with_all(client: Client) -> None:
    keys = [new_id() for _ in range(4)]
    for at, prepares in ((0, False), (2, True)):
        with session_of(client, policy_sidecar_prepares=prepares) as session, session.begin():
            insert(session, keys[at])
            session.begin_nested()
            insert(session, keys[at + 1])
    assert found(client, *keys) == [True] * 4


def test_the_savepoints_of_a_long_session_do_not_pile_up(client: Client, relay: Relay) -> None:
    keys = [new_id() for _ in range(5)]
    with connect(relay.address) as caller, session_of(caller) as session:
        unit_of(session)
        insert(session, keys[0])
        for key in keys[1:]:
            with session.begin_nested():
                insert(session, key)
        session.commit()
        relay_calls = dict(relay.calls)
        with session.begin_nested():
            session.execute(sqlalchemy.text("select 1"))
        session.commit()
    assert all(found(client, *keys)) and relay_calls == dict(relay.calls)
    assert (relay.calls["Savepoint"], relay.calls["ReleaseSavepoint"]) == (4, 3)


def test_a_session_of_asyncio_has_its_tracked_objects_again_as_they_were(client: Client, address: str) -> None:
    rules = [new_id() for _ in range(4)]
    for key in rules[:2]:
        client.single_use.policy_rules.create_rule(id=key, tenant_id="t", name="first", conditions={"a": [1]})

    async def main() -> None:
        async with aio.connect(address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            async with AsyncSession(engine, info={"policy_sidecar": own}) as session:
                driver = PolicyRulesDriver(session)
                known = await driver.fetch_rule_by_id("t", rules[0])
                assert known is not None
                made = driver.create_rule(id=rules[2], tenant_id="t", name="made")
                part = await session.begin_nested()
                known.name, made.name = "undone", "undone"
                known.conditions["a"].append(2)
                read = await driver.fetch_rule_by_id("t", rules[1])
                assert read is not None
                read.name = "undone"
                driver.create_rule(id=rules[3], tenant_id="t", name="undone")
                await driver.flush()
                await part.rollback()
                assert [known.name, made.name, read.name, known.conditions] == ["first", "made", "first", {"a": [1]}]
                read.description = known.description = made.description = "after"
                await session.commit()

                # What was only read keeps nobody from committing.
                await driver.fetch_rule_by_id("t", rules[0])
                await (await session.begin_nested()).rollback()
                await session.commit()
            await engine.dispose()

    asyncio.run(main())
    stored = [client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=key).rule for key in rules]
    told = [one and (one.name, one.description, one.conditions) for one in stored]
    assert told[:2] == [("first", "after", {"a": [1]})] * 2
    assert told[2] is not None and told[2][:2] == ("made", "after") and told[3] is None


Work = Callable[[AsyncSession, PolicyRulesDriver, AsyncSessionTransaction, str], Awaitable[None]]


def in_a_part(client: Client, relay: Relay, work: Work) -> list[object]:
    """Does something with a part that is open, in which a rule was made after one outside it; what is stored of the two."""
    before, part = new_id(), new_id()

    async def main() -> None:
        async with aio.connect(relay.address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            async with AsyncSession(engine, info={"policy_sidecar": own}) as session:
                driver = PolicyRulesDriver(session)
                driver.create_rule(id=before, tenant_id="t", name="n")
                undone = await session.begin_nested()
                driver.create_rule(id=part, tenant_id="t", name="n")
                await driver.flush()
                await work(session, driver, undone, before)
            await engine.dispose()

    asyncio.run(main())
    return [client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=key).rule for key in (before, part)]


def test_a_session_of_asyncio_whose_part_cannot_be_undone_commits_nothing(client: Client, relay: Relay) -> None:
    async def work(session: AsyncSession, driver: PolicyRulesDriver, undone: AsyncSessionTransaction, _: str) -> None:
        relay.drops.append("RollbackToSavepoint")
        await undone.rollback()
        with pytest.raises(errors.SidecarError, match="dropped"):
            await session.commit()

    assert in_a_part(client, relay, work) == [None, None]


def test_a_part_whose_undoing_is_cancelled_before_its_turn_keeps_all_from_being_committed(
    client: Client, relay: Relay
) -> None:
    async def work(session: AsyncSession, driver: PolicyRulesDriver, undone: AsyncSessionTransaction, before: str) -> None:
        relay.keeps.append("FetchRuleById")
        other = asyncio.ensure_future(driver.fetch_rule_by_id("t", before))
        await asyncio.to_thread(wait_for, lambda: relay.calls["FetchRuleById"])
        undoing = asyncio.ensure_future(undone.rollback())
        await asyncio.sleep(0)  # As far as to where it waits for its turn.
        undoing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await undoing
        relay.lets_go.set()
        await other
        with pytest.raises(sqlalchemy.exc.PendingRollbackError):
            await session.commit()

    assert in_a_part(client, relay, work) == [None, None]


def test_a_part_of_a_session_of_asyncio_that_is_cancelled_is_undone_alone(client: Client, address: str) -> None:
    before, part, after = (new_id() for _ in range(3))

    async def main() -> None:
        async with aio.connect(address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            async with AsyncSession(engine, info={"policy_sidecar": own}) as session:
                driver = PolicyRulesDriver(session)
                driver.create_rule(id=before, tenant_id="t", name="n")
                written = asyncio.Event()

                async def optional() -> None:
                    async with session.begin_nested():
                        driver.create_rule(id=part, tenant_id="t", name="n")
                        await driver.flush()
                        written.set()
                        await asyncio.Event().wait()

                task = asyncio.create_task(optional())
                await written.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                driver.create_rule(id=after, tenant_id="t", name="n")
                await session.commit()
            await engine.dispose()

    asyncio.run(main())
    stored = [client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=key).rule for key in (before, part, after)]
    assert [one is not None for one in stored] == [True, False, True]
