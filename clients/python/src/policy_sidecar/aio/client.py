"""The client, for asyncio."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

from .._answer import Trailers
from .._gen.aio_services import Services
from .._gen.aio_services import Transaction as Transactions
from .._operations import Executed, Operation, executing
from .._requests import Options, inside, key_of, outside, single_use
from .._settings import Settings
from .._steps import Deadline, Do, Steps, retrying
from .._transactions import TransactionLife, TransactionOptions
from ..types import IsolationLevel
from ..values import UNSET, Unset
from ._binding import Binding, Stream
from ._lines import Lines

T = TypeVar("T")


class Bound(Services):
    """The driver services, bound to where their calls belong."""

    def options(
        self,
        *,
        timeout: float | None | Unset = UNSET,
        consistency: str | None = None,
        resume: bool | None = None,
        idempotency_key: str | UUID | None = None,
    ) -> Bound:
        """The same, where every call has that timeout in seconds, streams included.

        `consistency` says what reads outside a transaction have to see: `strong`, `eventual`, or the token of an answer's
        trailers. `resume` False lets a stream that is cut end with its error; None: as the client says. `idempotency_key`,
        a UUID such as the id of the message that a caller works at, is for one write of `single_use` or one `execute`
        outside transactions: whoever sends that again with the same key gets the first answer, and it takes effect once;
        PreconditionError (`IDEMPOTENCY_KEY_REUSED`) for another request. ValueError where it is no UUID.
        """
        return Bound(self._binding.options(Options.of(timeout, consistency, resume, idempotency_key)))

    async def execute(self, operations: Sequence[Operation[Any]]) -> Executed:
        """Runs up to 1,000 operations in one round trip: all of them take effect, or none.

        Inside a transaction they are part of it, which goes on as it was where they fail; elsewhere they are one of their
        own. An error of one of them has its index as `operation`.
        """
        return await self._binding.lines.run(executing(self._binding.place, operations))


class Savepoint:
    """A block inside a transaction that can be undone alone: an error in it goes back to its beginning, and is passed on.

    Where going back fails, or its block is left since its generator is closed, which cannot wait, the transaction can only be
    rolled back: its next call, and its end, raise what hindered it.
    """

    def __init__(self, life: TransactionLife, lines: Lines) -> None:
        self._life = life
        self._lines = lines
        self._name = ""

    async def __aenter__(self) -> Savepoint:
        self._name = await self._lines.run(self._life.set_savepoint())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, GeneratorExit):
            self._life.doom(error)  # Who is being closed cannot wait for an answer.
            return
        await self._lines.run(self._life.end_savepoint(self._name, error))


class Transaction(Bound):
    """An open transaction: what its services are asked is part of it.

    The end of its block commits; an error in the block rolls back, and is passed on. When this process dies, the sidecar
    rolls back at once.
    """

    def __init__(self, lines: Lines, life: TransactionLife) -> None:
        super().__init__(Binding(lines, lambda: inside(life)))
        self._lines = lines
        self._life = life

    async def __aenter__(self) -> Transaction:
        await self._lines.run(self._life.begin())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._lines.run(self._life.end(error))

    @property
    def id(self) -> str:
        """Its id; RuntimeError before the block is entered."""
        return self._life.id

    @property
    def trailers(self) -> Trailers:
        """What came with its commit: the consistency token."""
        return self._life.trailers

    def savepoint(self) -> Savepoint:
        """A block that can be undone alone."""
        return Savepoint(self._life, self._lines)

    async def prepare(self, lease: timedelta | None = None) -> timedelta:
        """Prepares it, so that it can end together with a database transaction of the caller's own; the lease granted.

        The end of the block leaves it then; `client.transactions.commit_prepared` or `rollback_prepared` ends it.
        """
        return await self._lines.run(self._life.prepare(lease))


class Client(Bound):
    """The driver services of a sidecar outside transactions: reads work, writes are refused."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lines = Lines(settings)
        super().__init__(Binding(self._lines, lambda: outside(settings)))
        #: The same services, each call its own transaction: committed when it returns.
        self.single_use = Bound(Binding(self._lines, lambda: single_use(settings)))
        #: Transactions from outside: what is open, how one ended, the end of prepared ones.
        self.transactions = Transactions(self._binding)

    def transaction(
        self,
        *,
        isolation: IsolationLevel | None = None,
        read_only: bool = False,
        deferrable: bool = False,
        lease: timedelta | None = None,
        label: str = "",
    ) -> Transaction:
        """A transaction for a `async with` block.

        `isolation` is READ_COMMITTED unless given; `deferrable` waits for a snapshot on which reading can never conflict,
        with SERIALIZABLE and `read_only`; `lease` is its longest life; `label` is for the sidecar's logs.
        """
        options = TransactionOptions(isolation, read_only, deferrable, lease, label)
        return Transaction(self._lines, TransactionLife(options, self._settings.timeout))

    async def execute(
        self,
        operations: Sequence[Operation[Any]],
        *,
        isolation: IsolationLevel | None = None,
        attempts: int = 1,
        idempotency_key: str | UUID | None = None,
    ) -> Executed:
        """Runs up to 1,000 operations in one round trip, as a transaction of their own: all of them take effect, or none.

        The sidecar tries them up to `attempts` times, at most 10, while they collide with others. An answer that is lost is
        asked for again, and they take effect once; `idempotency_key` is as of `options`. An error of one of them has its
        index as `operation`.
        """
        place = self._binding.place.options(Options(key=key_of(idempotency_key)))
        return await self._binding.lines.run(executing(place, operations, isolation, attempts))

    async def run(
        self,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        attempts: int = 5,
        timeout: float | None = None,
        isolation: IsolationLevel | None = None,
        read_only: bool = False,
        deferrable: bool = False,
        lease: timedelta | None = None,
        label: str = "",
    ) -> T:
        """Runs work in a transaction, all of it again where it collides or its sidecar goes away; the work's result.

        The work has to be repeatable: what it does outside the transaction happens as often as it is tried. `timeout` in
        seconds bounds all attempts together: no call has more than what is left of it, and what is not done by then is not
        committed (DeadlineError). Only what became of a commit without an answer is asked for beyond it. The others are
        those of `transaction`.
        """
        deadline = Deadline(timeout)
        options = TransactionOptions(isolation, read_only, deferrable, lease, label)

        async def attempt() -> T:
            life = TransactionLife(options, self._settings.timeout, deadline)
            async with Transaction(self._lines, life) as transaction:
                return await work(transaction)

        def once() -> Steps[T]:
            result: T = yield Do(attempt)
            return result

        return await self._lines.run(retrying(attempts, deadline, once))

    async def close(self) -> None:
        """Closes the connection; open transactions are rolled back."""
        await self._lines.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.close()


def connect(
    address: str | None = None,
    *,
    token: str | None = None,
    tls: bool = False,
    ca: str | os.PathLike[str] | bytes | None = None,
    certificate: str | os.PathLike[str] | bytes | None = None,
    key: str | os.PathLike[str] | bytes | None = None,
    timeout: float | None = 30.0,
    max_message_bytes: int = 64 * 1024 * 1024,
    keepalive: float | None = 20.0,
    wait_for_ready: bool = True,
    resume: bool = True,
) -> Client:
    """A client of the sidecar at `host:port` or `unix:/path`.

    Without an address it is that of the environment variable POLICY_SIDECAR, else 127.0.0.1:50051. Nothing is sent before
    the first call. `Settings` says what each argument means.
    """
    return Client(
        Settings(
            address=address,
            token=token,
            tls=tls,
            ca=ca,
            certificate=certificate,
            key=key,
            timeout=timeout,
            max_message_bytes=max_message_bytes,
            keepalive=keepalive,
            wait_for_ready=wait_for_ready,
            resume=resume,
        )
    )


__all__ = ["Bound", "Client", "Savepoint", "Stream", "Transaction", "connect"]
