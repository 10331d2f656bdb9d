"""Sessions of SQLAlchemy, which are followed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from ._parts import Level
from ._units import AsyncUnit, Unit

#: Keys of a session's `info`: the client, whether ours is prepared before the session commits, how long a transaction of ours
#: may last, what stands for the session.
CLIENT = "policy_sidecar"
PREPARES = "policy_sidecar_prepares"
LEASE = "policy_sidecar_lease"
_UNIT = "policy_sidecar_unit"


def _follow(session: Any, unit: Unit | AsyncUnit, run: Callable[[Any], Any]) -> None:
    """Ends with a session of SQLAlchemy: just before it commits, or prepared before and committed after it.

    A savepoint of the session is one of ours.
    """
    event: Any = import_module("sqlalchemy.event")
    work = unit.work
    committed = False

    def begin() -> None:
        if not session.in_transaction():
            session.begin()

    def before_flush(flushing: Any, context: Any, instances: Any) -> None:
        if not work.ending:
            run(unit.flush())

    def after_transaction_create(beginning: Any, begun: Any) -> None:
        if begun.nested:
            try:
                run(unit._run(work.enter(begun)))
            except BaseException:
                begun.close()  # Nobody else has it yet.
                raise

    def before_commit(ending: Any) -> None:
        if ending.in_nested_transaction():
            run(unit.flush())
            return
        # What the database refuses of the session's own rows it refuses before ours are committed.
        work.ending = True
        try:
            ending.flush()
        finally:
            work.ending = False
        if session.info.get(PREPARES):
            run(unit.prepare())
        else:
            run(unit.commit())

    def after_commit(ended: Any) -> None:
        nonlocal committed
        part = ended.get_nested_transaction()
        if part is not None:
            work.keep(part)
        else:  # What is prepared, and all where a savepoint was open to the end: before the commit it looked like that one's.
            run(unit.commit())
            committed = True

    def after_soft_rollback(ending: Any, previous: Any) -> None:
        if previous.nested:
            run(unit._undo(previous))

    def after_transaction_end(ending: Any, ended: Any) -> None:
        nonlocal committed
        if ended.parent is not None:
            return
        well, committed = committed, False
        work.levels.clear()
        if not well:
            run(unit.rollback())
        elif work.begun:  # What others did meanwhile is the next one's, which a block of `begin` lets begin only after it.
            with suppress(import_module("sqlalchemy.exc").InvalidRequestError):
                begin()

    work.before_begin = begin
    work.levels = [Level(one) for one in _savepoints(session)]
    for hook in (
        after_transaction_create,
        before_flush,
        before_commit,
        after_commit,
        after_soft_rollback,
        after_transaction_end,
    ):
        event.listen(session, hook.__name__, hook)


def _savepoints(session: Any) -> list[Any]:
    """Those that a session is in, from the outermost to the innermost."""
    found: list[Any] = []
    one = session.get_nested_transaction()
    while one is not None:
        if one.nested:
            found.insert(0, one)
        one = one.parent
    return found


def _itself(session: Any) -> Any:
    """A session; that of this thread or task, of a `scoped_session` or an `async_scoped_session`."""
    return session() if callable(session) and hasattr(session, "registry") else session


def unit_of(session: Any) -> Unit:
    """What stands for a session at the sidecar."""
    if isinstance(session, Unit):
        return session
    session = _itself(session)
    unit: Unit | None = session.info.get(_UNIT)
    if unit is None:
        unit = session.info[_UNIT] = Unit(session.info.get(CLIENT), session.info.get(LEASE))
        _follow(session, unit, lambda done: done)
    return unit


def async_unit_of(session: Any) -> AsyncUnit:
    """What stands for a session of asyncio at the sidecar."""
    if isinstance(session, AsyncUnit):
        return session
    session = _itself(session)
    unit: AsyncUnit | None = session.info.get(_UNIT)
    if unit is None:
        unit = session.info[_UNIT] = AsyncUnit(session.info.get(CLIENT), session.info.get(LEASE))
        _follow(session.sync_session, unit, import_module("sqlalchemy.util").await_only)
    return unit
