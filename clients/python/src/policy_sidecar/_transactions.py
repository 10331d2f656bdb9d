"""A transaction's life, said once for threads and for asyncio."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import count

from ._answer import NO_TRAILERS, Trailers
from ._contract import control
from ._native import duration_of, fill
from ._steps import Call, Deadline, Headers, Held, Hold, Steps, commit, overdue, roll_back, savepoint
from .errors import SidecarError, TransactionAbortedError
from .types import IsolationLevel


#: Of transactions that are bounded by nothing but the timeouts of their calls.
NEVER = Deadline(None)


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
    """A transaction on its stream: beginning, savepoints, end. A call in it has `timeout` seconds, and ends by the deadline."""

    def __init__(self, options: TransactionOptions, timeout: float | None, deadline: Deadline = NEVER) -> None:
        self._options = options
        self._timeout = timeout
        self._deadline = deadline
        self._doomed: SidecarError | None = None
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
        """What makes a call part of it; raises what has doomed it."""
        self._must_be_sound()
        return (("transaction", self.id),)

    @property
    def timeout(self) -> float | None:
        """Seconds that a call in it has now; None: as long as the sidecar allows."""
        return self.bound(self._timeout)

    def bound(self, timeout: float | None) -> float | None:
        """A timeout that does not reach beyond its deadline."""
        return self._deadline.bound(timeout)

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

    def doom(self, error: BaseException) -> None:
        """Lets it be rolled back and nothing else: what had to be undone in it could not be, for that error."""
        if self._doomed is None:
            self._doomed = error if isinstance(error, SidecarError) else _not_undone(error)
        self.abandon()

    def end(self, error: BaseException | None) -> Steps[None]:
        """Commits, or rolls back where there is an error. Where it is doomed, or its time over, it is rolled back, too."""
        try:
            if self.prepared:
                return
            hindrance = self._doomed
            if hindrance is None and self._deadline.within(0):
                hindrance = overdue("the transaction")
            if error is None and hindrance is None:
                self.trailers = yield from commit(self.id, self.timeout, self._timeout, self.abandon)
            elif error is None or isinstance(error, Exception):
                yield from roll_back(self.id, self.timeout)
                if self._may_be_prepared:
                    yield from roll_back(self.id, self._timeout, "RollbackPrepared")
            if error is None and hindrance is not None:
                raise hindrance
        finally:
            self.abandon()

    def prepare(self, lease: timedelta | None) -> Steps[timedelta]:
        """Prepares it, and leaves the end to `CommitPrepared` or `RollbackPrepared`."""
        self._must_be_sound()
        method = control("Prepare")
        request = method.request(transaction_id=self.id)
        fill(request, {"lease": lease})
        self._may_be_prepared = True
        answer, _ = yield Call(method, request, (), self.timeout, False)
        self.prepared = True
        return duration_of(answer.lease)

    def set_savepoint(self) -> Steps[str]:
        """Sets a savepoint of a name that no other has."""
        self._must_be_sound()
        self._savepoints += 1
        name = f"savepoint_{self._savepoints}"
        yield from savepoint("Savepoint", self.id, name, self.timeout)
        return name

    def end_savepoint(self, name: str, error: BaseException | None) -> Steps[None]:
        """Releases it, or, where there is an error or it cannot be released, undoes what was done since."""
        if error is not None:
            yield from self._undo(name)
            return
        self._must_be_sound()
        try:
            yield from savepoint("ReleaseSavepoint", self.id, name, self.timeout)
        except GeneratorExit as closed:  # Who is being closed cannot wait for an answer.
            self.doom(closed)
            raise
        except BaseException:
            yield from self._undo(name)
            raise

    def _undo(self, name: str) -> Steps[None]:
        """Goes back to a savepoint, and forgets it. Where that fails the transaction is doomed, and its end says why."""
        if self._doomed is not None:
            return
        try:
            yield from savepoint("RollbackToSavepoint", self.id, name, self.timeout)
            yield from savepoint("ReleaseSavepoint", self.id, name, self.timeout)
        except BaseException as failed:
            self.doom(failed)
            # The error that led here must not be hidden, but by one that ends more than this.
            if not isinstance(failed, Exception):
                raise

    def _must_be_sound(self) -> None:
        if self._doomed is not None:
            raise self._doomed


def _not_undone(error: BaseException) -> TransactionAbortedError:
    message = f"what had to be undone in the transaction could not be, for {type(error).__name__}"
    told = TransactionAbortedError(message, code="FAILED_PRECONDITION", reason="TRANSACTION_ABORTED")
    told.__cause__ = error
    return told
