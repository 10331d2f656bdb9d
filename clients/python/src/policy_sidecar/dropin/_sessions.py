"""Sessions of SQLAlchemy, which are followed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ._units import AsyncUnit, Unit

#: Keys of a session's `info`: the client, whether ours is prepared before the session commits, what stands for the session.
CLIENT = "policy_sidecar"
PREPARES = "policy_sidecar_prepares"
_UNIT = "policy_sidecar_unit"


def _follow(session: Any, unit: Unit | AsyncUnit, run: Callable[[Any], Any]) -> None:
    """Ends with a session of SQLAlchemy: just before it commits, or prepared before and committed after it."""
    event: Any = import_module("sqlalchemy.event")
    work = unit.work

    def begin() -> None:
        if not session.in_transaction():
            session.begin()

    def before_flush(flushing: Any, context: Any, instances: Any) -> None:
        if not work.ending:
            run(unit.flush())

    def before_commit(ending: Any) -> None:
        if ending.in_nested_transaction():
            run(unit.flush())
            return
        if work.undone_in_part:
            raise RuntimeError("a savepoint of the session was rolled back, and what drivers did is rolled back as a whole")
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
        if work.prepared:
            run(unit.commit())

    def after_soft_rollback(ending: Any, previous: Any) -> None:
        if previous.nested and work.dirty:
            run(unit.rollback())
            work.undone_in_part = True

    def after_transaction_end(ending: Any, ended: Any) -> None:
        if ended.parent is None:
            run(unit.rollback())

    work.before_begin = begin
    for hook in (before_flush, before_commit, after_commit, after_soft_rollback, after_transaction_end):
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
