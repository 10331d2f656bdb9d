"""Tasks on one session: what one queues while another commits is not lost, and what one rolls back nobody commits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress

import pytest
from conftest import new_id, wait_for
from relay import Relay
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from test_dropin_rules import on_session, stored

from policy_sidecar import Client, aio, connect, errors
from policy_sidecar.dropin import AsyncUnit, Unit
from policy_sidecar.dropin.policy_proposal_write_driver import PolicyProposalWriteDriver
from policy_sidecar.dropin.policy_rules_driver import PolicyRulesDriver
from policy_sidecar.dropin.recovery_write_driver import RecoveryWriteService


async def queued_during(relay: Relay, rpc: str, commit: Callable[[], Awaitable[None]], queue: Callable[[], object]) -> None:
    """Commits, and queues something while the RPC is under way."""
    before = relay.calls[rpc]
    relay.lets_go.clear()
    relay.keeps = [rpc]
    committing = asyncio.ensure_future(commit())
    await asyncio.to_thread(wait_for, lambda: relay.calls[rpc] > before)
    queue()
    relay.lets_go.set()
    await committing


@pytest.mark.parametrize(("flushed", "rpc"), [(True, "Commit"), (False, "Execute")])
def test_a_rule_that_is_queued_while_another_task_commits_is_the_next_transactions(
    client: Client, address: str, flushed: bool, rpc: str
) -> None:
    relay = Relay(address)
    firsts, late, undone = [new_id(), new_id()], new_id(), new_id()

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        for first, queued in zip(firsts, (late, undone), strict=True):
            driver.create_rule(id=first, tenant_id="t", name="n")
            if flushed:
                await driver.flush()
            await queued_during(
                relay, rpc, session.commit, lambda: driver.create_rule(id=queued, tenant_id="t", name="queued")
            )
            assert (stored(client, first), stored(client, queued)) == (("n", "ACTIVE"), None)
            await (session.commit if queued == late else session.rollback)()
        await session.commit()

    on_session(relay.address, work)
    relay.close()
    assert (stored(client, late), stored(client, undone)) == (("queued", "ACTIVE"), None)


async def committed(session: AsyncSession, driver: PolicyRulesDriver, rule: str, block: bool = False) -> None:
    """Makes a rule, and commits, by itself or at the end of a block."""
    async with session.begin() if block else nullcontext():
        driver.create_rule(id=rule, tenant_id="t", name="n")
        await driver.flush()
    if not block:
        await session.commit()


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("rpc", ["Commit", "Prepare", "CommitPrepared"])
def test_a_rule_that_is_queued_while_a_session_of_sqlalchemy_commits_is_not_lost(
    client: Client, address: str, rpc: str, block: bool
) -> None:
    relay = Relay(address)
    first, queued, undone = (new_id() for _ in range(3))

    async def main() -> None:
        async with aio.connect(relay.address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            info = {"policy_sidecar": own, "policy_sidecar_prepares": rpc != "Commit"}
            async with AsyncSession(engine, info=info) as session:
                driver = PolicyRulesDriver(session)

                def queue() -> None:
                    driver.create_rule(id=queued, tenant_id="t", name="n")

                await queued_during(relay, rpc, lambda: committed(session, driver, first, block), queue)
                await session.commit()
                driver.create_rule(id=undone, tenant_id="t", name="n")
                await session.rollback()
                await session.commit()
            await engine.dispose()

    asyncio.run(main())
    relay.close()
    assert [stored(client, key) for key in (first, queued, undone)] == [("n", "ACTIVE"), ("n", "ACTIVE"), None]


def test_a_rule_that_is_queued_while_a_session_of_sqlalchemy_commits_is_rolled_back_with_the_next_transaction(
    client: Client, address: str
) -> None:
    relay = Relay(address)
    first, undone = new_id(), new_id()

    async def main() -> None:
        async with aio.connect(relay.address) as own:
            engine = create_async_engine("sqlite+aiosqlite://")
            info = {"policy_sidecar": own, "policy_sidecar_prepares": True}
            async with AsyncSession(engine, info=info) as session:
                driver = PolicyRulesDriver(session)

                def queue() -> None:
                    driver.create_rule(id=undone, tenant_id="t", name="n")

                await queued_during(relay, "CommitPrepared", lambda: committed(session, driver, first), queue)
                await session.rollback()
                await session.commit()
            await engine.dispose()

    asyncio.run(main())
    relay.close()
    assert [stored(client, key) for key in (first, undone)] == [("n", "ACTIVE"), None]


@pytest.mark.parametrize("rpc", ["Hold", "Execute"])
def test_what_was_to_be_rolled_back_is_not_committed_where_the_rollback_is_cancelled(
    client: Client, address: str, rpc: str
) -> None:
    relay = Relay(address)
    sent, waiting, after = (new_id() for _ in range(3))

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        if rpc == "Execute":
            driver.create_rule(id=sent, tenant_id="t", name="n")
            await driver.flush()
        driver.create_rule(id=waiting, tenant_id="t", name="n")
        before = relay.calls[rpc]
        relay.keeps.append(rpc)
        other = asyncio.ensure_future(driver.flush())
        await asyncio.to_thread(wait_for, lambda: relay.calls[rpc] > before)
        rollback = asyncio.ensure_future(session.rollback())
        await asyncio.sleep(0)  # As far as to where it waits for its turn.
        rollback.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rollback
        driver.create_rule(id=after, tenant_id="t", name="n")
        relay.lets_go.set()
        with suppress(errors.SidecarError):  # Unless it came before its transaction's end.
            await other
        await session.commit()

    on_session(relay.address, work)
    relay.close()
    assert [stored(client, key) for key in (sent, waiting, after)] == [None, None, ("n", "ACTIVE")]


def test_a_session_whose_call_is_cancelled_is_rolled_back_and_goes_on(client: Client, address: str) -> None:
    relay = Relay(address)
    before, after = new_id(), new_id()

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        driver.create_rule(id=before, tenant_id="t", name="n")
        await driver.flush()
        relay.keeps = ["CreateProposal"]
        proposal = PolicyProposalWriteDriver(session).create_proposal("t", "n", "cost_cap", "r", {}, [])
        call = asyncio.ensure_future(proposal)
        await asyncio.to_thread(wait_for, lambda: relay.calls["CreateProposal"] == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(PendingRollbackError, match="CancelledError"):
            await session.commit()
        await session.rollback()
        driver.create_rule(id=after, tenant_id="t", name="n")
        await session.commit()

    on_session(relay.address, work)
    relay.close()
    assert [stored(client, key) for key in (before, after)] == [None, ("n", "ACTIVE")]


def test_a_session_whose_call_is_interrupted_commits_nothing_that_nobody_knows_of(client: Client, address: str) -> None:
    relay = Relay(address)
    failure = new_id()
    relay.interrupts = ["UpsertRecoveryCandidate"]
    with connect(relay.address) as caller, Unit(caller) as session:
        service = RecoveryWriteService(session)
        with pytest.raises(KeyboardInterrupt):
            service.upsert_recovery_candidate(failure, "s", 0.5, "{}", "E", "s", "test", None)
        with pytest.raises(PendingRollbackError, match="KeyboardInterrupt"):
            session.commit()
        session.rollback()
        _, is_insert, _ = service.upsert_recovery_candidate(failure, "s", 0.5, "{}", "E", "s", "test", None)
        session.commit()
    relay.close()
    assert is_insert


def test_what_tasks_write_on_one_session_is_one_transaction(client: Client, address: str) -> None:
    relay = Relay(address)
    made: list[str] = []

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        proposals = PolicyProposalWriteDriver(session)
        calls = (proposals.create_proposal("t", "n", "cost_cap", "r", {}, []) for _ in range(4))
        made.extend(await asyncio.gather(*calls))
        await session.commit()

    on_session(relay.address, work)
    relay.close()
    found = [client.policy_proposal_read.fetch_proposal_by_id(proposal_id=one).proposal for one in made]
    assert None not in found and relay.calls["Hold"] == relay.calls["Commit"] == 1


def test_what_a_session_that_is_garbage_has_locked_is_free_again_at_once(client: Client, address: str) -> None:
    before = {one.id for one in client.transactions.list().transactions}

    def opened() -> int:
        gc.collect()
        return len({one.id for one in client.transactions.list().transactions} - before)

    async def work() -> None:
        async with aio.connect(address) as caller:
            engine = create_async_engine("sqlite+aiosqlite://")
            sessions: list[AsyncSession | AsyncUnit] = [AsyncSession(engine, info={"policy_sidecar": caller}), AsyncUnit(caller)]
            for session in sessions:
                await PolicyProposalWriteDriver(session).create_proposal("t", "n", "cost_cap", "r", {}, [])
            assert opened() == 2
            del session
            sessions.clear()
            await asyncio.to_thread(wait_for, lambda: opened() == 0)
            await engine.dispose()

    asyncio.run(work())
