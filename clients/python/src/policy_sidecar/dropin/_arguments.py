"""From the original's arguments to the client's."""

from __future__ import annotations

import enum
from typing import Any, TypeVar

from ..values import JSON_NULL, JsonText
from .errors import refused

E = TypeVar("E", bound=enum.Enum)


def json_text(text: Any) -> Any:
    """The document of a JSON text, which is sent as it is; None is no document."""
    return None if text is None else JsonText(text)


def document(given: Any) -> Any:
    """A document where None is the JSON null."""
    return JSON_NULL if given is None else given


def member(kind: type[E]) -> Any:
    """A member by the text that the database has for it; None stays None. ValueError for a text that is none."""
    return lambda given: None if given is None else given if isinstance(given, kind) else kind(given)


def column(name: str, kind: type[E]) -> Any:
    """The same of a column with a check: where that would refuse the text, an IntegrityError that is a ValueError, too."""
    made = member(kind)

    def of(given: Any) -> Any:
        try:
            return made(given)
        except ValueError:
            raise refused(name, "must be a known value", given) from None

    return of


def demanded(name: str) -> Any:
    """An id without which the original's database refuses the row."""

    def of(given: Any) -> Any:
        if given is None:
            raise refused(name, "must be set", given)
        return given

    return of


def number(name: str, kind: type[float] | type[int] = float) -> Any:
    """A number that may be written as text; a DataError that is a ValueError, too, for other text."""

    def of(given: Any) -> Any:
        try:
            return kind(given) if isinstance(given, str) else given
        except ValueError:
            raise refused(name, "must be a number", given) from None

    return of


def filtered(given: Any) -> Any:
    """A filter that counts where it is truthy."""
    return given or None
