"""The connections of a client, and who runs its steps, for asyncio."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import grpc.aio

from .._answer import Trailers
from .._contract import Method, control
from .._settings import Settings
from .._status import error_of
from .._steps import Call, Do, Headers, Held, Hold, Pause, Steps, overdue

T = TypeVar("T")


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _end_in(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    """Ends a stream in its loop: what is garbage is found in whatever thread."""
    with suppress(RuntimeError):  # The loop is closed, and the stream with it.
        loop.call_soon_threadsafe(end)


class Lines:
    """One channel a loop and process; that of a loop that was closed goes when another loop has its first."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._channels: dict[asyncio.AbstractEventLoop, tuple[int, grpc.aio.Channel]] = {}

    def channel(self) -> grpc.aio.Channel:
        """The channel of the running loop."""
        loop = asyncio.get_running_loop()
        process, channel = self._channels.get(loop, (0, None))
        if channel is None or process != os.getpid():
            settings = self.settings
            if settings.secure:
                channel = grpc.aio.secure_channel(settings.target, settings.credentials(), settings.options())
            else:
                channel = grpc.aio.insecure_channel(settings.target, settings.options())
            # A channel holds its loop, which would keep both for ever. Other threads may have their own loops.
            for one in tuple(self._channels):
                if one.is_closed():
                    self._channels.pop(one, None)
            self._channels[loop] = (os.getpid(), channel)
        return channel

    def has(self, channel: grpc.aio.Channel) -> bool:
        """Whether the channel is still the one of calls to come."""
        return self._channels.get(asyncio.get_running_loop(), (0, None))[1] is channel

    async def close(self) -> None:
        """Closes that of the running loop; open transactions are rolled back. The next call opens another one."""
        _, channel = self._channels.pop(asyncio.get_running_loop(), (0, None))
        if channel is not None:
            await channel.close(None)

    def open_stream(self, method: Method, request: Any, headers: Headers, timeout: float | None, wait: bool) -> Any:
        """Begins a stream of answers."""
        open_call = self.channel().unary_stream(method.path, _serialize, method.response.FromString)
        metadata = (*self.settings.headers(), *headers)
        return open_call(request, timeout=timeout, metadata=metadata, wait_for_ready=wait)

    async def run(self, steps: Steps[T]) -> T:
        """Runs steps to their end."""
        came: Any = None
        failed: BaseException | None = None
        while True:
            try:
                step = steps.throw(failed) if failed is not None else steps.send(came)
            except StopIteration as end:
                result: T = end.value
                return result
            came, failed = None, None
            try:
                came = await self._do(step)
            except BaseException as error:  # The steps clean up, and pass it on.
                failed = error

    async def _do(self, step: Call | Pause | Hold | Do) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Do):
            return await step.work()
        channel = self.channel()
        try:
            return await (self._hold(step) if isinstance(step, Hold) else self._call(channel, step))
        except grpc.RpcError as error:
            raise error_of(error, left=not self.has(channel)) from None

    async def _call(self, channel: grpc.aio.Channel, step: Call) -> tuple[Any, Trailers]:
        open_call = channel.unary_unary(step.method.path, _serialize, step.method.response.FromString)
        metadata = (*self.settings.headers(), *step.headers)
        call = open_call(step.request, timeout=step.timeout, metadata=metadata, wait_for_ready=step.wait)
        return await call, Trailers.read(await call.trailing_metadata())

    async def _hold(self, step: Hold) -> Held:
        stream = self.open_stream(control("Hold"), step.request, (), None, self.settings.wait_for_ready)

        def end() -> None:
            stream.cancel()

        try:
            held = Held(await asyncio.wait_for(stream.read(), step.timeout), end, lambda: not stream.done())
            # Its channel keeps a stream that nobody else has, and so would its transaction keep what it has locked.
            weakref.finalize(held, _end_in, asyncio.get_running_loop(), end).atexit = False
            return held
        except asyncio.TimeoutError:
            end()
            raise overdue("the beginning of the transaction") from None
        except BaseException:
            end()
            raise
