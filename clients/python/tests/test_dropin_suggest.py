"""Suggestions are stored with what else is done on their session, from whatever thread they are asked for."""

from __future__ import annotations

import asyncio

import sqlalchemy
from conftest import evidence, new_id, wait_for
from relay import Relay
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from test_write_behind import DRIVER, found

from policy_sidecar import Client, connect
from policy_sidecar.dropin import Unit
from policy_sidecar.dropin.recovery_matcher import RecoveryMatcher


def report(failure: str | None) -> dict[str, object]:
    """A failure of a kind that there has been none of before, which nothing has been cached of, either."""
    return {"failure_match_id": failure, "failure_payload": {"error_type": new_id(), "raw": "m"}, "source": "test"}


def suggested(client: Client, *failures: str) -> list[bool]:
    """Whether each of them has a candidate."""
    with Unit(client) as session:
        known = {one["failure_match_id"] for one in RecoveryMatcher(session).get_candidates("all", limit=1_000)}
    return [one in known for one in failures]


def test_a_suggestion_is_stored_with_its_session(client: Client) -> None:
    kept, undone = new_id(), new_id()
    with Session(sqlalchemy.create_engine("sqlite://"), info={"policy_sidecar": client}) as session:
        matcher = RecoveryMatcher(session)
        told = matcher.suggest(report(kept))
        assert told.failure_match_id == kept and told.explain["method"] == "no_history" and told.candidate_id > 0
        session.commit()
        matcher.suggest(report(undone))
        session.rollback()
    assert suggested(client, kept, undone) == [True, False]


def test_a_suggestion_for_no_failure_is_told_and_not_stored(client: Client) -> None:
    with Unit(client) as session:
        matcher = RecoveryMatcher(session)
        for one in (report(None), {**report(None), "failure_match_id": ""}, {"failure_payload": {}}):
            told = matcher.suggest(one)
            assert told.suggested_recovery and told.candidate_id is None
        assert asyncio.run(matcher.suggest_hybrid(report(None))).candidate_id is None


def test_a_hybrid_suggestion_belongs_to_the_session_of_the_thread_that_asks_for_it(client: Client) -> None:
    kept, undone = new_id(), new_id()
    scoped = scoped_session(sessionmaker(sqlalchemy.create_engine("sqlite://"), info={"policy_sidecar": client}))
    asyncio.run(RecoveryMatcher(scoped).suggest_hybrid(report(kept)))
    assert suggested(client, kept) == [False]
    scoped.commit()
    asyncio.run(RecoveryMatcher(scoped).suggest_hybrid(report(undone)))
    scoped.rollback()
    scoped.remove()
    assert suggested(client, kept, undone) == [True, False]


def test_hybrid_suggestions_of_one_session_at_once_are_one_transaction(client: Client, address: str) -> None:
    relay = Relay(address)
    failures, noted = [new_id() for _ in range(4)], [new_id() for _ in range(4)]

    async def at_once(session: Session) -> None:
        matcher = RecoveryMatcher(session)
        asked = [asyncio.ensure_future(matcher.suggest_hybrid(report(one))) for one in failures]
        for key in noted:
            await asyncio.sleep(0)
            DRIVER.insert_violation(session, **evidence(key))
        await asyncio.gather(*asked)

    with connect(relay.address) as caller:
        with Session(sqlalchemy.create_engine("sqlite://"), info={"policy_sidecar": caller}) as session:
            asyncio.run(at_once(session))
            session.commit()
    relay.close()
    assert all(suggested(client, *failures)) and all(found(client, *noted))
    assert relay.calls["Hold"] == relay.calls["Commit"] == 1


def test_the_loop_goes_on_while_a_hybrid_suggestion_is_thought_about(address: str) -> None:
    relay = Relay(address)
    relay.keeps.append("SuggestHybrid")

    async def ask(session: Unit) -> None:
        asked = asyncio.ensure_future(RecoveryMatcher(session).suggest_hybrid(report(new_id())))
        await asyncio.to_thread(wait_for, lambda: relay.calls["SuggestHybrid"])
        assert not asked.done()
        relay.lets_go.set()
        assert (await asked).candidate_id > 0

    with connect(relay.address) as caller, Unit(caller) as session:
        asyncio.run(ask(session))
    relay.close()
