"""A proxy between a client and a sidecar that knows calls: it counts them, loses answers, keeps them back, and cuts streams."""

from __future__ import annotations

import threading
from _thread import interrupt_main
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import grpc


class Relay(grpc.GenericRpcHandler):
    """Hands calls on as they are."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        #: How often each RPC was called, by its name.
        self.calls: Counter[str] = Counter()
        #: RPCs of which the next answer gets lost, or the next request.
        self.loses: list[str] = []
        self.drops: list[str] = []
        #: What calls end with whose answer or request gets lost, one after the other; the last for all that follow.
        self.codes = [grpc.StatusCode.UNAVAILABLE]
        #: RPCs that are kept back until they are let go.
        self.keeps: list[str] = []
        self.lets_go = threading.Event()
        #: RPCs whose next answer is kept back, and interrupts the main thread instead.
        self.interrupts: list[str] = []
        #: The calls that came, and the seconds that each had then; None: as long as it takes.
        self.left: list[tuple[str, float | None]] = []
        #: After how many answers the next streams are cut, one number each.
        self.cuts: list[int] = []
        self._server = grpc.server(ThreadPoolExecutor(16), handlers=(self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        self.calls[name] += 1
        metadata = [one for one in details.invocation_metadata if one[0] != "user-agent"]

        def unary(request: bytes, context: Any) -> bytes:
            self.left.append((name, context.time_remaining()))
            if name in self.keeps:
                self.lets_go.wait(20)
                if not context.is_active():
                    context.abort(grpc.StatusCode.CANCELLED, "its caller has left")
            if name in self.drops:
                self.drops.remove(name)
                context.abort(self._code(), "dropped on its way")
            call = self._channel.unary_unary(details.method)
            try:
                answer, ended = call.with_call(request, context.time_remaining(), metadata)
            except grpc.RpcError as error:
                _fail(context, error)
                raise
            if name in self.interrupts:
                self.interrupts.remove(name)
                interrupt_main()
                self.lets_go.wait(20)
            if name in self.loses:
                self.loses.remove(name)
                context.abort(self._code(), "lost on its way")
            context.set_trailing_metadata(ended.trailing_metadata())
            return bytes(answer)

        def stream(request: bytes, context: Any) -> Iterator[bytes]:
            if name in self.keeps:
                self.lets_go.wait(20)
            answers: Any = self._channel.unary_stream(details.method)(request, None, metadata)
            context.add_callback(answers.cancel)
            most = self.cuts.pop(0) if self.cuts and name != "Hold" else None
            try:
                yield from islice(answers, most)
            except grpc.RpcError as error:
                _fail(context, error)
            if most is not None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut on its way")

        if name == "Hold" or name.startswith("Stream"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    def _code(self) -> grpc.StatusCode:
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]

    def close(self) -> None:
        self.lets_go.set()
        self._server.stop(0)
        self._channel.close()


def _fail(context: Any, error: Any) -> None:
    context.set_trailing_metadata(error.trailing_metadata() or ())
    context.abort(error.code(), error.details())
