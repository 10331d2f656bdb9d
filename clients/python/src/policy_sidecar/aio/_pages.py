"""Lists by pages, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ParamSpec, TypeVar

from .._pages import Listed

P = ParamSpec("P")
L = TypeVar("L", bound=Listed)


async def pages(call: Callable[P, Awaitable[L]], *args: P.args, **request: P.kwargs) -> AsyncIterator[L]:
    """The answers of a list one after the other, each where the last one ended; `limit` is the size of a page.

    `call` is a listing method such as `client.policy_engine.fetch_violations`, the others are its arguments.
    """
    following: Callable[..., Awaitable[L]] = call
    answer = await call(*args, **request)
    yield answer
    while answer.next_page_token:
        answer = await following(*args, **{**request, "page_token": answer.next_page_token})
        yield answer
