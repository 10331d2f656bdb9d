"""Between messages and native values, by plans that are made once of the descriptors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from ._answer import Answer, Trailers
from ._documents import document_of, fill_value
from ._gen import enums, types
from ._gen.facts import DECIMALS

Convert = Callable[[Any], Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LIST = "hoc.cus.policies.v1.StringList"


class UnfitError(ValueError):
    """A value that a field cannot hold."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


def text(value: Any) -> str:
    """The text of a text, a UUID or a decimal number."""
    if isinstance(value, str):
        return value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"a text is expected, not {value!r}")


def fill_timestamp(message: Any, value: datetime) -> None:
    """Writes an instant, to the microsecond."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError(f"an instant is a datetime with a zone, not {value!r}")
    since = value - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1_000


def timestamp_of(message: Any) -> datetime:
    """The instant, in UTC."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def fill_duration(message: Any, value: timedelta) -> None:
    """Writes a length of time; its parts have one sign."""
    if not isinstance(value, timedelta):
        raise TypeError(f"a length of time is a timedelta, not {value!r}")
    whole = value // timedelta(microseconds=1)
    sign = -1 if whole < 0 else 1
    message.seconds = sign * (abs(whole) // 1_000_000)
    message.nanos = sign * (abs(whole) % 1_000_000) * 1_000
    message.SetInParent()


def duration_of(message: Any) -> timedelta:
    """The length of time."""
    return timedelta(seconds=message.seconds, microseconds=int(message.nanos / 1_000))


def _fill_list(message: Any, value: Any) -> None:
    if isinstance(value, str):
        raise TypeError("a list of texts is expected, not a text")
    message.SetInParent()
    message.values.extend(text(element) for element in value)


_FILL: dict[str, Callable[[Any, Any], None]] = {
    "google.protobuf.Timestamp": fill_timestamp,
    "google.protobuf.Duration": fill_duration,
    "google.protobuf.Value": fill_value,
    _LIST: _fill_list,
}
_READ: dict[str, Convert] = {
    "google.protobuf.Timestamp": timestamp_of,
    "google.protobuf.Duration": duration_of,
    "google.protobuf.Value": document_of,
    _LIST: lambda message: list(message.values),
}


@cache
def _members(descriptor: EnumDescriptor) -> tuple[Any, dict[Any, int], dict[int, Any]]:
    kind = getattr(enums, descriptor.name)
    prefix = descriptor.values[0].name.removesuffix("UNSPECIFIED")
    numbers = {kind[value.name.removeprefix(prefix)]: value.number for value in descriptor.values}
    return kind, numbers, {number: member for member, number in numbers.items()}


def _scalar_in(field: FieldDescriptor) -> Convert:
    if field.enum_type is not None:
        kind, numbers, _ = _members(field.enum_type)
        return lambda value: numbers[kind(value)]
    return text if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else lambda value: value


def _scalar_out(field: FieldDescriptor) -> Convert | None:
    if field.enum_type is not None:
        _, _, members = _members(field.enum_type)
        return lambda number: members.get(number, members[0])
    return Decimal if field.full_name in DECIMALS else None


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _fill_part(descriptor: Descriptor) -> Callable[[Any, Any], None]:
    known = _FILL.get(descriptor.full_name)
    if known:
        return known

    def fill_part(message: Any, value: Any) -> None:
        if type(value) is not getattr(types, descriptor.name):
            raise TypeError(f"a {descriptor.name} is expected, not {value!r}")
        message.SetInParent()
        fill(message, {name: getattr(value, name) for name in descriptor.fields_by_name})

    return fill_part


def _setter(field: FieldDescriptor) -> Callable[[Any, Any], None]:
    """How a value gets into its field."""
    name = field.name
    if _is_map(field):
        return lambda message, value: getattr(message, name).update(value)
    if field.message_type is not None:
        fill_part = _fill_part(field.message_type)
        if field.is_repeated:

            def add(message: Any, value: Any) -> None:
                parts = getattr(message, name)
                for part in value:
                    fill_part(parts.add(), part)

            return add
        return lambda message, value: fill_part(getattr(message, name), value)
    convert = _scalar_in(field)
    if field.is_repeated:

        def extend(message: Any, value: Any) -> None:
            if isinstance(value, str):
                raise TypeError("a list is expected, not a text")
            getattr(message, name).extend([convert(one) for one in value])

        return extend
    return lambda message, value: setattr(message, name, convert(value))


@cache
def _setters(descriptor: Descriptor) -> dict[str, Callable[[Any, Any], None]]:
    return {field.name: _setter(field) for field in descriptor.fields}


def fill(message: Any, values: Mapping[str, Any]) -> None:
    """Writes native values into the fields of their names; None leaves a field unset.

    TypeError, with the field's name, for what is none of its kind, UnfitError for what it cannot hold.
    """
    setters = _setters(message.DESCRIPTOR)
    for name, value in values.items():
        if value is None:
            continue
        try:
            setters[name](message, value)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        except ValueError as error:
            raise UnfitError(name, str(error)) from None


def _getter(field: FieldDescriptor) -> Convert:
    """How a field's native value is read."""
    name = field.name
    if _is_map(field):
        return lambda message: dict(getattr(message, name))
    if field.message_type is not None:
        part: Convert = _READ.get(field.message_type.full_name, native)
        if field.is_repeated:
            return lambda message: [part(one) for one in getattr(message, name)]
        return lambda message: part(getattr(message, name)) if message.HasField(name) else None
    convert = _scalar_out(field)
    if field.is_repeated:
        return lambda message: [convert(one) if convert else one for one in getattr(message, name)]
    if not field.has_presence:
        return (lambda message: convert(getattr(message, name))) if convert else (lambda message: getattr(message, name))

    def read(message: Any) -> Any:
        if not message.HasField(name):
            return None
        value = getattr(message, name)
        return convert(value) if convert else value

    return read


@cache
def _getters(descriptor: Descriptor) -> tuple[Any, list[tuple[str, Convert]]]:
    return getattr(types, descriptor.name), [(field.name, _getter(field)) for field in descriptor.fields]


def native(message: Any) -> Any:
    """The native value of a message of the contract."""
    kind, getters = _getters(message.DESCRIPTOR)
    return kind(**{name: read(message) for name, read in getters})


def answer(message: Any, trailers: Trailers) -> Any:
    """The native value of an answer."""
    kind, getters = _getters(message.DESCRIPTOR)
    values = {name: read(message) for name, read in getters}
    return kind(**values, trailers=trailers) if issubclass(kind, Answer) else kind(**values)
