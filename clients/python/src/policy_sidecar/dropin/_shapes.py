"""From answers to what the original drivers returned."""

from __future__ import annotations

import enum
from collections import namedtuple
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from ..types import Answer
from ..values import JSON_NULL

Shape = Callable[[Any], Any]


class Row(dict[str, Any]):
    """A record: a mapping whose values are attributes, too, unless a mapping has a method of that name."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def plain(value: Any) -> Any:
    """A value as the original had it: texts for closed sets, None for the JSON null, records for rows."""
    if value is JSON_NULL:
        return None
    if isinstance(value, enum.Enum):
        return value.value
    if is_dataclass(value):
        left_out = "trailers" if isinstance(value, Answer) else ""
        return Row({one.name: plain(getattr(value, one.name)) for one in fields(value) if one.name != left_out})
    if isinstance(value, list) and value and is_dataclass(value[0]):  # A list of a document may be nested deep.
        return [plain(one) for one in value]
    return value


def row(value: Any, uuids: tuple[str, ...] = ()) -> Any:
    """A record, or None of none; `uuids` are the columns that were UUID objects."""
    if value is None:
        return None
    made = plain(value)
    for name in uuids:
        made[name] = UUID(made[name])
    return made


def one(name: str, *uuids: str) -> Shape:
    """The record in that field, or None."""
    return lambda answer: row(getattr(answer, name), uuids)


def rows(name: str, *uuids: str) -> Shape:
    """The records in that field."""
    return lambda answer: [row(each, uuids) for each in getattr(answer, name)]


def value(name: str) -> Shape:
    """The bare value of that field."""
    return lambda answer: plain(getattr(answer, name))


def tuples(name: str, columns: str) -> Shape:
    """The rows in that field as tuples."""
    names = columns.split()
    return lambda answer: [tuple(plain(getattr(each, name)) for name in names) for each in getattr(answer, name)]


def one_tuple(name: str, columns: str, *uuids: str) -> Shape:
    """The row in that field as a tuple, or None."""

    def made(answer: Any) -> Any:
        found = row(getattr(answer, name), uuids)
        return None if found is None else tuple(found[column] for column in columns.split())

    return made


@cache
def _row_of(columns: str) -> Any:
    """Rows of SQLAlchemy's: their columns by position, by name, and by `_mapping`."""
    own = {
        "__slots__": (),
        "__reduce__": lambda of: (_row_again, (columns, *of)),
        "_mapping": property(lambda of: of._asdict()),
    }
    return type("Row", (namedtuple("Row", columns),), own)


def _row_again(columns: str, *values: Any) -> Any:
    return _row_of(columns)(*values)


def named(columns: str) -> Shape:
    """The answer's fields as a row that is addressed by position and by name."""
    return lambda answer: _row_again(columns, *(plain(getattr(answer, name)) for name in columns.split()))


def whole(*left_out: str) -> Shape:
    """The whole answer as a record."""
    return lambda answer: Row({name: each for name, each in plain(answer).items() if name not in left_out})


def iso(*names: str) -> Callable[[Any], Any]:
    """A record whose instants are ISO texts."""

    def made(found: Any) -> Any:
        for name in names:
            if isinstance(found[name], datetime):
                found[name] = found[name].isoformat()
        return found

    return made


def nothing(answer: Any) -> None:
    """No result."""


affected = value("rows_affected")


def changed(answer: Any) -> bool:
    """Whether a row was changed."""
    return bool(answer.rows_affected)
