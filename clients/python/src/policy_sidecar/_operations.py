"""Operations of a list that is run in one round trip, and what came of them; the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Generic, TypeVar

from ._answer import Trailers
from ._contract import control, message_class, method
from ._native import fill, native
from ._requests import Place, request_of
from ._steps import Steps
from .types import IsolationLevel

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Operation(Generic[T]):
    """A call that is run by `execute`, whose answer is a T; made by the methods of `policy_sidecar.operations`."""

    #: The message of the contract that says it.
    message: Any

    def expecting(self, rows: int) -> Operation[T]:
        """The same, where the whole list fails (`UNEXPECTED_ROW_COUNT`) unless so many rows are affected or found."""
        message = type(self.message)()
        message.CopyFrom(self.message)
        message.expected_rows = rows
        return replace(self, message=message)


class Executed:
    """What came of a list of operations."""

    #: Attempts it took, the successful one included.
    attempts: int
    #: What came after the answer.
    trailers: Trailers

    def __init__(self, operations: Sequence[Operation[Any]], message: Any, trailers: Trailers) -> None:
        self._operations = operations
        self._message = message
        self.attempts = message.attempts
        self.trailers = trailers

    @cached_property
    def results(self) -> list[Any]:
        """The answer to each operation, in their order."""
        return [native(getattr(one, one.WhichOneof("response"))) for one in self._message.results]

    @property
    def rows(self) -> list[int]:
        """The rows that each operation affected or found."""
        return [one.rows for one in self._message.results]

    def of(self, operation: Operation[T]) -> T:
        """The answer to an operation; ValueError for one that was not in the list."""
        for at, one in enumerate(self._operations):
            if one is operation:
                answer: T = self.results[at]
                return answer
        raise ValueError("the operation was not in the list")


@cache
def _fields() -> dict[str, str]:
    """The fields of an operation by the types of their requests."""
    operation = message_class("hoc.cus.policies.v1.Operation").DESCRIPTOR
    return {field.message_type.full_name: field.name for field in operation.oneofs_by_name["request"].fields}


def operation(
    path: str, kind: type[T], given: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> Operation[T]:
    """The operation of an RPC with native values."""
    request = request_of(method(path), given, changes)
    made = message_class("hoc.cus.policies.v1.Operation")()
    getattr(made, _fields()[request.DESCRIPTOR.full_name]).CopyFrom(request)
    return Operation(made)


def executing(
    place: Place, operations: Sequence[Operation[Any]], isolation: IsolationLevel | None = None, attempts: int = 1
) -> Steps[Executed]:
    """Runs operations from a place: inside its transaction, or in one of their own."""
    to = control("Execute")
    listed = list(operations)
    request = to.request(operations=[one.message for one in listed])
    if not place.inside:
        place = place.single_use()
        fill(request, {"isolation_level": isolation, "max_attempts": attempts})
    message, trailers = yield from place.call(to, request)
    return Executed(listed, message, trailers)
