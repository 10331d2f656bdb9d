"""Values that Python has no word for."""

import enum


class JsonNull(enum.Enum):
    """The type of `JSON_NULL`."""

    JSON_NULL = "null"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "JSON_NULL"


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNSET"


class JsonText(str):
    """A document as its JSON text, which is sent as it is. In an answer: one that Python cannot read."""

    __slots__ = ()


#: A document that is the JSON null, where None means that there is no document (SQL NULL). Inside a document null is None.
JSON_NULL = JsonNull.JSON_NULL

#: An argument of an update that was not given.
UNSET = Unset.UNSET
