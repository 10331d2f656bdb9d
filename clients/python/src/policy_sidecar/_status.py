"""What grpc raises, as an error of the client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ._contract import message_class
from ._native import duration_of
from .errors import Precondition, SidecarError, Violation, class_of

_DETAILS = "grpc-status-details-bin"
#: What a stream that was reset on its way looks like; a sidecar gives a reason.
_BROKEN = ("CANCELLED", "UNKNOWN", "INTERNAL")


def _details(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, Any]:
    """The details of a status, by the names of their types."""
    for key, value in metadata or ():
        if key != _DETAILS or not isinstance(value, bytes):
            continue
        found = {}
        for detail in message_class("google.rpc.Status").FromString(value).details:
            name = detail.type_url.rpartition("/")[2]
            try:
                found[name.rpartition(".")[2]] = message_class(name).FromString(detail.value)
            except KeyError:
                continue  # A newer server tells more than this contract knows.
        return found
    return {}


def error_of(failure: Any, left: bool = False) -> SidecarError:
    """The error of what grpc has raised, whichever of its two libraries did; `left`: this side may have ended it."""
    code = failure.code().name
    details = _details(failure.trailing_metadata())
    info = details.get("ErrorInfo")
    reason = info.reason if info else None
    if reason is None and not left and code in _BROKEN:
        code = "UNAVAILABLE"
    retry = details.get("RetryInfo")
    bad = details.get("BadRequest")
    precondition = details.get("PreconditionFailure")
    return class_of(code, reason)(
        failure.details() or code,
        code=code,
        reason=reason,
        metadata=dict(info.metadata) if info else {},
        retry_after=duration_of(retry.retry_delay).total_seconds() if retry else None,
        violations=[Violation(one.field, one.description) for one in bad.field_violations] if bad else [],
        preconditions=[Precondition(one.type, one.subject, one.description) for one in precondition.violations]
        if precondition
        else [],
    )
