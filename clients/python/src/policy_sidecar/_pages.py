"""Lists by pages, for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ParamSpec, Protocol, TypeVar


class Listed(Protocol):
    """An answer of a list that has pages."""

    @property
    def next_page_token(self) -> str | None:
        """What `page_token` goes on with after it; None where there are no more."""


P = ParamSpec("P")
L = TypeVar("L", bound=Listed)


def pages(call: Callable[P, L], *args: P.args, **request: P.kwargs) -> Iterator[L]:
    """The answers of a list one after the other, each where the last one ended; `limit` is the size of a page.

    `call` is a listing method such as `client.policy_engine.fetch_violations`, the others are its arguments.
    """
    following: Callable[..., L] = call
    answer = call(*args, **request)
    yield answer
    while answer.next_page_token:
        answer = following(*args, **{**request, "page_token": answer.next_page_token})
        yield answer
