"""Streams, as far as they are the same for threads and for asyncio."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from ._answer import NO_TRAILERS, Trailers
from ._contract import Method
from ._resume import Course
from ._steps import Headers


class Opener(Protocol):
    """What opens streams: the lines of a client."""

    def channel(self) -> Any:
        """The channel of calls to come."""

    def has(self, channel: Any) -> bool:
        """Whether the channel is still that one."""

    def open_stream(self, method: Method, request: Any, headers: Headers, timeout: float | None, wait: bool) -> Any:
        """Begins a stream of answers."""


L = TypeVar("L", bound=Opener)


class Opened(Generic[L]):
    """A stream that has been opened, and can be again."""

    def __init__(self, lines: L, course: Course) -> None:
        self._call: Any = None
        self._closed = False
        self.trailers: Trailers = NO_TRAILERS
        self._lines = lines
        self._course = course
        self._channel = lines.channel()
        self._call = self._open(course.wait)

    def _open(self, wait: bool) -> Any:
        course = self._course
        return self._lines.open_stream(course.method, course.request, course.headers, course.timeout, wait)

    def _lasts(self) -> bool:
        return not self._closed and self._lines.has(self._channel)

    def close(self) -> None:
        """Cancels what is left of it."""
        self._closed = True
        self._call.cancel()

    def __del__(self) -> None:
        if self._call is not None:
            self._call.cancel()
