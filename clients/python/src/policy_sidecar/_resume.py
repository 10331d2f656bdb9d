"""Streams that are opened again where they are cut; the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.empty_pb2 import Empty

from ._contract import Method
from ._requests import Place
from ._steps import CALL_ATTEMPTS, Call, Deadline, Headers, Pause, Steps, delay
from .errors import DeadlineError, SidecarError, UnavailableError

#: The field of a stream's request, and of its rows, by which it goes on.
_TOKEN = "resume_token"
#: How many rows without a token after them are remembered; a stream that brings more does not go on.
_MOST_KEPT = 2_000
#: What it says is not looked at.
_HEALTH = Method("/grpc.health.v1.Health/Check", Empty, Empty, True, False)


class Course:
    """How far a stream has come: its last token, and the rows that were handed out since.

    These are told by what is in them, so that one that was changed meanwhile comes once more, and one that was added or
    removed disturbs nothing.
    """

    def __init__(self, method: Method, request: Any, place: Place) -> None:
        self.method = method
        #: By which the stream begins, or goes on from here.
        self.request = request
        #: Whether it waits for a sidecar that is not there yet; one that goes on has done that before.
        self.wait = place.wait
        self._place = place
        self._deadline = Deadline(place.stream_timeout)
        self._goes_on = place.resume and not place.inside and _TOKEN in request.DESCRIPTOR.fields_by_name
        #: In the order of the stream.
        self._kept: list[Any] = []
        #: Those of them that have not come again since the cut, as rows and as bytes: no NaN is equal to itself as a number.
        self._again: list[tuple[Any, bytes]] = []
        self._failures = 0

    @property
    def headers(self) -> Headers:
        """What makes its calls belong to their place."""
        return self._place.headers

    @property
    def timeout(self) -> float | None:
        """Seconds that it still has."""
        return self._deadline.left

    def is_new(self, row: Any) -> bool:
        """Remembers a row, and tells whether it is handed out for the first time."""
        if not self._goes_on:
            return True
        token = getattr(row, _TOKEN)
        at = self._index_again(row)
        if at is not None:
            self._again = self._again[at + 1 :]
        if token:
            self.request.resume_token = token
            self._kept = [each for each, _ in self._again]
        elif at is None and len(self._kept) == _MOST_KEPT:
            self._goes_on = False
            self._kept, self._again = [], []
        elif at is None:
            self._kept.insert(len(self._kept) - len(self._again), row)
        if at is None:
            self._failures = 0
        return at is None

    def go_on(self, error: SidecarError, lasts: Callable[[], bool]) -> Steps[None]:
        """Waits until another attempt can be made. Raises the error where none is, DeadlineError where nobody is there in time."""
        self._failures += 1
        wait = delay(error, self._failures)
        promising = self._goes_on and isinstance(error, UnavailableError) and error.retriable
        if not promising or self._failures >= CALL_ATTEMPTS or self._deadline.within(wait):
            raise error
        yield Pause(wait)
        if self.wait and lasts():
            yield from _somebody(self._deadline.bound(self._place.timeout))
        if not lasts():
            raise error
        self._again = [(row, _bytes(row)) for row in self._kept]

    def _index_again(self, row: Any) -> int | None:
        if not self._again:
            return None
        if getattr(row, _TOKEN):
            bare = type(row)()
            bare.CopyFrom(row)
            bare.ClearField(_TOKEN)
            row = bare
        found = _bytes(row)
        return next((at for at, (_, each) in enumerate(self._again) if each == found), None)


def _somebody(timeout: float | None) -> Steps[None]:
    """Waits until somebody is there; the stream itself, which has no deadline of its own, would wait without end."""
    try:
        yield Call(_HEALTH, Empty(), (), timeout, True)
    except DeadlineError:
        raise
    except SidecarError:
        return


def _bytes(row: Any) -> bytes:
    data: bytes = row.SerializeToString(deterministic=True)
    return data
