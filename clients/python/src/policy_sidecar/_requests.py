"""Where calls belong, and the requests that native values make; the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from uuid import UUID

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
class Options:
    """How calls of a place are made otherwise."""

    #: Another timeout, of streams, too.
    timeout: float | None | Unset = UNSET
    #: What reads outside a transaction have to see.
    consistency: str | None = None
    #: What becomes of a stream that is cut.
    resume: bool | None = None
    #: The key of a write in a transaction of its own, a UUID.
    key: str | None = None

    @classmethod
    def of(
        cls, timeout: float | None | Unset, consistency: str | None, resume: bool | None, key: str | UUID | None
    ) -> Options:
        """The options that a caller gives; ValueError for a `consistency` that no header can carry."""
        if consistency is not None:
            header_value("consistency", consistency)
        return cls(timeout, consistency, resume, key_of(key))


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
    #: The caller's own key of a write in a transaction of its own; None: one is made.
    key: str | None = None

    def options(self, given: Options) -> Place:
        """The same place, where calls are made as the options say."""
        headers = self.headers
        if given.consistency is not None:
            headers = (*(one for one in headers if one[0] != "consistency"), ("consistency", given.consistency))
        resume = self.resume if given.resume is None else given.resume
        place = replace(self, headers=headers, resume=resume, key=given.key or self.key)
        if isinstance(given.timeout, Unset):
            return place
        timeout = given.timeout if self.life is None else self.life.bound(given.timeout)
        return replace(place, timeout=timeout, stream_timeout=timeout)

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
        return call_outside(method, request, self.headers, self.timeout, self.wait, self.key)


class Bound(Generic[L]):
    """Calls from one place over the lines of a client."""

    def __init__(self, lines: L, place: Callable[[], Place]) -> None:
        self.lines = lines
        self._place = place

    @property
    def place(self) -> Place:
        """Where the calls belong; RuntimeError where that has not begun."""
        return self._place()

    def options(self, given: Options) -> Bound[L]:
        """The same place with other options."""
        return Bound(self.lines, lambda: self._place().options(given))


def key_of(given: str | UUID | None) -> str | None:
    """A caller's own key as it is sent; ValueError where it is no UUID."""
    try:
        return None if given is None else str(UUID(str(given)))
    except ValueError:
        raise ValueError(f"an idempotency key is a UUID, not {given!r}") from None


def outside(settings: Settings) -> Place:
    """Calls on their own."""
    return Place((), settings.timeout, settings.wait_for_ready, resume=settings.resume)


def single_use(settings: Settings) -> Place:
    """Calls each in a transaction of its own."""
    return outside(settings).single_use()


def inside(life: TransactionLife) -> Place:
    """Calls in an open transaction; RuntimeError where it has not begun."""
    return Place(life.headers, life.timeout, wait=False, life=life, stream_timeout=life.bound(None))


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
