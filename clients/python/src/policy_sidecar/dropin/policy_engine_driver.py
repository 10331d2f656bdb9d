"""`PolicyEngineDriver`: each operation takes a connection; its twins `_auto` and `_committed` take the managed one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from .._operations import Operation
from ..client import Bound, Client, connect
from ._engine_table import READS, WRITES
from ._table import Op, SyncDriver, dressed, perform, signature
from ._units import Unit
from .errors import closed


class Connection(Unit):
    """A unit of work that is over once it is closed: what came later nobody would commit."""

    closed = False

    def _demand_open(self) -> None:
        if self.closed:
            raise closed()

    def add(self, operation: Operation[Any]) -> None:
        """Lets a write wait for the next flush."""
        with self._turn:
            self._demand_open()
            super().add(operation)

    @contextmanager
    def services(self, writes: bool = True) -> Iterator[Bound]:
        """The services for a call."""
        with self._turn:
            self._demand_open()
            with super().services(writes) as services:
                yield services

    def commit(self) -> None:
        """Sends what waits, and commits."""
        with self._turn:
            self._demand_open()
            super().commit()

    def close(self) -> None:
        """Rolls back what is not committed, and ends it."""
        with self._turn:
            super().close()
            self.closed = True


class Engine:
    """What stands for the pool of connections, which is the sidecar's: transactions for `begin` and `connect`.

    `lease` is as of `Unit`.
    """

    def __init__(self, client: Client, lease: timedelta | None = None) -> None:
        self.client = client
        self._lease = lease

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A connection whose work is committed at the end of the block, and rolled back by an error."""
        conn = self.connect()
        with conn:
            yield conn
            with conn._turn:  # What another thread writes is committed, or told that it comes too late.
                conn.commit()
                conn.close()

    def connect(self) -> Connection:
        """A connection whose work is committed by its `commit`."""
        return Connection(self.client, self._lease)

    def dispose(self) -> None:
        """Closes the connection to the sidecar."""
        self.client.close()


class PolicyEngineDriver(SyncDriver, table={**READS, **WRITES}):
    """All that the policy engine reads and writes.

    `db_url` is the sidecar's address; the URL of a database, which is the sidecar's matter, means the environment's sidecar.
    `lease` is how long a transaction may last; None: as the sidecar is configured.
    """

    @classmethod
    def method(cls, name: str, op: Op) -> Any:
        declared = signature(f"conn, {op.parameters}" if op.parameters else "conn")
        twin_name = f"{name}_{'committed' if op.writes else 'auto'}"
        twin_declared = signature(op.parameters)

        def call(self: PolicyEngineDriver, *args: Any, **kwargs: Any) -> Any:
            bound = declared.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            del given["self"]
            return perform(op, given, given.pop("conn"))

        def twin(self: PolicyEngineDriver, *args: Any, **kwargs: Any) -> Any:
            bound = twin_declared.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            del given["self"]
            return self._managed_perform(op, given)

        setattr(cls, twin_name, dressed(twin, twin_name, op, twin_declared))
        return dressed(call, name, op, declared)

    def __init__(self, db_url: str, *, lease: timedelta | None = None) -> None:
        super().__init__()
        self._db_url = db_url
        self._lease = lease
        self._engine: Engine | None = None
        self._managed: Any = None

    def get_engine(self) -> Engine:
        """What transactions are begun at."""
        if self._engine is None:
            self._engine = Engine(connect(None if "://" in self._db_url else self._db_url), self._lease)
        return self._engine

    @contextmanager
    def managed_connection(self, conn: Any = None) -> Iterator[Any]:
        """Makes a connection that of the twins; without one, a new one, whose work nothing commits."""
        before, own = self._managed, None if conn is not None else self.get_engine().connect()
        self._managed = own if conn is None else conn
        try:
            yield self._managed
        finally:
            self._managed = before
            if own is not None:
                own.close()

    def _managed_perform(self, op: Op, given: dict[str, Any]) -> Any:
        if self._managed is not None or op.writes:
            return perform(op, given, self._managed)
        with self.get_engine().connect() as conn:
            return perform(op, given, conn)


def get_policy_engine_driver(db_url: str) -> PolicyEngineDriver:
    """A new driver."""
    return PolicyEngineDriver(db_url)
