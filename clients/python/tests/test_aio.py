"""The same for asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from conftest import Proxy, evaluation, new_id, violation, wait_for

from policy_sidecar import Client, IsolationLevel, aio, errors

T = TypeVar("T")


def in_loop(address: str, work: Callable[[aio.Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with aio.connect(address) as client:
            return await work(client)

    return asyncio.run(main())


def exists(client: Client, evaluation_id: str) -> bool:
    return client.policy_engine.fetch_evaluation_by_id(evaluation_id=evaluation_id).evaluation is not None


def test_a_transaction_with_a_savepoint(client: Client, address: str) -> None:
    kept, undone, lost = new_id(), new_id(), new_id()

    async def work(caller: aio.Client) -> None:
        async with caller.transaction() as tx:
            await tx.policy_engine.insert_evaluation(**evaluation(kept))
            with pytest.raises(KeyError):
                async with tx.savepoint():
                    await tx.policy_engine.insert_evaluation(**evaluation(undone))
                    raise KeyError
        with pytest.raises(KeyError):
            async with caller.transaction() as tx:
                await tx.policy_engine.insert_evaluation(**evaluation(lost))
                raise KeyError

    in_loop(address, work)
    assert [exists(client, key) for key in (kept, undone, lost)] == [True, False, False]


def test_a_cancelled_task_rolls_back_at_once(client: Client, address: str) -> None:
    key = new_id()

    async def work(caller: aio.Client) -> None:
        begun = asyncio.Event()

        async def waits() -> None:
            async with caller.transaction(label=key) as tx:
                await tx.policy_engine.insert_evaluation(**evaluation(key))
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(waits())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_loop(address, work)
    wait_for(lambda: all(one.label != key for one in client.transactions.list().transactions))
    assert not exists(client, key)


def test_run_tries_again_what_collides(client: Client, address: str) -> None:
    rule = new_id()
    client.single_use.policy_rules.create_rule(id=rule, tenant_id="t", name="0")
    tries: list[str] = []

    async def count_up(tx: aio.Transaction) -> None:
        stored = (await tx.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=rule)).rule
        assert stored is not None
        tries.append(stored.name)
        if len(tries) == 1:
            client.single_use.policy_rules.update_rule(tenant_id="t", rule_id=rule, name="1")
        await tx.policy_rules.update_rule(tenant_id="t", rule_id=rule, name=str(int(stored.name) + 1))

    in_loop(address, lambda caller: caller.run(count_up, isolation=IsolationLevel.SERIALIZABLE))
    assert tries == ["0", "1"]


def test_a_stream_left_early(client: Client, address: str) -> None:
    with client.transaction() as tx:
        for _ in range(3):
            tx.policy_engine.insert_violation(**violation(new_id()), tenant_id="aio")

    async def work(caller: aio.Client) -> list[str | None]:
        stream = caller.policy_engine.stream_violations(tenant_id="aio")
        whole = [one.violation.tenant_id async for one in stream]
        async with caller.policy_engine.stream_violations(tenant_id="aio") as early:
            async for one in early:
                return [*whole, one.violation.tenant_id]
        return []

    assert in_loop(address, work) == ["aio"] * 4


def test_a_transaction_that_is_garbage_is_rolled_back_at_once(client: Client, address: str) -> None:
    label = new_id()

    def is_open() -> bool:
        gc.collect()
        return label in [one.label for one in client.transactions.list().transactions]

    async def work(caller: aio.Client) -> None:
        await caller.transaction(label=label).__aenter__()
        await asyncio.to_thread(wait_for, lambda: not is_open())

    in_loop(address, work)


def test_errors_deadlines_and_a_client_of_several_loops(address: str) -> None:
    caller = aio.connect(address)

    async def refused() -> None:
        with pytest.raises(errors.InvalidRequestError) as error:
            await caller.single_use.policy_engine.insert_evaluation(**evaluation("no"))
        assert [one.field for one in error.value.violations] == ["evaluation_id"]
        await caller.close()

    asyncio.run(refused())
    asyncio.run(refused())

    async def nobody() -> None:
        async with aio.connect("127.0.0.1:1", timeout=0.3) as nowhere:
            with pytest.raises(errors.DeadlineError):
                async with nowhere.transaction():
                    pass

    asyncio.run(nobody())


def test_a_commit_whose_answer_is_lost_is_looked_up(client: Client, proxy: Proxy) -> None:
    key = new_id()

    async def work(caller: aio.Client) -> None:
        async with caller.transaction() as tx:
            await tx.policy_engine.insert_evaluation(**evaluation(key))
            proxy.swallows_answers = True

            def cut() -> None:
                wait_for(lambda: exists(client, key))
                proxy.cut()

            threading.Thread(target=cut).start()

    in_loop(proxy.address, work)
    assert exists(client, key)
