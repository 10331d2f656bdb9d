"""What the generated services call, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from .._answer import NO_TRAILERS, Trailers
from .._contract import method
from .._native import answer, native
from .._requests import Bound, request_of
from .._status import error_of
from ._lines import Lines

T = TypeVar("T")
#: What a stream reads at its end; the types of grpc do not know it.
_END: Any = getattr(grpc.aio, "EOF")


class Stream(Generic[T]):
    """Answers as they come. Leaving it early, by `close` or the end of its block, cancels the call."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._closed = False
        self.trailers: Trailers = NO_TRAILERS

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        try:
            message = await self._call.read()
            if message is not _END:
                value: T = native(message)
                return value
            self.trailers = Trailers.read(await self._call.trailing_metadata())
        except grpc.RpcError as error:
            self._closed = True
            raise error_of(error) from None
        self._closed = True
        raise StopAsyncIteration

    def close(self) -> None:
        """Cancels what is left of it."""
        self._closed = True
        self._call.cancel()

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self._call.cancel()


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
        to, place = method(path), self._binding.place
        request = request_of(to, given, None)
        return Stream(self._binding.lines.open_stream(to, request, place.headers, place.stream_timeout, place.wait))
