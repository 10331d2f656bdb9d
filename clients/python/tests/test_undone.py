"""What has to be undone in a transaction is never committed, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator, Iterator

import pytest
import sqlalchemy
from conftest import evaluation, new_id, wait_for
from relay import Relay

from policy_sidecar import Client, Transaction, aio, connect, errors
from policy_sidecar.testing import Sidecar

WAITING = """select count(*) from pg_locks join pg_stat_activity using (pid)
    where not granted and datname = current_database()"""


@pytest.fixture
def relay(address: str) -> Iterator[Relay]:
    between = Relay(address)
    yield between
    between.close()


#: What a caller goes on after who can do without a part.
optional = contextlib.suppress(KeyError, errors.SidecarError)


def exist(client: Client, *keys: str) -> list[bool]:
    return [client.policy_engine.fetch_evaluation_by_id(evaluation_id=key).evaluation is not None for key in keys]


async def reaches(relay: Relay, rpc: str) -> None:
    """Waits until the first call of it has come."""
    await asyncio.to_thread(wait_for, lambda: relay.calls[rpc])


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancels a task, and waits for its end."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def begun(tx: aio.Transaction, id: str) -> asyncio.Task[None]:
    """A part that has written, and never ends by itself."""
    written = asyncio.Event()

    async def part() -> None:
        async with tx.savepoint():
            await tx.policy_engine.insert_evaluation(**evaluation(id))
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(part())
    await written.wait()
    return task


def test_a_part_that_ends_with_what_is_no_exception_is_undone_alone(client: Client) -> None:
    kept, half = new_id(), new_id()
    with client.transaction() as tx:
        tx.policy_engine.insert_evaluation(**evaluation(kept))
        with pytest.raises(KeyboardInterrupt):
            with tx.savepoint():
                tx.policy_engine.insert_evaluation(**evaluation(half))
                raise KeyboardInterrupt
    assert exist(client, kept, half) == [True, False]


def test_a_part_that_is_cancelled_is_undone_alone(client: Client, address: str) -> None:
    kept, half, after = (new_id() for _ in range(3))

    async def work() -> None:
        async with aio.connect(address) as caller, caller.transaction() as tx:
            await tx.policy_engine.insert_evaluation(**evaluation(kept))
            await cancelled(await begun(tx, half))
            await tx.policy_engine.insert_evaluation(**evaluation(after))

    asyncio.run(work())
    assert exist(client, kept, half, after) == [True, False, True]


def test_a_part_that_is_cancelled_in_the_midst_of_a_statement_is_undone_alone(
    client: Client, address: str, policy_sidecar_process: Sidecar
) -> None:
    kept, half, rule = (new_id() for _ in range(3))
    client.single_use.policy_rules.create_rule(id=rule, tenant_id="t", name="n")
    at = sqlalchemy.make_url(policy_sidecar_process.database).set(drivername="postgresql+pg8000")
    engine = sqlalchemy.create_engine(at)

    def waiting() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(sqlalchemy.text(WAITING)) or 0)

    async def work() -> None:
        async with aio.connect(address) as caller, caller.transaction() as tx:
            await tx.policy_engine.insert_evaluation(**evaluation(kept))

            async def part() -> None:
                async with tx.savepoint():
                    await tx.policy_engine.insert_evaluation(**evaluation(half))
                    await tx.policy_rules.update_rule(tenant_id="t", rule_id=rule, name="late")

            with client.transaction() as other:
                other.policy_rules.update_rule(tenant_id="t", rule_id=rule, name="held")
                task = asyncio.create_task(part())
                await asyncio.to_thread(wait_for, waiting)
                await cancelled(task)

    asyncio.run(work())
    engine.dispose()
    assert exist(client, kept, half) == [True, False]
    held = client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=rule).rule
    assert held is not None and held.name == "held"


@pytest.mark.parametrize("fails", ["drops", "loses"])
def test_a_part_that_cannot_be_undone_keeps_all_from_being_committed(client: Client, relay: Relay, fails: str) -> None:
    kept, half = new_id(), new_id()
    with connect(relay.address) as caller:
        with pytest.raises(errors.UnavailableError), caller.transaction() as tx:
            tx.policy_engine.insert_evaluation(**evaluation(kept))
            getattr(relay, fails).append("RollbackToSavepoint")
            with optional, tx.savepoint():
                tx.policy_engine.insert_evaluation(**evaluation(half))
                raise KeyError
            for goes_on in (tx.policy_engine.fetch_policy_versions, tx.prepare, tx.savepoint().__enter__):
                with pytest.raises(errors.UnavailableError):
                    goes_on()
    assert exist(client, kept, half) == [False, False]

    async def work() -> None:
        async with aio.connect(relay.address) as caller, caller.transaction() as tx:
            await tx.policy_engine.insert_evaluation(**evaluation(kept))
            getattr(relay, fails).append("RollbackToSavepoint")
            with optional:
                async with tx.savepoint():
                    await tx.policy_engine.insert_evaluation(**evaluation(half))
                    raise KeyError

    with pytest.raises(errors.UnavailableError):
        asyncio.run(work())
    assert exist(client, kept, half) == [False, False] and relay.calls["Commit"] == 0


def test_the_error_that_a_part_is_left_by_is_not_hidden_by_what_hinders_its_undoing(relay: Relay) -> None:
    relay.drops.append("RollbackToSavepoint")
    with connect(relay.address) as caller, pytest.raises(errors.UnavailableError), caller.transaction() as tx:
        with pytest.raises(KeyError), tx.savepoint():
            raise KeyError


def test_run_does_all_again_where_a_part_could_not_be_undone(client: Client, relay: Relay) -> None:
    tries: list[tuple[str, str]] = []

    def work(tx: Transaction) -> None:
        tries.append((new_id(), new_id()))
        tx.policy_engine.insert_evaluation(**evaluation(tries[-1][0]))
        with optional, tx.savepoint():
            tx.policy_engine.insert_evaluation(**evaluation(tries[-1][1]))
            raise KeyError

    relay.drops.append("RollbackToSavepoint")
    with connect(relay.address) as caller:
        caller.run(work)
    assert [exist(client, *each) for each in tries] == [[False, False], [True, False]]


def test_a_part_that_is_told_as_failed_for_its_release_is_undone(client: Client, relay: Relay) -> None:
    kept, told = new_id(), new_id()
    relay.drops.append("ReleaseSavepoint")
    with connect(relay.address) as caller, caller.transaction() as tx:
        tx.policy_engine.insert_evaluation(**evaluation(kept))
        with pytest.raises(errors.UnavailableError):
            with tx.savepoint():
                tx.policy_engine.insert_evaluation(**evaluation(told))
    assert exist(client, kept, told) == [True, False]


def test_a_part_that_is_cancelled_while_it_is_undone_keeps_all_from_being_committed(client: Client, relay: Relay) -> None:
    kept, half = new_id(), new_id()

    async def work() -> None:
        async with aio.connect(relay.address) as caller, caller.transaction() as tx:
            await tx.policy_engine.insert_evaluation(**evaluation(kept))
            relay.keeps.append("RollbackToSavepoint")
            task = await begun(tx, half)
            task.cancel()
            await reaches(relay, "RollbackToSavepoint")
            await cancelled(task)

    with pytest.raises(errors.TransactionAbortedError, match="CancelledError"):
        asyncio.run(work())
    assert exist(client, kept, half) == [False, False]


def test_a_part_of_an_iterator_that_is_left_early_is_undone_or_keeps_all_from_being_committed(
    client: Client, address: str
) -> None:
    kept, half, lost = (new_id() for _ in range(3))

    def part(tx: Transaction) -> Generator[int, None, None]:
        with tx.savepoint():
            yield tx.policy_engine.insert_evaluation(**evaluation(half)).rows_affected

    with client.transaction() as tx:
        tx.policy_engine.insert_evaluation(**evaluation(kept))
        begun = part(tx)
        assert next(begun) == 1
        begun.close()
    assert exist(client, kept, half) == [True, False]

    async def part_aio(tx: aio.Transaction) -> AsyncGenerator[int, None]:
        async with tx.savepoint():
            yield (await tx.policy_engine.insert_evaluation(**evaluation(lost))).rows_affected

    async def work() -> None:
        async with aio.connect(address) as caller, caller.transaction() as tx:
            begun = part_aio(tx)
            assert await begun.__anext__() == 1
            await begun.aclose()

    with pytest.raises(errors.TransactionAbortedError, match="GeneratorExit"):
        asyncio.run(work())
    assert exist(client, lost) == [False]
