"""The connection of a client, and who runs its steps, for threads."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, TypeVar

import grpc

from ._answer import Trailers
from ._contract import Method, control
from ._settings import Settings
from ._status import error_of
from ._steps import Call, Do, Headers, Held, Hold, Pause, Steps, overdue

T = TypeVar("T")


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


class Lines:
    """One channel a process: a child that was forked opens its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._process = 0

    def channel(self) -> grpc.Channel:
        """The channel of this process."""
        with self._lock:
            if self._channel is None or self._process != os.getpid():
                settings = self.settings
                if settings.secure:
                    self._channel = grpc.secure_channel(settings.target, settings.credentials(), settings.options())
                else:
                    self._channel = grpc.insecure_channel(settings.target, settings.options())
                self._process = os.getpid()
            return self._channel

    def has(self, channel: grpc.Channel) -> bool:
        """Whether the channel is still the one of calls to come."""
        return self._channel is channel

    def close(self) -> None:
        """Closes it; open transactions are rolled back. The next call opens another one."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None and self._process == os.getpid():
            channel.close()

    def open_stream(self, method: Method, request: Any, headers: Headers, timeout: float | None, wait: bool) -> Any:
        """Begins a stream of answers."""
        open_call = self.channel().unary_stream(method.path, _serialize, method.response.FromString)
        return open_call(request, timeout, (*self.settings.headers(), *headers), wait_for_ready=wait)

    def run(self, steps: Steps[T]) -> T:
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
                came = self._do(step)
            except BaseException as error:  # The steps clean up, and pass it on.
                failed = error

    def _do(self, step: Call | Pause | Hold | Do) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Do):
            return step.work()
        channel = self.channel()
        try:
            return self._hold(step) if isinstance(step, Hold) else self._call(channel, step)
        except grpc.RpcError as error:
            raise error_of(error, left=not self.has(channel)) from None

    def _call(self, channel: grpc.Channel, step: Call) -> tuple[Any, Trailers]:
        call = channel.unary_unary(step.method.path, _serialize, step.method.response.FromString)
        metadata = (*self.settings.headers(), *step.headers)
        answer, ended = call.with_call(step.request, step.timeout, metadata, wait_for_ready=step.wait)
        return answer, Trailers.read(ended.trailing_metadata())

    def _hold(self, step: Hold) -> Held:
        stream = self.open_stream(control("Hold"), step.request, (), None, self.settings.wait_for_ready)
        late = threading.Event()

        def give_up() -> None:
            late.set()
            stream.cancel()

        clock = None if step.timeout is None else threading.Timer(step.timeout, give_up)
        try:
            if clock is not None:
                clock.daemon = True
                clock.start()
            return Held(next(stream), stream.cancel, stream.is_active)
        except BaseException:
            stream.cancel()
            if late.is_set():
                raise overdue("the beginning of the transaction") from None
            raise
        finally:
            if clock is not None:
                clock.cancel()
