"""What every answer has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: Stands for an answer's part that the contract always sends.
ABSENT: Any = None


@dataclass(frozen=True, slots=True)
class Trailers:
    """What came after an answer."""

    #: A token that asks a later read to see what this call has committed, for `options(consistency=…)`; None where the
    #: sidecar has no replicas.
    consistency_token: str | None = None
    #: Stored values that their fields could not hold exactly, `schema.table.column[key]=how`; None where there are none.
    inexact_values: str | None = None

    @classmethod
    def read(cls, metadata: Iterable[tuple[str, str | bytes]] | None) -> Trailers:
        """The trailers of a call."""
        found = {key: value for key, value in metadata or () if isinstance(value, str)}
        return cls(found.get("consistency-token"), found.get("inexact-values"))


NO_TRAILERS = Trailers()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer of the sidecar."""

    #: What came after it; no part of it when answers are compared.
    trailers: Trailers = field(default=NO_TRAILERS, compare=False, repr=False)
