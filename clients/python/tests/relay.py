"""A proxy between a client and a sidecar that knows calls: it counts them, loses answers, and cuts streams."""

from __future__ import annotations

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
            if name in self.drops:
                self.drops.remove(name)
                context.abort(grpc.StatusCode.UNAVAILABLE, "dropped on its way")
            call = self._channel.unary_unary(details.method)
            try:
                answer, ended = call.with_call(request, context.time_remaining(), metadata)
            except grpc.RpcError as error:
                _fail(context, error)
                raise
            if name in self.loses:
                self.loses.remove(name)
                context.abort(grpc.StatusCode.UNAVAILABLE, "lost on its way")
            context.set_trailing_metadata(ended.trailing_metadata())
            return bytes(answer)

        def stream(request: bytes, context: Any) -> Iterator[bytes]:
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

    def close(self) -> None:
        self._server.stop(0)
        self._channel.close()


def _fail(context: Any, error: Any) -> None:
    context.set_trailing_metadata(error.trailing_metadata() or ())
    context.abort(error.code(), error.details())
