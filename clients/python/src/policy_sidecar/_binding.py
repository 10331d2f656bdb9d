"""What the generated services call, for threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc

from ._answer import Trailers
from ._contract import method
from ._lines import Lines
from ._native import answer, native
from ._opened import Opened
from ._requests import Bound, request_of
from ._resume import Course
from ._status import error_of
from .errors import SidecarError

T = TypeVar("T")


class Stream(Opened[Lines], Generic[T]):
    """Answers as they come. Leaving it early, by `close` or the end of its block, cancels the call.

    Outside transactions it goes on by itself where it is cut, unless `resume` is False. No row is handed out twice but one
    that others have changed meanwhile.
    """

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while not self._closed:
            try:
                message = next(self._call)
            except StopIteration:
                self.trailers = Trailers.read(self._call.trailing_metadata())
                self._closed = True
            except grpc.RpcError as error:
                self._go_on(error_of(error, left=not self._lasts()))
            else:
                if self._course.is_new(message):
                    value: T = native(message)
                    return value
        raise StopIteration

    def _go_on(self, error: SidecarError) -> None:
        try:
            self._lines.run(self._course.go_on(error, self._lasts))
        except SidecarError as ended:
            self._closed = True
            raise ended from None
        self._call = self._open(False)
        if self._closed:
            self._call.cancel()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


#: Calls from one place over the lines of a client.
Binding = Bound[Lines]


class Service:
    """A service of the contract, bound to where its calls belong."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding

    def _unary(
        self, path: str, kind: type[T], given: Mapping[str, Any], changes: Mapping[str, Any] | None = None
    ) -> T:
        to = method(path)
        message, trailers = self._binding.lines.run(self._binding.place.call(to, request_of(to, given, changes)))
        value: T = answer(message, trailers)
        return value

    def _stream(self, path: str, kind: type[T], given: Mapping[str, Any]) -> Stream[T]:
        to = method(path)
        return Stream(self._binding.lines, Course(to, request_of(to, given, None), self._binding.place))
