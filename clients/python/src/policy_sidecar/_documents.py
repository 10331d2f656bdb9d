"""Documents: JSON as Python has it, and as messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .values import JSON_NULL

#: Beyond it, not every whole number is one that a document can carry.
_EXACT = 2**53


def fill_value(message: Any, value: Any) -> None:
    """Writes a JSON value into a `google.protobuf.Value`.

    TypeError for what JSON has no form for, ValueError for a whole number that a double cannot hold.
    """
    if value is None or value is JSON_NULL:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, int):
        if abs(value) > _EXACT and (value.bit_length() > 1023 or int(float(value)) != value):
            raise ValueError(f"{value} is no number that a document can carry exactly; write it as text")
        message.number_value = value
    elif isinstance(value, float):
        message.number_value = value
    elif isinstance(value, Mapping):
        message.struct_value.SetInParent()
        fill_struct(message.struct_value, value)
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        message.list_value.SetInParent()
        values = message.list_value.values
        for element in value:
            fill_value(values.add(), element)
    else:
        raise TypeError(f"JSON has no form for a {type(value).__name__}")


def fill_struct(message: Any, value: Mapping[str, Any]) -> None:
    """Writes a mapping into a `google.protobuf.Struct`."""
    fields = message.fields
    for key, element in value.items():
        if not isinstance(key, str):
            raise TypeError(f"a key of a document is a text, not {key!r}")
        fill_value(fields[key], element)


def value_of(message: Any) -> Any:
    """The JSON value of a `google.protobuf.Value`; a whole number is an int."""
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return message.string_value
    if kind == "number_value":
        number = message.number_value
        whole = number.is_integer() and abs(number) <= _EXACT and (number or math.copysign(1, number) > 0)
        return int(number) if whole else number
    if kind == "bool_value":
        return message.bool_value
    if kind == "struct_value":
        return struct_of(message.struct_value)
    if kind == "list_value":
        return [value_of(element) for element in message.list_value.values]
    return None


def struct_of(message: Any) -> dict[str, Any]:
    """The JSON object of a `google.protobuf.Struct`."""
    return {key: value_of(element) for key, element in message.fields.items()}


def document_of(message: Any) -> Any:
    """A document that is there: null at its top is `JSON_NULL`."""
    return JSON_NULL if message.WhichOneof("kind") in (None, "null_value") else value_of(message)
