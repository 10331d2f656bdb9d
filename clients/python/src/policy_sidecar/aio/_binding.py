"""What the generated services call, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from .._answer import Trailers
from .._contract import method
from .._native import answer, native
from .._opened import Opened
from .._requests import Bound, request_of
from .._resume import Course
from .._status import error_of
from ..errors import SidecarError
from ._lines import Lines

T = TypeVar("T")
#: What a stream reads at its end; the types of grpc do not know it.
_END: Any = vars(grpc.aio)["EOF"]


class Stream(Opened[Lines], Generic[T]):
    """Answers as they come. Leaving it early, by `close` or the end of its block, cancels the call.

    Outside transactions it goes on by itself where it is cut, unless `resume` is False. No row is handed out twice but one
    that others have changed meanwhile.
    """

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._closed:
            try:
                message = await self._call.read()
            except grpc.RpcError as error:
                await self._go_on(error_of(error, left=not self._lasts()))
                continue
            if message is _END:
                self.trailers = Trailers.read(await self._call.trailing_metadata())
                self._closed = True
            elif self._course.is_new(message):
                value: T = native(message)
                return value
        raise StopAsyncIteration

    async def _go_on(self, error: SidecarError) -> None:
        try:
            await self._lines.run(self._course.go_on(error, self._lasts))
        except SidecarError as ended:
            self._closed = True
            raise ended from None
        self._call = self._open(False)

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


#: Calls from one place over the lines of a client.
Binding = Bound[Lines]


class Service:
    """A service of the contract, bound to where its calls belong."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding

    async def _unary(
        self, path: str, kind: type[T], given: Mapping[str, Any], changes: Mapping[str, Any] | None = None
    ) -> T:
        to = method(path)
        message, trailers = await self._binding.lines.run(self._binding.place.call(to, request_of(to, given, changes)))
        value: T = answer(message, trailers)
        return value

    def _stream(self, path: str, kind: type[T], given: Mapping[str, Any]) -> Stream[T]:
        to = method(path)
        return Stream(self._binding.lines, Course(to, request_of(to, given, None), self._binding.place))
