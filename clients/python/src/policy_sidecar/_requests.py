"""Where calls belong, and the requests that native values make; the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ._answer import Trailers
from ._contract import Method
from ._native import fill
from ._settings import Settings, header_value
from ._steps import Headers, Steps, call_inside, call_outside
from ._transactions import TransactionLife
from .values import UNSET, Unset

L = TypeVar("L")
SINGLE_USE = ("transaction", "single-use")


@dataclass(frozen=True)
class Place:
    """Where calls belong: on their own, each in a transaction of its own, or in an open one."""

    headers: Headers
    timeout: float | None
    wait: bool
    #: The open transaction that they are part of.
    life: TransactionLife | None = None
    #: Streams have none unless it was asked for.
    stream_timeout: float | None = None
    #: Streams that are cut go on; not in an open transaction, which does not outlive its connection.
    resume: bool = False

    def options(self, timeout: float | None | Unset, consistency: str | None, resume: bool | None) -> Place:
        """The same place with another timeout, with what reads have to see, or with what becomes of a stream that is cut."""
        headers = self.headers
        if consistency is not None:
            headers = (*(one for one in headers if one[0] != "consistency"), ("consistency", consistency))
        resume = self.resume if resume is None else resume
        if timeout is UNSET:
            return replace(self, headers=headers, resume=resume)
        return replace(self, headers=headers, resume=resume, timeout=timeout, stream_timeout=timeout)

    @property
    def inside(self) -> bool:
        """Whether that is an open transaction."""
        return self.life is not None

    def single_use(self) -> Place:
        """Outside an open transaction: each in one of its own."""
        return replace(self, headers=(SINGLE_USE, *(one for one in self.headers if one != SINGLE_USE)))

    def call(self, method: Method, request: Any) -> Steps[tuple[Any, Trailers]]:
        """A unary call from here."""
        if self.life is not None:
            return call_inside(self.life, method, request, self.headers, self.timeout)
        return call_outside(method, request, self.headers, self.timeout, self.wait)


class Bound(Generic[L]):
    """Calls from one place over the lines of a client."""

    def __init__(self, lines: L, place: Callable[[], Place]) -> None:
        self.lines = lines
        self._place = place

    @property
    def place(self) -> Place:
        """Where the calls belong; RuntimeError where that has not begun."""
        return self._place()

    def options(self, timeout: float | None | Unset, consistency: str | None, resume: bool | None) -> Bound[L]:
        """The same place with other options; ValueError for a `consistency` that no header can carry."""
        if consistency is not None:
            header_value("consistency", consistency)
        return Bound(self.lines, lambda: self._place().options(timeout, consistency, resume))


def outside(settings: Settings) -> Place:
    """Calls on their own."""
    return Place((), settings.timeout, settings.wait_for_ready, resume=settings.resume)


def single_use(settings: Settings) -> Place:
    """Calls each in a transaction of its own."""
    return outside(settings).single_use()


def inside(life: TransactionLife) -> Place:
    """Calls in an open transaction; RuntimeError where it has not begun."""
    return Place(life.headers, life.timeout, wait=False, life=life)


def request_of(method: Method, given: Mapping[str, Any], changes: Mapping[str, Any] | None) -> Any:
    """The request that native values make. The field mask of an update names what was given."""
    request = method.request()
    fill(request, given)
    if changes is not None:
        named = {name: value for name, value in changes.items() if value is not UNSET}
        request.updates.SetInParent()
        fill(request.updates, named)
        request.update_mask.paths.extend(named)
    return request
