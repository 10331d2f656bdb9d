"""A transaction's life, said once for threads and for asyncio."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import count

from ._answer import NO_TRAILERS, Trailers
from ._contract import control
from ._native import duration_of, fill
from ._steps import Call, Headers, Held, Hold, Steps, commit, roll_back, savepoint
from .types import IsolationLevel


@dataclass(frozen=True)
class TransactionOptions:
    """How a transaction is run and for how long."""

    #: How strictly it is shielded from others; None: READ_COMMITTED.
    isolation: IsolationLevel | None = None
    #: Refuses writes.
    read_only: bool = False
    #: Waits for a snapshot on which reading can never conflict; only with SERIALIZABLE and `read_only`.
    deferrable: bool = False
    #: Longest life; None: as the sidecar is configured.
    lease: timedelta | None = None
    #: Free text for the sidecar's logs and `List`.
    label: str = ""


class TransactionLife:
    """A transaction on its stream: beginning, savepoints, end."""

    def __init__(self, options: TransactionOptions, timeout: float | None) -> None:
        self._options = options
        self.timeout = timeout
        self._id: str | None = None
        self._held: Held | None = None
        self._numbers = count(1)
        self._savepoints = 0
        self.prepared = False
        self._may_be_prepared = False
        self.trailers: Trailers = NO_TRAILERS

    @property
    def id(self) -> str:
        """Its id; RuntimeError before the block is entered."""
        if self._id is None:
            raise RuntimeError("a transaction begins where its block does: `with client.transaction() as tx`")
        return self._id

    @property
    def headers(self) -> Headers:
        """What makes a call part of it."""
        return (("transaction", self.id),)

    @property
    def lasts(self) -> bool:
        """Whether it may still be open."""
        return self._held is not None and self._held.lasts()

    def next_number(self) -> int:
        """A number that no call in it has had."""
        return next(self._numbers)

    def begin(self) -> Steps[None]:
        """Begins it; it lives as long as the stream."""
        if self._id is not None:
            raise RuntimeError("a transaction is entered once")
        request = control("Hold").request()
        options = self._options
        request.begin.SetInParent()
        fill(
            request.begin,
            {
                "isolation_level": options.isolation,
                "read_only": options.read_only,
                "deferrable": options.deferrable,
                "total_lease": options.lease,
                "label": options.label,
            },
        )
        held: Held = yield Hold(request, self.timeout)
        self._held = held
        self._id = held.first.transaction.id

    def abandon(self) -> None:
        """Ends the stream; what is not committed is rolled back at once."""
        held, self._held = self._held, None
        if held is not None:
            held.end()

    def end(self, error: BaseException | None) -> Steps[None]:
        """Commits, or rolls back where there is an error."""
        try:
            if self.prepared:
                return
            if error is None:
                self.trailers = yield from commit(self.id, self.timeout)
            elif isinstance(error, Exception):
                yield from roll_back(self.id, self.timeout)
                if self._may_be_prepared:
                    yield from roll_back(self.id, self.timeout, "RollbackPrepared")
        finally:
            self.abandon()

    def prepare(self, lease: timedelta | None) -> Steps[timedelta]:
        """Prepares it, and leaves the end to `CommitPrepared` or `RollbackPrepared`."""
        method = control("Prepare")
        request = method.request(transaction_id=self.id)
        fill(request, {"lease": lease})
        self._may_be_prepared = True
        answer, _ = yield Call(method, request, (), self.timeout, False)
        self.prepared = True
        return duration_of(answer.lease)

    def set_savepoint(self) -> Steps[str]:
        """Sets a savepoint of a name that no other has."""
        self._savepoints += 1
        name = f"savepoint_{self._savepoints}"
        yield from savepoint("Savepoint", self.id, name, self.timeout)
        return name

    def end_savepoint(self, name: str, error: BaseException | None) -> Steps[None]:
        """Releases it, or, where there is an error, goes back to it first."""
        if error is not None and not isinstance(error, Exception):
            return  # The whole transaction is about to be left.
        if error is not None:
            yield from savepoint("RollbackToSavepoint", self.id, name, self.timeout)
        yield from savepoint("ReleaseSavepoint", self.id, name, self.timeout)
