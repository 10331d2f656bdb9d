"""Errors under the names that callers of the original look at; where SQLAlchemy is installed they are its, too."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import (
    ConflictError,
    ConstraintError,
    DeadlineError,
    InvalidRequestError,
    SidecarError,
    TransactionAbortedError,
    UnavailableError,
)

try:
    _sqlalchemy: Any = import_module("sqlalchemy.exc")
except ImportError:
    _sqlalchemy = None
_Data: Any = _sqlalchemy.DataError if _sqlalchemy else Exception
_Integrity: Any = _sqlalchemy.IntegrityError if _sqlalchemy else Exception
_Operational: Any = _sqlalchemy.OperationalError if _sqlalchemy else Exception
_Pending: Any = _sqlalchemy.PendingRollbackError if _sqlalchemy else Exception


class IntegrityError(ConstraintError, _Integrity):  # type: ignore[misc]
    """A constraint of the database refuses the row."""


class DataError(InvalidRequestError, _Data):  # type: ignore[misc]
    """A value is none that its column takes."""


class OperationalError(SidecarError, _Operational):  # type: ignore[misc]
    """The database, or the sidecar, cannot do it now; a conflict, a deadline, nobody there."""

    @property
    def retriable(self) -> bool:
        """As of the error that it stands for."""
        return bool(self.orig.retriable)


class PendingRollbackError(TransactionAbortedError, _Pending):  # type: ignore[misc]
    """Something has failed before, and has to be rolled back first."""


def translated(error: SidecarError) -> SidecarError:
    """The error as callers of the original expect it."""
    if isinstance(error, (IntegrityError, DataError, OperationalError, PendingRollbackError)):
        return error
    if isinstance(error, ConstraintError):
        kind: type[SidecarError] = IntegrityError
    elif isinstance(error, InvalidRequestError):
        kind = DataError
    elif isinstance(error, (ConflictError, DeadlineError, UnavailableError)):
        kind = OperationalError
    elif isinstance(error, TransactionAbortedError):
        kind = PendingRollbackError
    else:
        return error
    again = kind.__new__(kind)
    again.args = error.args
    # What SQLAlchemy's own code reads of its errors.
    again.__dict__.update(error.__dict__, statement=None, params=None, orig=error, hide_parameters=True, detail=[])
    again.__dict__.update(connection_invalidated=False, ismulti=False)
    return again
