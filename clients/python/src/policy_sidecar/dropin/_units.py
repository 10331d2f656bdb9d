"""The transaction behind a session: begun by the first call of a driver, ended as the session ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import TracebackType
from typing import Any

from .. import aio
from ..client import Bound, Client, Transaction, connect

#: Key of a session's `info` with the client, and of what stands for the session at the sidecar.
CLIENT = "policy_sidecar"
_UNIT = "policy_sidecar_unit"


@cache
def default_client() -> Client:
    """The client of sessions that bring none, by the environment."""
    return connect()


@cache
def default_aio_client() -> aio.Client:
    """The same for asyncio."""
    return aio.connect()


class _Followed:
    """What a session that is followed has to say."""

    _transaction: Any = None
    #: Begins the session's own transaction, whose end is told.
    before_begin: Callable[[], None] | None = None
    #: A part of the session's work was undone alone, which is not followed.
    undone_in_part = False

    @property
    def begun(self) -> bool:
        """Whether there is a transaction."""
        return self._transaction is not None

    def _begin_session(self) -> None:
        if self.before_begin is not None:
            self.before_begin()


class Unit(_Followed):
    """A unit of work at the sidecar, and a session of its own for engines that need no other.

    The end of its block without `commit` rolls back.
    """

    def __init__(self, client: Client | None = None) -> None:
        self.client = client or default_client()
        self._transaction: Transaction | None = None

    def services(self) -> Bound:
        """The services inside the transaction."""
        if self._transaction is None:
            self._begin_session()
            self._transaction = self.client.transaction(label="dropin").__enter__()
        return self._transaction

    def commit(self) -> None:
        """Commits what was done."""
        self._end(None)

    def rollback(self) -> None:
        """Rolls it back."""
        self._end(RuntimeError("rolled back"))

    def _end(self, error: Exception | None) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.__exit__(type(error) if error else None, error, None)

    def close(self) -> None:
        """Rolls back what is not committed."""
        self.rollback()

    def __enter__(self) -> Unit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncUnit(_Followed):
    """The same for asyncio."""

    def __init__(self, client: aio.Client | None = None) -> None:
        self.client = client or default_aio_client()
        self._transaction: aio.Transaction | None = None
        #: Objects whose changes are sent at a flush, the oldest first.
        self.tracked: list[Any] = []

    async def flush(self) -> None:
        """Sends what is queued and what was changed."""
        if self.tracked and not self.begun:
            self._begin_session()
        for one in sorted(self.tracked, key=lambda one: int(one.goes_last)):
            await one.send(await self.services())

    async def services(self) -> aio.Bound:
        """The services inside the transaction."""
        if self._transaction is None:
            self._begin_session()
            self._transaction = await self.client.transaction(label="dropin").__aenter__()
        return self._transaction

    async def commit(self) -> None:
        """Sends what is queued, and commits."""
        try:
            await self.flush()
        except BaseException:
            await self.rollback()
            raise
        await self._end(None)

    async def rollback(self) -> None:
        """Rolls it back."""
        await self._end(RuntimeError("rolled back"))

    async def _end(self, error: Exception | None) -> None:
        self.tracked = []
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.__aexit__(type(error) if error else None, error, None)

    async def close(self) -> None:
        """Rolls back what is not committed."""
        await self.rollback()

    async def __aenter__(self) -> AsyncUnit:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


def _follow(session: Any, unit: Unit | AsyncUnit, run: Callable[[Any], Any]) -> None:
    """Ends with a session of SQLAlchemy: commits just before it, rolls back with it."""
    event: Any = import_module("sqlalchemy.event")

    def begin() -> None:
        if not session.in_transaction():
            session.begin()

    def before_commit(ending: Any) -> None:
        if ending.in_nested_transaction():
            return
        if unit.undone_in_part:
            raise RuntimeError("a savepoint of the session was rolled back, and what drivers did is rolled back as a whole")
        run(unit.commit())

    def after_soft_rollback(ending: Any, previous: Any) -> None:
        if previous.nested and unit.begun:
            unit.undone_in_part = True
            run(unit.rollback())

    def after_transaction_end(ending: Any, ended: Any) -> None:
        if ended.parent is None:
            unit.undone_in_part = False
            run(unit.rollback())

    unit.before_begin = begin
    for hook in (before_commit, after_soft_rollback, after_transaction_end):
        event.listen(session, hook.__name__, hook)


def unit_of(session: Any) -> Unit:
    """What stands for a session at the sidecar."""
    if isinstance(session, Unit):
        return session
    unit: Unit | None = session.info.get(_UNIT)
    if unit is None:
        unit = session.info[_UNIT] = Unit(session.info.get(CLIENT))
        _follow(session, unit, lambda done: done)
    return unit


def async_unit_of(session: Any) -> AsyncUnit:
    """What stands for a session of asyncio at the sidecar."""
    if isinstance(session, AsyncUnit):
        return session
    unit: AsyncUnit | None = session.info.get(_UNIT)
    if unit is None:
        unit = session.info[_UNIT] = AsyncUnit(session.info.get(CLIENT))
        _follow(session.sync_session, unit, import_module("sqlalchemy.util").await_only)
    return unit
