"""Streams that go on where they are cut, and lists by pages, for threads and for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from conftest import NOW, Program, Proxy, new_id, violation

from policy_sidecar import Client, aio, connect, errors, operations, pages

#: Reads the violations of a tenant by a client that `connect` makes of the address and those options.
Read = Callable[..., None]


def long_violation(tenant: str, seconds: int) -> dict[str, Any]:
    """One detected so long after a moment; its text is too long for many to be on their way at once."""
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


@both
@pytest.mark.parametrize("cut", [0, 510])
def test_a_stream_that_is_cut_goes_on_with_nothing_missing_or_twice(
    client: Client, proxy: Proxy, reads: Read, cut: int
) -> None:
    tenant = new_id()
    expected = write_rows(client, tenant, cut + 560)
    # A row between those that have come must not cost one of those that follow.
    between = long_violation(tenant, -2 * (cut - 5) - 1)
    got: list[str] = []

    def came(key: str) -> None:
        got.append(key)
        if len(got) == cut + 1:
            client.single_use.policy_engine.insert_violation(**between)
        if len(got) == cut + 1 or key == between["violation_id"]:
            proxy.cut()

    reads(proxy.address, tenant, came)
    assert len(set(got)) == len(got)
    assert [key for key in got if key in expected] == expected
    assert proxy.accepted > 1
    assert between["violation_id"] in got


@both
def test_a_stream_that_is_cut_ends_where_its_client_says_so(client: Client, proxy: Proxy, reads: Read) -> None:
    tenant = new_id()
    write_rows(client, tenant, 500)
    with pytest.raises(errors.UnavailableError):
        reads(proxy.address, tenant, lambda _: proxy.cut(), resume=False)


def test_a_stream_that_is_cut_ends_where_its_call_says_so_and_in_a_transaction(client: Client, proxy: Proxy) -> None:
    tenant = new_id()
    write_rows(client, tenant, 500)
    with connect(proxy.address) as far:
        with pytest.raises(errors.UnavailableError):
            for _ in far.options(resume=False).policy_engine.stream_violations(tenant_id=tenant):
                proxy.cut()
        with pytest.raises(errors.SidecarError):
            with far.transaction() as tx:
                for _ in tx.options(resume=True).policy_engine.stream_violations(tenant_id=tenant):
                    proxy.cut()

    async def inside() -> None:
        async with aio.connect(proxy.address) as far, far.transaction() as tx:
            async for _ in tx.policy_engine.stream_violations(tenant_id=tenant):
                proxy.cut()

    with pytest.raises(errors.SidecarError):
        asyncio.run(inside())


@both
@pytest.mark.parametrize(
    ("options", "error"),
    [({"timeout": 0.5}, errors.DeadlineError), ({"wait_for_ready": False}, errors.UnavailableError)],
)
def test_a_stream_whose_sidecar_does_not_come_back_ends(
    client: Client, mortal: tuple[Program, str], reads: Read, options: dict[str, Any], error: type[Exception]
) -> None:
    program, address = mortal
    tenant = new_id()
    write_rows(client, tenant, 500)
    killed: list[str] = []

    def came(key: str) -> None:
        if not killed:
            program.kill()
        killed.append(key)

    with connect(address) as near:
        assert near.policy_engine.fetch_policy_versions(limit=1).policy_versions
    with pytest.raises(error):
        reads(address, tenant, came, **options)
    assert 0 < len(killed) < 500
    program.start()


def test_a_client_that_is_closed_opens_no_stream_again(client: Client, proxy: Proxy) -> None:
    tenant = new_id()
    write_rows(client, tenant, 500)
    far = connect(proxy.address)
    stream = far.policy_engine.stream_violations(tenant_id=tenant)
    next(stream)
    far.close()
    with pytest.raises(errors.CancelledError):
        list(stream)
    assert list(stream) == []
    assert proxy.accepted == 1


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
