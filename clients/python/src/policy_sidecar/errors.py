"""What a call ends with that does not succeed: one class a kind of thing that a caller can do about it.

The class follows from the error's reason, or, of a reason that only a newer contract names, from its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ._gen.reasons import MEANINGS, ErrorReason, Meaning


class Violation(NamedTuple):
    """A field that was refused."""

    field: str
    description: str


class Precondition(NamedTuple):
    """What was expected and not found."""

    type: str
    subject: str
    description: str


class SidecarError(Exception):
    """A call that did not succeed."""

    #: Name of the gRPC code.
    code: str
    #: What happened, for people.
    message: str
    #: Why, for programs; None where no sidecar answered, and possibly one that only a newer contract names.
    reason: str | None
    #: What goes with the reason.
    metadata: Mapping[str, str]
    #: The least number of seconds after which the same call, or for a conflict the whole transaction, may succeed; None
    #: where waiting does not help.
    retry_after: float | None
    #: Every field that was refused.
    violations: Sequence[Violation]
    #: What was expected and not found.
    preconditions: Sequence[Precondition]
    #: Key of a `single_use` write or an `execute` of which nobody could say whether it was committed, for asking:
    #: `client.transactions.get_outcome(idempotency_key=…)`; else None.
    idempotency_key: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Sequence[Violation] = (),
        preconditions: Sequence[Precondition] = (),
    ) -> None:
        Exception.__init__(self, message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = tuple(violations)
        self.preconditions = tuple(preconditions)

    @property
    def retriable(self) -> bool:
        """Whether the same call, or inside a transaction the whole of that, may succeed when it is tried again.

        `run` goes by it; docs/clients.md has it reason by reason.
        """
        return self.retry_after is not None or self.code == "ABORTED"

    @property
    def operation(self) -> int | None:
        """Index of the operation of `execute` that failed; None where it was none, or all of them were refused."""
        at = self.metadata.get("operation")
        return None if at is None else int(at)

    def __str__(self) -> str:
        fields = "".join(f"; {one.field}: {one.description}" for one in self.violations)
        return f"{self.reason or self.code}: {self.message}{fields}"

    def __reduce__(self) -> Any:
        return _again, (type(self), self.message, self.__dict__)


def _again(kind: type[SidecarError], message: str, facts: dict[str, Any]) -> SidecarError:
    """The error from another process."""
    error = kind.__new__(kind, message)
    error.args = (message,)
    error.__dict__.update(facts)
    return error


class InvalidRequestError(SidecarError):
    """Fields, headers or values are wrong, and nothing was written: `violations` names the fields."""


class ConstraintError(SidecarError):
    """A constraint of the database refuses the row."""

    @property
    def constraint(self) -> str | None:
        """Name of the constraint, where it is told."""
        return self.metadata.get("constraint")


class UniqueViolationError(ConstraintError):
    """A row with this key exists."""


class ForeignKeyViolationError(ConstraintError):
    """A row that it refers to does not exist, or others refer to it."""


class NotNullViolationError(ConstraintError, InvalidRequestError):
    """The database demands a value."""


class CheckViolationError(ConstraintError, InvalidRequestError):
    """The database refuses a value by a check."""


class ConflictError(SidecarError):
    """The transaction collided with another one; all of it may be tried again."""


class PreconditionError(SidecarError):
    """The state of things does not allow it."""


class TransactionEndedError(PreconditionError):
    """The transaction has ended, or there is none of that id; nothing can be done in it any more."""

    @property
    def retriable(self) -> bool:
        """Whether it is known to be rolled back, and not for its own slowness, so that all of it may be tried again."""
        return self.reason in ("TRANSACTION_ROLLED_BACK", "TRANSACTION_LOST", "TRANSACTION_ELSEWHERE")


class TransactionAbortedError(PreconditionError):
    """A statement of the transaction had failed: roll back, or back to a savepoint."""


class NotFoundError(SidecarError):
    """There is no such thing."""


class AlreadyExistsError(SidecarError):
    """There is such a thing already."""


class UnauthenticatedError(SidecarError):
    """The caller is not known."""


class NotAllowedError(SidecarError):
    """The caller may not do that."""


class LimitError(SidecarError):
    """A limit is reached; where `retriable`, only for now."""


class UnavailableError(SidecarError):
    """The sidecar or its database is not there now. What is done outside a transaction may be tried again."""

    @property
    def retriable(self) -> bool:
        """Whether nothing can have been committed."""
        return self.reason != "COMMIT_OUTCOME_UNKNOWN"


class DeadlineError(SidecarError):
    """Its time was over."""


class CancelledError(SidecarError):
    """The caller left, or the stream was closed."""


class InternalError(SidecarError):
    """A defect of the sidecar or of what is stored, or a method that it does not have."""


class OutcomeUnknownError(SidecarError):
    """Nobody could say whether the transaction was committed."""

    #: The transaction, for asking again later: `client.transactions.get_outcome(transaction_id=…)`; None where it had a key.
    transaction_id: str | None

    def __init__(self, *, transaction_id: str | None = None, idempotency_key: str | None = None) -> None:
        super().__init__(
            f"whether transaction {transaction_id or idempotency_key} was committed is not known",
            code="UNAVAILABLE",
            reason="COMMIT_OUTCOME_UNKNOWN",
        )
        self.transaction_id = transaction_id
        self.idempotency_key = idempotency_key


#: The class of a code.
BY_CODE: Mapping[str, type[SidecarError]] = {
    "CANCELLED": CancelledError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "PERMISSION_DENIED": NotAllowedError,
    "RESOURCE_EXHAUSTED": LimitError,
    "FAILED_PRECONDITION": PreconditionError,
    "ABORTED": ConflictError,
    "OUT_OF_RANGE": InvalidRequestError,
    "UNAVAILABLE": UnavailableError,
    "UNAUTHENTICATED": UnauthenticatedError,
}

_ENDED = (
    ErrorReason.TRANSACTION_UNKNOWN,
    ErrorReason.TRANSACTION_COMMITTED,
    ErrorReason.TRANSACTION_ROLLED_BACK,
    ErrorReason.TRANSACTION_EXPIRED,
    ErrorReason.TRANSACTION_LOST,
    ErrorReason.TRANSACTION_OUTCOME_UNKNOWN,
    ErrorReason.TRANSACTION_ELSEWHERE,
    ErrorReason.TRANSACTION_PREPARED,
)

#: The class of every reason that this contract names.
BY_REASON: Mapping[str, type[SidecarError]] = {
    **{reason.value: BY_CODE.get(meaning.code, InternalError) for reason, meaning in MEANINGS.items()},
    **{reason.value: TransactionEndedError for reason in _ENDED},
    ErrorReason.TRANSACTION_ABORTED.value: TransactionAbortedError,
    ErrorReason.UNIQUE_VIOLATION.value: UniqueViolationError,
    ErrorReason.FOREIGN_KEY_VIOLATION.value: ForeignKeyViolationError,
    ErrorReason.NOT_NULL_VIOLATION.value: NotNullViolationError,
    ErrorReason.CHECK_VIOLATION.value: CheckViolationError,
}


def class_of(code: str, reason: str | None) -> type[SidecarError]:
    """The class of an error."""
    return BY_REASON.get(reason or "") or BY_CODE.get(code, InternalError)


__all__ = [
    "BY_CODE",
    "BY_REASON",
    "MEANINGS",
    "AlreadyExistsError",
    "CancelledError",
    "CheckViolationError",
    "ConflictError",
    "ConstraintError",
    "DeadlineError",
    "ErrorReason",
    "ForeignKeyViolationError",
    "InternalError",
    "InvalidRequestError",
    "LimitError",
    "Meaning",
    "NotAllowedError",
    "NotFoundError",
    "NotNullViolationError",
    "OutcomeUnknownError",
    "Precondition",
    "PreconditionError",
    "SidecarError",
    "TransactionAbortedError",
    "TransactionEndedError",
    "UnauthenticatedError",
    "UnavailableError",
    "UniqueViolationError",
    "Violation",
    "class_of",
]
