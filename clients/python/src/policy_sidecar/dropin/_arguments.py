"""From the original's arguments to the client's."""

from __future__ import annotations

import enum
import json
from typing import Any, TypeVar

from ..values import JSON_NULL

E = TypeVar("E", bound=enum.Enum)


def json_text(text: Any) -> Any:
    """The document of a JSON text; None is no document."""
    if text is None:
        return None
    document = json.loads(text)
    return JSON_NULL if document is None else document


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
