"""What the client does, said once for threads and for asyncio: generators that yield what is to be done and get what came
of it. Who runs them does the calls and the waits in his own way.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ._answer import Trailers
from ._contract import Method, control
from .errors import (
    CancelledError,
    ConflictError,
    DeadlineError,
    LimitError,
    OutcomeUnknownError,
    SidecarError,
    TransactionEndedError,
    UnavailableError,
)

T = TypeVar("T")
Headers = tuple[tuple[str, str], ...]

#: Attempts of a call outside a transaction.
CALL_ATTEMPTS = 5
#: Codes that leave open what became of a call.
_OPEN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL")
#: Deadlines after which a write is known not to have been done.
_NOT_DONE = ("STATEMENT_TIMEOUT", "REQUEST_TIMEOUT")
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 5.0


class Deadline:
    """A point in time by which something has to be done."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float | None:
        """Seconds until then; None where it never comes."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def bound(self, timeout: float | None) -> float | None:
        """A timeout that does not reach beyond it."""
        left = self.left
        return timeout if left is None else left if timeout is None else min(left, timeout)

    def within(self, seconds: float) -> bool:
        """Whether it comes before that many seconds have passed."""
        return self._at is not None and time.monotonic() + seconds >= self._at


@dataclass(frozen=True)
class Call:
    """A unary call; what comes of it is the answer's message and the trailers."""

    method: Method
    request: Any
    headers: Headers
    timeout: float | None
    #: Wait for a sidecar that is not there yet.
    wait: bool


@dataclass(frozen=True)
class Pause:
    """A wait."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Opens the stream that a transaction lives by; what comes of it is `Held`."""

    request: Any
    timeout: float | None


@dataclass(frozen=True)
class Held:
    """A stream that a transaction lives by."""

    #: Its first message.
    first: Any
    #: Ends it.
    end: Callable[[], None]
    #: Whether it lasts, as far as this side knows.
    lasts: Callable[[], bool]


@dataclass(frozen=True)
class Do:
    """A caller's own work; what comes of it is its result."""

    work: Callable[[], Any]


class Life(Protocol):
    """What a call inside a transaction has to know of it."""

    @property
    def lasts(self) -> bool:
        """Whether it may still be open."""

    def next_number(self) -> int:
        """A number that no call in it has had."""


Steps = Generator[Call | Pause | Hold | Do, Any, T]


def delay(error: SidecarError, attempt: int) -> float:
    """The wait before the next attempt: at least what the error asks for, more each time, never the same for two callers."""
    least = error.retry_after if error.retry_after is not None else _FIRST_DELAY
    return float(min(_LONGEST_DELAY, max(least, _FIRST_DELAY) * 2 ** (attempt - 1) * (1 + random.random())))


def overdue(what: str) -> DeadlineError:
    """What a wait ends with that was longer than it may be."""
    return DeadlineError(f"{what} took too long", code="DEADLINE_EXCEEDED")


def retrying(
    attempts: int,
    deadline: Deadline,
    work: Callable[[], Steps[T]],
    promising: Callable[[SidecarError], bool] = lambda error: error.retriable,
) -> Steps[T]:
    """Tries work again while it fails with what is promising, and there are attempts and time for that."""
    attempt = 1
    while True:
        try:
            return (yield from work())
        except SidecarError as error:
            wait = delay(error, attempt)
            if not promising(error) or attempt >= attempts or deadline.within(wait):
                raise
            yield Pause(wait)
            if not promising(error):
                raise
        attempt += 1


def call_outside(
    method: Method, request: Any, headers: Headers, timeout: float | None, wait: bool, own_key: str | None = None
) -> Steps[tuple[Any, Trailers]]:
    """A call outside a transaction, which is tried again where that changes nothing; `own_key` is its caller's."""
    single_use = any(name == "transaction" for name, _ in headers)
    key = (own_key or str(uuid.uuid4())) if single_use else None
    if key is not None:
        headers = (*headers, ("idempotency-key", key))
    deadline = Deadline(timeout)
    repeatable = method.repeatable or (method.once and single_use)
    lost = False

    def once() -> Steps[tuple[Any, Trailers]]:
        nonlocal lost
        try:
            came: tuple[Any, Trailers] = yield Call(method, request, headers, deadline.left, wait)
        except (UnavailableError, DeadlineError, CancelledError) as error:
            lost = lost or error.reason not in _NOT_DONE
            raise
        return came

    def promising(error: SidecarError) -> bool:
        # A call with a key takes effect once, whatever became of it before.
        again = error.retriable or (key is not None and error.reason == "COMMIT_OUTCOME_UNKNOWN")
        return again and not isinstance(error, TransactionEndedError)

    try:
        return (yield from retrying(CALL_ATTEMPTS if repeatable else 1, deadline, once, promising))
    except (UnavailableError, DeadlineError, CancelledError, LimitError) as error:
        # A limit says nothing of an attempt before it.
        if method.once and lost:
            error.idempotency_key = key
        raise


