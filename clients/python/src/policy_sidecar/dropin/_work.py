"""What is done on a session, said once for threads and for asyncio: writes that wait, and the transaction they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from .._contract import control
from .._operations import Operation, executing
from .._requests import Place, inside, outside
from .._settings import Settings
from .._steps import Steps, call_outside, look_up
from .._transactions import TransactionLife, TransactionOptions
from ..errors import OutcomeUnknownError, SidecarError, TransactionAbortedError
from ._parts import Level, Tracked, Waiting

T = TypeVar("T")

#: Operations, and their bytes, that are sent together: far from what a sidecar refuses for its size or its number of values,
#: also where the rows come back, in which a number takes up to six times as much as in the text of a document.
_MOST_WAITING = 1_000
_MOST_BYTES = 180_000
#: What is said of a transaction that was not committed by a `CommitPrepared`, nor by one before.
_NOT_COMMITTED = ("TRANSACTION_ROLLED_BACK", "TRANSACTION_NOT_PREPARED")


def _aborted(message: str) -> TransactionAbortedError:
    return TransactionAbortedError(message, code="FAILED_PRECONDITION", reason="TRANSACTION_ABORTED")


class Work:
    """Writes without a result wait, and are sent as one list: before the next call, at a flush, at the commit.

    Until a write is sent there is no transaction: reads are on their own, and what waits at the commit is a transaction by
    itself. After a list that fails only a rollback is possible, of all, or of the part that it belongs to.
    """

    def __init__(self, settings: Settings, lease: timedelta | None = None) -> None:
        self._settings = settings
        self._lease = lease
        self._waiting: list[Waiting] = []
        self._bytes = 0
        #: By the identity of the object.
        self._tracked: dict[int, Tracked] = {}
        self._life: TransactionLife | None = None
        self._failed: BaseException | None = None
        #: How many ends there were, of which one may come while a call is under way.
        self._ends = 0
        self.prepared = False
        #: Begins the session's own transaction, whose end is told.
        self.before_begin: Callable[[], None] | None = None
        #: The session is about to commit, and what waits goes with that.
        self.ending = False
        #: The parts of the session's work that have begun and not ended, from the outermost to the innermost.
        self.levels: list[Level] = []
        #: The first savepoint of what has become one with what is around it; it is released before the next is set.
        self._kept: str | None = None

    def add(self, operation: Operation[Any]) -> bool:
        """Lets a write wait; true where it is time for a flush."""
        self.begin_session()
        self._collect()
        self._append(Waiting(operation, operation.message.ByteSize()))
        return len(self._waiting) >= _MOST_WAITING or self._bytes >= _MOST_BYTES

    def track(self, one: Tracked) -> None:
        """Writes what is changed of an object at each flush; nothing more of one that is tracked already."""
        self.begin_session()
        self._tracked.setdefault(id(one.of), one)

    def find(self, key: Any) -> Tracked | None:
        """The object of that key, if it is tracked."""
        return next((one for one in self._tracked.values() if one.key == key), None)

    @property
    def begun(self) -> bool:
        """Whether there is something that is neither committed nor rolled back."""
        return self._life is not None or bool(self._waiting or self._tracked)

    def place(self, writes: bool) -> Steps[Place]:
        """Where a call belongs; what waits is sent before."""
        yield from self.flush()
        if self._life is None and not writes:
            return outside(self._settings)
        return inside((yield from self._open()))

    def flush(self) -> Steps[None]:
        """Sends what waits and what was changed."""
        self._usable()
        self._collect()
        while self._waiting:
            place = inside((yield from self._open()))
            yield from self._send(place)

    def enter(self, part: Any) -> Steps[None]:
        """Sends what waits, and begins a part that can be undone alone."""
        yield from self.flush()
        savepoint = None if self._life is None else (yield from self._or_fails(self._set_savepoint(self._life)))
        self.levels.append(Level(part, tuple(one.stored for one in self._tracked.values()), savepoint))

    def keep(self, part: Any) -> None:
        """Makes a part one with what is around it."""
        level = self._take(part)
        if level is not None:
            self._kept = level.savepoint or self._kept

    def undo(self, part: Any) -> Steps[None]:
        """Undoes a part alone. Where that fails, nothing of its transaction is committed, and the commit says why."""
        level = self._take(part)
        if level is None or self.prepared:
            return
        self._waiting, self._bytes, self._failed, self._kept = [], 0, None, None
        self._go_back(level)
        life, why = self._life, RuntimeError("rolled back")
        if life is not None and level.savepoint is not None:
            yield from life.end_savepoint(level.savepoint, why)
        elif life is not None:
            self._life = None
            yield from life.end(why)

    def commit(self) -> Steps[None]:
        """Sends what waits, and commits. What is queued meanwhile belongs to the next transaction."""
        self._usable()
        if self.prepared:
            yield from self._end_prepared("CommitPrepared")
        else:
            self._collect()
            if self._life is None and self._waiting and self._piece() == len(self._waiting):
                yield from self._send(outside(self._settings))
            else:
                yield from self.flush()
                if self._life is not None:
                    yield from self._or_fails(self._life.end(None))
        queued = {key: one for key, one in self._tracked.items() if one.stored is None}
        waiting, size = self._waiting, self._bytes
        self._forget()
        self._tracked, self._waiting, self._bytes = queued, waiting, size

    def prepare(self, lease: timedelta | None) -> Steps[str | None]:
        """Sends what waits, and prepares; the id of what is prepared, None where nothing was written."""
        yield from self.flush()
        life = self._life
        if life is None:
            return None
        yield from self._or_fails(life.prepare(lease))
        life.abandon()
        self.prepared = self._life is life
        return life.id

    def rollback(self) -> Steps[None]:
        """Rolls it back."""
        life = self._life
        try:
            if self.prepared:
                yield from self._end_prepared("RollbackPrepared")
            elif life is not None:
                yield from life.end(RuntimeError("rolled back"))
        except SidecarError:
            pass  # At the end of its lease it is rolled back anyway.
        finally:
            self._forget()

    def drop(self) -> None:
        """Forgets what cannot be rolled back now: at the sidecar it ends with its stream, or its lease."""
        if self._life is not None:
            self._life.abandon()
        self._forget()

    def fail(self, error: BaseException) -> None:
        """Lets what has been done be rolled back and nothing else, for that error."""
        self._failed = error

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Lets a transaction be rolled back and nothing else where one is interrupted who waits for an answer in it."""
        try:
            yield
        except Exception:
            raise
        except BaseException as error:  # Whether it took effect nobody knows.
            if self._life is not None:
                self.fail(error)
            raise

    def begin_session(self) -> None:
        """Begins the session's own transaction, with which this one ends."""
        if self.before_begin is not None:
            self.before_begin()

    def _usable(self) -> None:
        if self._failed is not None:
            why = str(self._failed) or type(self._failed).__name__
            message = f"what was written before has failed, and has to be rolled back: {why}"
            raise _aborted(message) from self._failed

    def _append(self, one: Waiting) -> None:
        self._waiting.append(one)
        self._bytes += one.size

    def _collect(self) -> None:
        """Lets what was changed of tracked objects wait."""
        for one in sorted(self._tracked.values(), key=lambda one: one.goes_last):
            change = one.change()
            if change is not None:
                self._append(change)

    def _piece(self) -> int:
        """How many of those that wait are sent together: one at least, however large it is."""
        size = 0
        for at, one in enumerate(self._waiting[:_MOST_WAITING]):
            size += one.size
            if at > 0 and size > _MOST_BYTES:
                return at
        return min(len(self._waiting), _MOST_WAITING)

    def _open(self) -> Steps[TransactionLife]:
        if self._life is None:
            self.begin_session()
            life = TransactionLife(TransactionOptions(lease=self._lease, label="dropin"), self._settings.timeout)
            ends = self._ends
            yield from life.begin()
            if ends != self._ends:
                life.abandon()
                raise _aborted("it was rolled back while it began")
            self._life = life
        return self._life

    def _set_savepoint(self, life: TransactionLife) -> Steps[str]:
        kept, self._kept = self._kept, None
        if kept is not None:
            yield from life.end_savepoint(kept, None)
        return (yield from life.set_savepoint())

    def _take(self, part: Any) -> Level | None:
        """Takes the level of a part off, with those inside it; None where there is none."""
        for at, level in enumerate(self.levels):
            if level.part is part:
                del self.levels[at:]
                return level
        return None

    def _go_back(self, level: Level) -> None:
        """Tracks what was tracked at the beginning of a part, and what was read in it, as the database has it again."""
        tracked = list(self._tracked.values())
        known, later = tracked[: len(level.stored)], tracked[len(level.stored) :]
        for one, stored in zip(known, level.stored, strict=True):
            one.go_back(stored)
        read = [one for one in later if one.found is not None]
        for one in read:
            one.go_back(one.found)
        self._tracked = {id(one.of): one for one in known + read}

    def _send(self, place: Place) -> Steps[None]:
        piece = self._piece()
        sent, self._waiting = self._waiting[:piece], self._waiting[piece:]
        self._bytes -= sum(one.size for one in sent)
        yield from self._or_fails(self._executing(place, [one.operation for one in sent]))

    def _executing(self, place: Place, sent: list[Operation[Any]]) -> Steps[None]:
        try:
            yield from executing(place, sent)
        except SidecarError as error:
            if error.idempotency_key is None:
                raise
            yield from look_up(self._settings.timeout, error, idempotency_key=error.idempotency_key)

    def _or_fails(self, steps: Steps[T]) -> Steps[T]:
        ends = self._ends
        try:
            return (yield from steps)
        except BaseException as error:  # A task that is cancelled has not sent it, either.
            if ends == self._ends:
                self._failed = error
            raise

    def _end_prepared(self, rpc: str) -> Steps[None]:
        assert self._life is not None
        method, ended = control(rpc), self._life.id
        request = method.request(transaction_id=ended)
        try:
            yield from call_outside(method, request, (), self._settings.timeout, self._settings.wait_for_ready)
        except SidecarError as error:
            if error.reason in _NOT_COMMITTED:
                raise
            # Also of a refusal: an attempt before it may have taken effect, and one after it still can.
            raise OutcomeUnknownError(transaction_id=ended) from error
        finally:
            self.prepared = False
            self._life = None

    def _forget(self) -> None:
        self._waiting, self._tracked, self._life, self._failed, self._kept = [], {}, None, None, None
        self._bytes = 0
        self._ends += 1
        self.prepared = False
        self.levels = [Level(one.part) for one in self.levels]
