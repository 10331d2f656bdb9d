"""Errors under the names that callers of the original look at; where SQLAlchemy is installed they are its, too.

Each is also of the client's own class: a collision is an `OperationalError` and a `ConflictError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from .. import errors
from .._native import UnfitError
from ..errors import InvalidRequestError, SidecarError, TransactionEndedError, Violation


def _theirs(name: str, module: str = "sqlalchemy.exc") -> Any:
    try:
        return getattr(import_module(module), name)
    except ImportError:
        return Exception


class Translated(SidecarError):
    """An error that stands for one of the client."""

    #: That one.
    orig: SidecarError

    def __reduce__(self) -> Any:
        return translated, (self.orig,)


class DatabaseError(Translated, _theirs("DatabaseError")):  # type: ignore[misc]
    """The state of things does not allow it."""


class IntegrityError(Translated, _theirs("IntegrityError")):  # type: ignore[misc]
    """A constraint of the database refuses the row, or the sidecar by the same rule."""


class DataError(Translated, _theirs("DataError")):  # type: ignore[misc]
    """A value is none that its column takes."""


class OperationalError(Translated, _theirs("OperationalError")):  # type: ignore[misc]
    """It cannot be done now: a conflict, a limit, time that is over, a transaction that has ended, nobody there."""


class ProgrammingError(Translated, _theirs("ProgrammingError")):  # type: ignore[misc]
    """The caller may not do that, or the database's schema is another one."""


class InternalError(Translated, _theirs("InternalError")):  # type: ignore[misc]
    """A defect of the sidecar, or a write where nothing can be written."""


class PendingRollbackError(Translated, _theirs("PendingRollbackError")):  # type: ignore[misc]
    """Something has failed before, and has to be rolled back first."""


class StaleDataError(Translated, _theirs("StaleDataError", "sqlalchemy.orm.exc")):  # type: ignore[misc]
    """The row of a tracked object that was changed is gone."""


class ResourceClosedError(Translated, _theirs("ResourceClosedError")):  # type: ignore[misc]
    """A connection is used that is closed."""


class _ClosedError(TransactionEndedError):
    """The same, of the client's own."""


#: What the sidecar says of a value that the original's database refuses by NOT NULL or by a check.
_BY_CONSTRAINT = re.compile(r"must be (set|a known value|a finite number|between 0 and 1)$")

#: Reasons that say more than their class.
_BY_REASON: dict[str | None, type[Translated]] = {
    "UNEXPECTED_ROW_COUNT": StaleDataError,
    "SCHEMA_OUTDATED": ProgrammingError,
    "UNUSABLE_VALUE": DataError,
    "READ_ONLY_TRANSACTION": InternalError,
}

#: By the client's class, the narrower before the wider; what is none of these is an `OperationalError`.
_BY_CLASS: tuple[tuple[type[SidecarError], type[Translated]], ...] = (
    (errors.ConstraintError, IntegrityError),
    (errors.AlreadyExistsError, IntegrityError),
    (errors.InvalidRequestError, DataError),
    (errors.TransactionAbortedError, PendingRollbackError),
    (_ClosedError, ResourceClosedError),
    (errors.TransactionEndedError, OperationalError),
    (errors.PreconditionError, DatabaseError),
    (errors.NotFoundError, DatabaseError),
    (errors.NotAllowedError, ProgrammingError),
    (errors.InternalError, InternalError),
)


def _kind_of(error: SidecarError) -> type[Translated]:
    if error.reason in _BY_REASON:
        return _BY_REASON[error.reason]
    if error.violations and all(_BY_CONSTRAINT.match(one.description) for one in error.violations):
        return IntegrityError
    return next((theirs for ours, theirs in _BY_CLASS if isinstance(error, ours)), OperationalError)


_classes: dict[tuple[type[Translated], type[SidecarError]], type[Translated]] = {}


def _both(kind: type[Translated], ours: type[SidecarError]) -> type[Translated]:
    """The class of the kind's name that is the client's, too."""
    if (kind, ours) not in _classes:
        made = kind if issubclass(kind, ours) else type(kind.__name__, (kind, ours), {"__doc__": kind.__doc__})
        _classes[kind, ours] = made
    return _classes[kind, ours]


def translated(error: SidecarError) -> Translated:
    """The error as callers of the original expect it."""
    if isinstance(error, Translated):
        return error
    kind = _both(_kind_of(error), type(error))
    again = kind.__new__(kind)
    again.args = error.args
    # What SQLAlchemy's own code reads of its errors.
    again.__dict__.update(error.__dict__, statement=None, params=None, orig=error, hide_parameters=True, detail=[])
    again.__dict__.update(connection_invalidated=False, ismulti=False)
    return again


@contextmanager
def translating() -> Iterator[None]:
    """Raises errors as callers of the original expect them."""
    try:
        yield
    except Translated:
        raise
    except SidecarError as error:
        raise translated(error) from error
    except UnfitError as error:
        raise _refusal(str(error), error.field, error.problem) from error


class _RefusedError(InvalidRequestError, ValueError):
    """A value that is refused before it is sent."""


def closed() -> Translated:
    """What is said of a connection that is closed."""
    return translated(_ClosedError("this connection is closed", code="FAILED_PRECONDITION"))


def _refusal(message: str, field: str, description: str) -> Translated:
    violations = [Violation(field, description)]
    return translated(_RefusedError(message, code="INVALID_ARGUMENT", reason="INVALID_REQUEST", violations=violations))


def refused(field: str, description: str, given: Any) -> Translated:
    """What the sidecar would say of a field, said before it is asked; a ValueError, too."""
    return _refusal(f"invalid request: {field} {description}, not {given!r}", field, description)
