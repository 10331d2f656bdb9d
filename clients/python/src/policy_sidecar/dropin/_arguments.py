"""From the original's arguments to the client's."""

from __future__ import annotations

import enum
from typing import Any, TypeVar

from ..values import JSON_NULL, JsonText

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


def number(given: Any) -> Any:
    """A number that may be written as text."""
    return float(given) if isinstance(given, str) else given


def filtered(given: Any) -> Any:
    """A filter that counts where it is truthy."""
    return given or None
