"""Streams that go on where they are cut, and lists by pages, for threads and for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from conftest import NOW, Proxy, new_id, violation
from relay import Relay

from policy_sidecar import Client, aio, connect, errors, operations, pages

#: Reads the violations of a tenant at an address, by a client of those options.
Read = Callable[..., None]


def long_violation(tenant: str, seconds: int) -> dict[str, Any]:
    """One detected so long after a moment; its text is so long that not many are on their way at once."""
    changed = {"detected_at": NOW + timedelta(seconds=seconds), "tenant_id": tenant}
    return {**violation(new_id(), "long " * 800), **changed}


def write_rows(client: Client, tenant: str, count: int) -> list[str]:
    """Writes that many of a tenant; their ids, newest first."""
    rows = [long_violation(tenant, -2 * index) for index in range(count)]
    for at in range(0, count, 600):
        client.execute([operations.policy_engine.insert_violation(**row) for row in rows[at : at + 600]])
    return [row["violation_id"] for row in rows]


def read(address: str, tenant: str, came: Callable[[str], None], **options: Any) -> None:
    with connect(address, **options) as client:
        for row in client.policy_engine.stream_violations(tenant_id=tenant):
            came(row.violation.id)


def read_aio(address: str, tenant: str, came: Callable[[str], None], **options: Any) -> None:
    async def main() -> None:
        async with aio.connect(address, **options) as client:
            async for row in client.policy_engine.stream_violations(tenant_id=tenant):
                came(row.violation.id)

    asyncio.run(main())


both = pytest.mark.parametrize("reads", [read, read_aio])


@pytest.fixture
def relay(address: str) -> Iterator[Relay]:
    between = Relay(address)
    yield between
    between.close()


@both
@pytest.mark.parametrize(("came", "added", "again"), [(1, 1, 1), (499, 2, 502), (511, 1, 7)])
def test_a_stream_that_is_cut_goes_on_with_nothing_missing_or_twice(
    client: Client, relay: Relay, reads: Read, came: int, added: int, again: int
) -> None:
    tenant = new_id()
    expected = write_rows(client, tenant, came + 559)
    # Rows between those that have come must not cost one of those that follow; the next stream is cut after them. They also
    # make the 500th, which has the token, another one than before.
    between = [long_violation(tenant, -2 * (came - 6) - 1) for _ in range(added)]
    relay.cuts = [came, again]
    got: list[str] = []

    def take(key: str) -> None:
        got.append(key)
        if len(got) == came:
            client.execute([operations.policy_engine.insert_violation(**row) for row in between])

    reads(relay.address, tenant, take)
    assert len(set(got)) == len(got)
    assert [key for key in got if key in expected] == expected
    assert set(got[came : came + added]) == {row["violation_id"] for row in between}
    assert relay.calls["StreamViolations"] == 3


@both
def test_a_stream_whose_connection_breaks_goes_on(client: Client, proxy: Proxy, reads: Read) -> None:
    tenant = new_id()
    expected = write_rows(client, tenant, 300)
    proxy.cuts_after = 400_000
    got: list[str] = []
    reads(proxy.address, tenant, got.append)
    assert got == expected
    assert proxy.accepted == 2


@both
def test_a_stream_that_is_cut_ends_where_its_client_says_so(client: Client, proxy: Proxy, reads: Read) -> None:
    tenant = new_id()
    write_rows(client, tenant, 300)
    proxy.cuts_after = 400_000
    with pytest.raises(errors.UnavailableError):
        reads(proxy.address, tenant, lambda _: None, resume=False)
    assert proxy.accepted == 1


def test_a_stream_that_is_cut_ends_where_its_call_says_so_and_in_a_transaction(client: Client, relay: Relay) -> None:
    tenant = new_id()
    write_rows(client, tenant, 3)
    with connect(relay.address) as far:
        relay.cuts = [1]
        with pytest.raises(errors.UnavailableError):
            list(far.options(resume=False).policy_engine.stream_violations(tenant_id=tenant))
        relay.cuts = [1]
        with pytest.raises(errors.UnavailableError), far.transaction() as tx:
            list(tx.options(resume=True).policy_engine.stream_violations(tenant_id=tenant))
        with connect(relay.address, resume=False) as ends:
            relay.cuts = [1]
            assert len(list(ends.options(resume=True).policy_engine.stream_violations(tenant_id=tenant))) == 3

    async def inside() -> None:
        async with aio.connect(relay.address) as far, far.transaction() as tx:
            relay.cuts = [1]
            async for _ in tx.policy_engine.stream_violations(tenant_id=tenant):
                pass

    with pytest.raises(errors.UnavailableError):
        asyncio.run(inside())
    assert relay.calls["StreamViolations"] == 5


@both
def test_a_stream_is_opened_again_four_times_without_a_new_row(client: Client, relay: Relay, reads: Read) -> None:
    tenant = new_id()
    expected = write_rows(client, tenant, 3)
    relay.cuts = [1, 1, 0, 1, 1]
    got: list[str] = []
    with pytest.raises(errors.UnavailableError):
        reads(relay.address, tenant, got.append)
    assert (got, relay.cuts) == (expected[:1], [])
    relay.cuts = [1, 1, 0, 2, 2, 0]
    got.clear()
    reads(relay.address, tenant, got.append)
    assert (got, relay.cuts) == (expected, [])


@both
@pytest.mark.parametrize(
    ("options", "error"),
    [({"timeout": 0.5}, errors.DeadlineError), ({"wait_for_ready": False}, errors.UnavailableError)],
)
def test_a_stream_whose_sidecar_does_not_come_back_ends(
    client: Client, relay: Relay, reads: Read, options: dict[str, Any], error: type[Exception]
) -> None:
    tenant = new_id()
    write_rows(client, tenant, 3)
    relay.cuts = [1]
    got: list[str] = []

    def take(key: str) -> None:
        got.append(key)
        relay.close()

    with pytest.raises(error):
        reads(relay.address, tenant, take, **options)
    assert len(got) == 1


@pytest.mark.parametrize("closes", ["client", "stream"])
def test_a_stream_that_is_closed_or_its_client_is_not_opened_again(
    client: Client, relay: Relay, monkeypatch: pytest.MonkeyPatch, closes: str
) -> None:
    tenant = new_id()
    write_rows(client, tenant, 3)
    relay.cuts = [1]
    far = connect(relay.address)
    stream = far.policy_engine.stream_violations(tenant_id=tenant)
    next(stream)
    # While it waits before it is opened again.
    monkeypatch.setattr("time.sleep", lambda _: (far if closes == "client" else stream).close())
    with pytest.raises(errors.UnavailableError):
        next(stream)
    monkeypatch.undo()
    assert list(stream) == []
    assert relay.calls["StreamViolations"] == 1
    far.close()


def test_a_list_is_read_by_pages(client: Client, address: str) -> None:
    tenant = new_id()
    expected = write_rows(client, tenant, 25)
    got = []
    for page in pages(client.policy_engine.fetch_violations, tenant_id=tenant, limit=10):
        got.append([one.id for one in page.violations])
    assert [len(page) for page in got] == [10, 10, 5]
    assert sum(got, []) == expected
    with pytest.raises(errors.InvalidRequestError):
        next(pages(client.policy_engine.fetch_violations, tenant_id=tenant, page_token="no token"))

    async def again() -> list[list[str]]:
        async with aio.connect(address) as caller:
            listed = aio.pages(caller.policy_engine.fetch_violations, tenant_id=tenant, limit=10)
            return [[one.id for one in page.violations] async for page in listed]

    assert asyncio.run(again()) == got
