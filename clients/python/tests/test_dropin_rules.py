"""Rules as objects that are tracked: what is changed of them is written, or said to be lost."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy
from conftest import new_id
from relay import Relay
from sqlalchemy.orm.exc import StaleDataError

from policy_sidecar import Client, aio, errors, operations
from policy_sidecar.dropin import AsyncUnit
from policy_sidecar.dropin._units import default_aio_client
from policy_sidecar.dropin.policy_rules_driver import PolicyRule, PolicyRulesDriver

#: Bytes of one request, and of one answer, that the sidecar takes or gives.
LIMIT = 4 * 1024 * 1024


def on_session(address: str, work: Callable[[AsyncUnit, PolicyRulesDriver], Awaitable[None]]) -> None:
    """Does work on a session of its own."""

    async def main() -> None:
        async with aio.connect(address) as own, AsyncUnit(own) as session:
            await work(session, PolicyRulesDriver(session))

    asyncio.run(main())


def stored(client: Client, rule: str) -> tuple[str, str] | None:
    found = client.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=rule).rule
    return found and (found.name, found.status.value)


def test_a_rule_of_another_tenant_or_id_is_refused_with_all_that_was_changed_of_it(client: Client, address: str) -> None:
    rule = new_id()
    client.single_use.policy_rules.create_rule(id=rule, tenant_id="t", name="before")

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        found = await driver.fetch_rule_by_id("t", rule)
        found.name = "after"
        for column, other in (("tenant_id", "u"), ("id", new_id())):
            own, found[column] = found[column], other
            with pytest.raises(sqlalchemy.exc.DataError, match=column) as refused:
                await session.commit()
            assert isinstance(refused.value, errors.InvalidRequestError) and refused.value.code == "INVALID_ARGUMENT"
            found[column] = own
        await session.commit()

    on_session(address, work)
    assert stored(client, rule) == ("after", "ACTIVE")


def test_a_change_of_a_rule_that_is_gone_is_refused_and_nothing_is_written(client: Client, address: str) -> None:
    rule, other = new_id(), new_id()
    for key in (rule, other):
        client.single_use.policy_rules.create_rule(id=key, tenant_id="t", name="before")

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        for key in (other, rule):
            (await driver.fetch_rule_by_id("t", key)).name = "after"
        client.single_use.policy_proposal_write.delete_policy_rule(rule_id=rule, tenant_id="t")
        with pytest.raises(StaleDataError) as refused:
            await session.commit()
        assert isinstance(refused.value, errors.PreconditionError)
        with pytest.raises(sqlalchemy.exc.PendingRollbackError):
            await session.commit()
        await session.rollback()
        assert await driver.fetch_rule_by_id("t", rule) is None

    on_session(address, work)
    assert (stored(client, rule), stored(client, other)) == (None, ("before", "ACTIVE"))


@pytest.mark.parametrize(
    ("count", "conditions"),
    [(250, {"text": "x" * 20_000}), (1_000, {"numbers": list(range(130))})],
    ids=["bytes", "values"],
)
def test_rules_that_are_too_much_for_one_request_are_written_in_pieces(
    client: Client, address: str, count: int, conditions: dict[str, object]
) -> None:
    rules = [new_id() for _ in range(count)]

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        for key in rules:
            driver.create_rule(id=key, tenant_id="t", name="n", conditions=conditions)
        await session.commit()

    on_session(address, work)
    assert stored(client, rules[0]) == stored(client, rules[-1]) == ("n", "ACTIVE")


def test_rules_that_are_too_much_for_one_answer_are_retired_in_pieces(client: Client, address: str) -> None:
    rules, conditions = [new_id() for _ in range(48)], {"text": "x" * 90_000}
    assert len(rules) * len(conditions["text"]) > LIMIT
    create = operations.policy_rules.create_rule
    for half in (rules[:24], rules[24:]):
        client.execute([create(id=key, tenant_id="t", name="n", conditions=conditions) for key in half])

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        for rule in [await driver.fetch_rule_by_id("t", key) for key in rules]:
            rule.retire("ann", "old")
        await session.commit()

    on_session(address, work)
    assert {stored(client, key) for key in rules} == {("n", "RETIRED")}


def test_few_small_changes_are_still_one_call(address: str) -> None:
    relay = Relay(address)

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        rules = [driver.create_rule(id=new_id(), tenant_id="t", name="n") for _ in range(200)]
        await session.commit()
        assert len(rules) == 200 and relay.calls == {"Execute": 1}

    on_session(relay.address, work)
    relay.close()


def test_a_rule_is_one_object_of_its_session(client: Client, address: str) -> None:
    rule, made = new_id(), new_id()
    client.single_use.policy_rules.create_rule(id=rule, tenant_id="t", name="before")

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        found = await driver.fetch_rule_by_id("t", rule)
        found.name = "after"
        again = await PolicyRulesDriver(session).fetch_rule_by_id("t", rule)
        assert again is found and again.name == "after"
        again.description = "d"
        new = driver.create_rule(id=made, tenant_id="t", name="n")
        assert await driver.fetch_rule_by_id("t", made) is new
        assert await driver.fetch_rule_by_id("u", rule) is None
        first, second = await asyncio.gather(*(driver.fetch_rule_by_id("t", rule) for _ in range(2)))
        assert first is second is found
        await session.commit()
        # What others have changed since is there again with the next transaction.
        client.single_use.policy_rules.update_rule(tenant_id="t", rule_id=rule, name="theirs")
        later = await driver.fetch_rule_by_id("t", rule)
        assert isinstance(later, PolicyRule) and (later.name, later.description) == ("theirs", "d")

    on_session(address, work)
    assert stored(client, rule) == ("theirs", "ACTIVE")


def test_a_rule_whose_ids_are_no_texts_is_one_object_too(client: Client, address: str) -> None:
    rule, tenant = uuid.uuid4(), uuid.uuid4()

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        made = driver.create_rule(id=rule, tenant_id=tenant, name="n")
        assert await driver.fetch_rule_by_id(str(tenant), str(rule)) is made

    on_session(address, work)


def test_a_rule_is_read_without_a_session(
    client: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = new_id()
    client.single_use.policy_rules.create_rule(id=rule, tenant_id="t", name="n", conditions={"a": 1.0})
    monkeypatch.setenv("POLICY_SIDECAR", address)
    default_aio_client.cache_clear()
    found, missing = (asyncio.run(PolicyRulesDriver().fetch_rule_by_id(tenant, rule)) for tenant in ("t", "u"))
    default_aio_client.cache_clear()
    assert isinstance(found, PolicyRule) and (found.name, found.conditions) == ("n", {"a": 1.0}) and missing is None


def test_a_rule_that_is_tracked_already_is_not_queued_again(client: Client, address: str) -> None:
    rule, made = new_id(), new_id()
    client.single_use.policy_rules.create_rule(id=rule, tenant_id="t", name="before")

    async def work(session: AsyncUnit, driver: PolicyRulesDriver) -> None:
        found = await driver.fetch_rule_by_id("t", rule)
        found.name = "after"
        driver.add_rule(found)
        new = driver.create_rule(id=made, tenant_id="t", name="n")
        driver.add_rule(new)
        verdict = driver.create_integrity(
            id=new_id(), rule_id=made, integrity_status="VERIFIED", integrity_score=1, hash_root="h"
        )
        driver.add_integrity(verdict)
        await driver.flush()
        for add, one in ((driver.add_rule, found), (driver.add_rule, new), (driver.add_integrity, verdict)):
            add(one)
        new.name = "later"
        await session.commit()

    on_session(address, work)
    assert (stored(client, rule), stored(client, made)) == (("after", "ACTIVE"), ("later", "ACTIVE"))
