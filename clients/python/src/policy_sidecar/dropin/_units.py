"""Sessions at the sidecar: what engines work on that have no other, and what stands behind a session of SQLAlchemy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import cache
from types import TracebackType
from typing import Any, TypeVar

from .. import aio
from .._operations import Operation
from .._requests import Bound as Bind
from .._steps import Steps
from ..aio._lines import Lines as AioLines
from ..client import Bound, Client, connect
from ._work import Work
from .errors import translating

T = TypeVar("T")


@cache
def default_client() -> Client:
    """The client of sessions that bring none, by the environment."""
    return connect()


@cache
def default_aio_client() -> aio.Client:
    """The same for asyncio."""
    return aio.connect()


class Unit:
    """A unit of work at the sidecar, and a session of its own for engines that need no other.

    `lease` is how long a transaction of it may last; None: as the sidecar is configured. The end of its block without `commit`
    rolls back. What several threads do on it is done in turn.
    """

    def __init__(self, client: Client | None = None, lease: timedelta | None = None) -> None:
        self.client = client or default_client()
        self.work = Work(self.client._settings, lease)
        self._turn = threading.RLock()

    def _run(self, steps: Steps[T]) -> T:
        with self._turn, translating():
            return self.client._lines.run(steps)

    def _undo(self, part: Any) -> None:
        self._run(self.work.undo(part))

    def add(self, operation: Operation[Any]) -> None:
        """Lets a write wait for the next flush."""
        with self._turn, translating():
            if self.work.add(operation):
                self.flush()

    @contextmanager
    def services(self, writes: bool = True) -> Iterator[Bound]:
        """The services for a call, which sees what waited before; whatever else is done waits for the end of the block."""
        with self._turn:
            place = self._run(self.work.place(writes))
            with self.work.calling():
                yield Bound(Bind(self.client._lines, lambda: place))

    def flush(self) -> None:
        """Sends what waits; after an error only `rollback` is possible."""
        self._run(self.work.flush())

    def commit(self) -> None:
        """Sends what waits, and commits, also what is prepared; after an error only `rollback` is possible."""
        self._run(self.work.commit())

    def prepare(self, lease: timedelta | None = None) -> str | None:
        """Prepares what was done, so that `commit` cannot fail for it; the transaction's id, None where nothing was written.

        What is neither committed nor rolled back within its lease is rolled back.
        """
        return self._run(self.work.prepare(lease))

    def rollback(self) -> None:
        """Rolls it back."""
        self._run(self.work.rollback())

    def close(self) -> None:
        """Rolls back what is not committed."""
        self.rollback()

    def __enter__(self) -> Unit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncUnit:
    """The same for asyncio, and for tasks."""

    def __init__(self, client: aio.Client | None = None, lease: timedelta | None = None) -> None:
        self.client = client or default_aio_client()
        self.work = Work(self.client._settings, lease)
        self._turn = asyncio.Lock()

    async def _run(self, steps: Steps[T], otherwise: Callable[[BaseException], None] = lambda _: None) -> T:
        """Runs steps in turn; `otherwise` is done where that does not come."""
        try:
            await self._turn.acquire()
        except BaseException as error:
            otherwise(error)
            raise
        try:
            return await self._in_turn(steps)
        finally:
            self._turn.release()

    async def _in_turn(self, steps: Steps[T]) -> T:
        with translating():
            return await self.client._lines.run(steps)

    async def _undo(self, part: Any) -> None:
        await self._run(self.work.undo(part), self.work.fail)

    @asynccontextmanager
    async def services(self, writes: bool = True) -> AsyncIterator[aio.Bound]:
        """The services for a call, which sees what waited before; whatever else is done waits for the end of the block."""
        async with self._turn:
            place = await self._in_turn(self.work.place(writes))
            with self.work.calling():
                yield aio.Bound(Bind[AioLines](self.client._lines, lambda: place))

    async def flush(self) -> None:
        """Sends what waits and what was changed of tracked objects; after an error only `rollback` is possible."""
        await self._run(self.work.flush())

    async def commit(self) -> None:
        """Sends what waits, and commits, also what is prepared; after an error only `rollback` is possible."""
        await self._run(self.work.commit())

    async def prepare(self, lease: timedelta | None = None) -> str | None:
        """Prepares what was done, so that `commit` cannot fail for it; the transaction's id, None where nothing was written.

        What is neither committed nor rolled back within its lease is rolled back.
        """
        return await self._run(self.work.prepare(lease))

    async def rollback(self) -> None:
        """Rolls it back; where its task is cancelled before its turn, too, which ends what another task does in it."""
        await self._run(self.work.rollback(), lambda _: self.work.drop())

    async def close(self) -> None:
        """Rolls back what is not committed."""
        await self.rollback()

    async def __aenter__(self) -> AsyncUnit:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