def call_inside(
    life: Life, method: Method, request: Any, headers: Headers, timeout: float | None
) -> Steps[tuple[Any, Trailers]]:
    """A call inside a transaction. It never waits for a connection, for what it is in does not come back.

    It is asked again under the same number where its answer was lost on the way and the transaction lives, and where it was
    refused for the time being before anything ran.
    """
    if method.once:
        headers = (*headers, ("transaction-sequence", str(life.next_number())))
    deadline = Deadline(timeout)

    def once() -> Steps[tuple[Any, Trailers]]:
        came: tuple[Any, Trailers] = yield Call(method, request, headers, deadline.left, False)
        return came

    def promising(error: SidecarError) -> bool:
        lost = isinstance(error, UnavailableError) and error.reason is None
        return life.lasts and (lost or (isinstance(error, LimitError) and error.retriable))

    return (yield from retrying(CALL_ATTEMPTS if method.repeatable or method.once else 1, deadline, once, promising))


def commit(
    transaction_id: str, timeout: float | None, asking: float | None, leave: Callable[[], None]
) -> Steps[Trailers]:
    """Commits; where the answer is lost, leaves, so that what never arrived is rolled back, and asks how it ended.

    `timeout` is for the commit, `asking` for what became of it. ConflictError where it was rolled back, OutcomeUnknownError
    where nobody can tell.
    """
    method = control("Commit")
    request = method.request(transaction_id=transaction_id)
    try:
        came: tuple[Any, Trailers] = yield Call(method, request, (), timeout, False)
    except SidecarError as error:
        if error.code not in _OPEN and error.reason != "TRANSACTION_OUTCOME_UNKNOWN":
            raise
        leave()
        yield from look_up(asking, error, transaction_id=transaction_id)
        return Trailers()
    return came[1]


def look_up(timeout: float | None, lost: SidecarError, **subject: str) -> Steps[None]:
    """Returns where what was lost was committed, a `transaction_id` or an `idempotency_key`; asks for `timeout` seconds.

    ConflictError where it was rolled back, OutcomeUnknownError where nobody can tell.
    """
    method = control("GetOutcome")
    request = method.request(**subject)
    outcomes = method.response.DESCRIPTOR.fields_by_name["outcome"].enum_type.values_by_number
    deadline = Deadline(timeout)
    attempt = 0
    while True:
        attempt += 1
        wait = delay(lost, attempt)
        try:
            answer, _ = yield Call(method, request, (), deadline.left, True)
        except SidecarError as error:
            if not error.retriable:
                raise OutcomeUnknownError(**subject) from lost
        else:
            outcome = outcomes[answer.outcome].name if answer.outcome in outcomes else ""
            if outcome == "OUTCOME_COMMITTED":
                return
            if outcome == "OUTCOME_ABORTED":
                message = "its commit was lost, and it was rolled back"
                raise ConflictError(message, code="ABORTED", reason="TRANSACTION_ROLLED_BACK", retry_after=0.0) from lost
            if outcome != "OUTCOME_IN_PROGRESS":
                raise OutcomeUnknownError(**subject) from lost
        if deadline.within(wait):
            raise OutcomeUnknownError(**subject) from lost
        yield Pause(wait)


def roll_back(transaction_id: str, timeout: float | None, rpc: str = "Rollback") -> Steps[None]:
    """Rolls back. An error is none of the caller's: without its stream, or its lease, it is rolled back anyway."""
    method = control(rpc)
    try:
        yield Call(method, method.request(transaction_id=transaction_id), (), timeout, False)
    except SidecarError:
        return


def savepoint(rpc: str, transaction_id: str, name: str, timeout: float | None) -> Steps[None]:
    """Sets, releases or goes back to a savepoint, as the RPC says."""
    method = control(rpc)
    yield Call(method, method.request(transaction_id=transaction_id, name=name), (), timeout, False)
