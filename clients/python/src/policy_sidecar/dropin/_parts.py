"""What the work of a session consists of: writes that wait, objects that are tracked, parts that can be undone alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .._operations import Operation


@dataclass(frozen=True)
class Waiting:
    """A write that waits."""

    operation: Operation[Any]
    #: Bytes of what is sent, or of the row that comes back where that has more.
    size: int


class Tracked(Protocol):
    """An object whose changes are written at a flush."""

    @property
    def of(self) -> Any:
        """The object."""

    @property
    def key(self) -> Any:
        """What no other object has; None where it may be that of another one."""

    @property
    def goes_last(self) -> bool:
        """Whether it refers to others."""

    @property
    def found(self) -> Any:
        """What the database had of it when it was read; None where it was made."""

    @property
    def stored(self) -> Any:
        """What the database has of it; None: nothing yet."""

    def change(self) -> Waiting | None:
        """What was changed of it since it was stored, which counts as stored then."""

    def go_back(self, stored: Any) -> None:
        """Makes it again what the database has again."""


@dataclass(frozen=True)
class Level:
    """What there was when a part of the session's work began that can be undone alone."""

    #: Its name for the session.
    part: Any
    #: What the database had of the objects that were tracked.
    stored: tuple[Any, ...] = ()
    #: Where it began in the transaction; None: there was none.
    savepoint: str | None = None
