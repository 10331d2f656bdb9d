"""What was lost on its way, what is a caller's own, and how much time a call has; for threads and for asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from conftest import evaluation, new_id, violation, wait_for
from relay import Relay

from policy_sidecar import Client, Transaction, aio, connect, errors, operations, types


@pytest.fixture
def relay(address: str) -> Iterator[Relay]:
    between = Relay(address)
    yield between
    between.close()


def exist(client: Client, *keys: str) -> list[bool]:
    return [client.policy_engine.fetch_evaluation_by_id(evaluation_id=key).evaluation is not None for key in keys]


reset = pytest.mark.parametrize("code", ["CANCELLED", "UNKNOWN", "INTERNAL"])


@reset
def test_a_commit_whose_stream_was_reset_is_looked_up(client: Client, relay: Relay, code: str) -> None:
    relay.codes = [grpc.StatusCode[code]]
    kept, undone = new_id(), new_id()
    with connect(relay.address) as caller:
        relay.loses.append("Commit")
        with caller.transaction() as tx:
            tx.policy_engine.insert_evaluation(**evaluation(kept))
        relay.drops.append("Commit")
        with pytest.raises(errors.ConflictError), caller.transaction() as tx:
            tx.policy_engine.insert_evaluation(**evaluation(undone))
    assert exist(client, kept, undone) == [True, False]

    kept, again = new_id(), []

    async def count(tx: aio.Transaction) -> None:
        again.append(new_id())
        await tx.policy_engine.insert_evaluation(**evaluation(again[-1]))

    async def work() -> None:
        async with aio.connect(relay.address) as caller:
            relay.loses.append("Commit")
            async with caller.transaction() as tx:
                await tx.policy_engine.insert_evaluation(**evaluation(kept))
            relay.drops.append("Commit")
            await caller.run(count)

    asyncio.run(work())
    assert exist(client, kept, *again) == [True, False, True]


def test_a_call_outside_transactions_is_tried_five_times(client: Client, relay: Relay) -> None:
    with connect(relay.address) as caller:
        relay.drops = ["FetchRiskCeilings"] * 4
        caller.policy_engine.fetch_risk_ceilings()
        relay.drops = ["FetchRiskCeilings"] * 5
        with pytest.raises(errors.UnavailableError):
            caller.policy_engine.fetch_risk_ceilings()
    assert (relay.drops, relay.calls["FetchRiskCeilings"]) == ([], 10)

    async def work() -> None:
        async with aio.connect(relay.address) as caller:
            relay.drops = ["FetchRiskCeilings"] * 5
            with pytest.raises(errors.UnavailableError):
                await caller.policy_engine.fetch_risk_ceilings()

    asyncio.run(work())
    assert (relay.drops, relay.calls["FetchRiskCeilings"]) == ([], 15)


@reset
def test_a_write_whose_stream_was_reset_is_sent_again_and_takes_effect_once(client: Client, relay: Relay, code: str) -> None:
    relay.codes = [grpc.StatusCode[code]]
    keys = [new_id() for _ in range(4)]
    with connect(relay.address) as caller:
        relay.loses += ["InsertEvaluation", "Execute"]
        assert caller.single_use.policy_engine.insert_evaluation(**evaluation(keys[0])).rows_affected == 1
        caller.execute([operations.policy_engine.insert_evaluation(**evaluation(keys[1]))])
        with caller.transaction() as tx:
            relay.loses.append("InsertEvaluation")
            assert tx.policy_engine.insert_evaluation(**evaluation(keys[2])).rows_affected == 1

    async def work() -> None:
        async with aio.connect(relay.address) as own:
            relay.loses.append("InsertEvaluation")
            assert (await own.single_use.policy_engine.insert_evaluation(**evaluation(keys[3]))).rows_affected == 1

    asyncio.run(work())
    assert (relay.loses, relay.calls["InsertEvaluation"]) == ([], 6) and all(exist(client, *keys))


def test_a_write_that_was_lost_and_then_refused_for_a_limit_is_told_with_its_key(client: Client, relay: Relay) -> None:
    key = new_id()
    relay.codes.append(grpc.StatusCode.RESOURCE_EXHAUSTED)
    relay.loses += ["InsertEvaluation"] * 2
    with connect(relay.address) as caller, pytest.raises(errors.LimitError) as told:
        caller.single_use.policy_engine.insert_evaluation(**evaluation(key))
    assert told.value.idempotency_key is not None and exist(client, key) == [True]
    outcome = client.transactions.get_outcome(idempotency_key=told.value.idempotency_key).outcome
    assert outcome is types.Outcome.COMMITTED

    relay.codes, relay.loses = [grpc.StatusCode.RESOURCE_EXHAUSTED], ["InsertEvaluation"]
    with connect(relay.address) as caller, pytest.raises(errors.LimitError) as refused:
        caller.single_use.policy_engine.insert_evaluation(**evaluation(new_id()))
    assert refused.value.idempotency_key is None


def test_a_call_that_its_own_client_ended_is_not_made_again(relay: Relay) -> None:
    ended: list[errors.SidecarError] = []
    caller = connect(relay.address)

    def write() -> None:
        with pytest.raises(errors.CancelledError) as left:
            caller.single_use.policy_engine.insert_evaluation(**evaluation(new_id()))
        ended.append(left.value)

    relay.keeps.append("InsertEvaluation")
    writing = threading.Thread(target=write)
    writing.start()
    wait_for(lambda: relay.calls["InsertEvaluation"])
    caller.close()
    writing.join()
    assert relay.calls["InsertEvaluation"] == 1 and ended[0].idempotency_key is not None


@pytest.mark.parametrize("bare", [True, False])
def test_an_error_of_grpc_that_is_the_works_own_is_passed_on_and_nothing_tried_again(
    client: Client, address: str, bare: bool
) -> None:
    own: list[grpc.RpcError] = []

    def fails() -> None:
        try:
            if bare:
                raise grpc.RpcError("of another server")
            with grpc.insecure_channel("127.0.0.1:1") as other:
                other.unary_unary("/another.Service/Call")(b"")
        except grpc.RpcError as error:
            own.append(error)
            raise

    with pytest.raises(grpc.RpcError) as raised:
        client.run(lambda tx: fails())
    assert own == [raised.value]

    async def work(tx: aio.Transaction) -> None:
        fails()

    async def main() -> None:
        async with aio.connect(address) as caller:
            await caller.run(work)

    with pytest.raises(grpc.RpcError) as raised:
        asyncio.run(main())
    assert own[1:] == [raised.value]


def test_no_call_of_run_has_more_time_than_what_is_left_of_it(client: Client, relay: Relay) -> None:
    def check() -> None:
        first, *others = [left for name, left in relay.left if name != "Rollback"]
        assert len(others) == 3 and first is not None
        # The time of a call travels in tenths of a second below ten.
        assert all(left is not None and left < first - 0.3 for left in others), relay.left
        relay.left.clear()

    def work(tx: Transaction) -> None:
        tx.policy_engine.fetch_policy_versions(limit=1)
        time.sleep(0.5)
        tx.policy_engine.fetch_policy_versions(limit=1)
        tx.options(timeout=600).policy_engine.fetch_policy_versions(limit=1)

    with connect(relay.address) as caller:
        caller.run(work, timeout=9)
    check()

    async def work_aio(tx: aio.Transaction) -> None:
        await tx.policy_engine.fetch_policy_versions(limit=1)
        await asyncio.sleep(0.5)
        await tx.policy_engine.fetch_policy_versions(limit=1)
        await tx.options(timeout=600).policy_engine.fetch_policy_versions(limit=1)

    async def main() -> None:
        async with aio.connect(relay.address) as own:
            await own.run(work_aio, timeout=9)

    asyncio.run(main())
    check()


def test_what_run_has_not_done_in_its_time_is_not_committed(client: Client, relay: Relay) -> None:
    late, later = new_id(), new_id()

    def work(tx: Transaction) -> None:
        tx.policy_engine.insert_evaluation(**evaluation(late))
        time.sleep(1)

    with connect(relay.address) as caller, pytest.raises(errors.DeadlineError):
        caller.run(work, timeout=1)

    async def work_aio(tx: aio.Transaction) -> None:
        await tx.policy_engine.insert_evaluation(**evaluation(later))
        await asyncio.sleep(1.1)  # A loop's clock may be coarser.

    async def main() -> None:
        async with aio.connect(relay.address) as own:
            await own.run(work_aio, timeout=1)

    with pytest.raises(errors.DeadlineError):
        asyncio.run(main())
    assert exist(client, late, later) == [False, False] and relay.calls["Commit"] == 0


def test_a_key_of_the_callers_own_lets_a_message_that_comes_twice_take_effect_once(client: Client, address: str) -> None:
    message, listed, other = (new_id() for _ in range(3))
    given, row = violation(new_id()), evaluation(new_id())
    for _ in range(2):
        assert client.single_use.options(idempotency_key=message).policy_engine.insert_violation(**given).rows_affected == 1
        assert client.execute([operations.policy_engine.insert_evaluation(**row)], idempotency_key=listed).rows == [1]
        assert client.options(idempotency_key=listed).execute(
            [operations.policy_engine.insert_evaluation(**row)]
        ).rows == [1]
    assert client.transactions.get_outcome(idempotency_key=message).outcome is types.Outcome.COMMITTED
    with pytest.raises(errors.PreconditionError) as reused:
        client.single_use.options(idempotency_key=message).policy_engine.insert_violation(**violation(new_id()))
    assert reused.value.reason == "IDEMPOTENCY_KEY_REUSED"
    for refused in (lambda: client.options(idempotency_key="m-7"), lambda: client.execute([], idempotency_key="m-7")):
        with pytest.raises(ValueError, match="UUID"):
            refused()

    async def main() -> list[int]:
        async with aio.connect(address) as own:
            write: Any = own.single_use.options(idempotency_key=other).policy_engine.insert_violation
            twice = violation(new_id())
            done = [(await write(**twice)).rows_affected for _ in range(2)]
            again = await own.execute([operations.policy_engine.insert_evaluation(**row)], idempotency_key=listed)
            return done + again.rows

    assert asyncio.run(main()) == [1, 1, 1]


def test_a_client_of_many_loops_keeps_no_channel_of_one_that_was_closed_but_the_last(address: str) -> None:
    caller = aio.connect(address)
    channels: list[weakref.ref[grpc.aio.Channel]] = []

    async def job() -> None:
        await caller.policy_engine.fetch_policy_versions(limit=1)
        channels.append(weakref.ref(caller._lines.channel()))

    for _ in range(4):
        asyncio.run(job())
    gc.collect()
    assert [channel() is None for channel in channels] == [True, True, True, False]
