"""Documents: JSON as Python has it, and its text, in which the sidecar sends and takes them (header `documents: text`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .values import JSON_NULL, JsonText

#: What every call says of its documents.
HEADER = ("documents", "text")


def _other(value: Any) -> Any:
    """What is no type of JSON's own."""
    if value is JSON_NULL:
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return list(value)
    raise TypeError(f"JSON has no form for a {type(value).__name__}")


def fill_value(message: Any, value: Any) -> None:
    """Writes a JSON value into a `google.protobuf.Value`, as its text.

    TypeError for what JSON has no form for, ValueError for NaN and infinity.
    """
    if isinstance(value, JsonText):
        message.string_value = value
    else:
        message.string_value = json.dumps(value, allow_nan=False, ensure_ascii=False, default=_other)


def document_of(message: Any) -> Any:
    """A document that is there: null at its top is `JSON_NULL`.

    `JsonText` of one that Python does not read, for the depth of its nesting or the length of an integer.
    """
    try:
        value = json.loads(message.string_value)
    except (RecursionError, ValueError):  # No row may fail a list.
        return JsonText(message.string_value)
    return JSON_NULL if value is None else value
