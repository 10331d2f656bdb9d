"""What a field of the contract is in Python."""

import re

from .contract import Contract, Field

_SCALARS = {
    Field.TYPE_DOUBLE: "float",
    Field.TYPE_FLOAT: "float",
    Field.TYPE_BOOL: "bool",
    Field.TYPE_STRING: "str",
    Field.TYPE_BYTES: "bytes",
}
_KNOWN = {
    ".google.protobuf.Timestamp": "datetime",
    ".google.protobuf.Duration": "timedelta",
    ".google.protobuf.Value": "Any",
}


def is_decimal(one: Field, comment: str) -> bool:
    """Whether the contract says that the text is a decimal number."""
    return one.type == Field.TYPE_STRING and "decimal text" in " ".join(comment.split())


def is_map(contract: Contract, one: Field) -> bool:
    return one.type == Field.TYPE_MESSAGE and one.type_name.endswith("Entry") and contract.message(one.type_name) is None


def has_presence(one: Field) -> bool:
    return one.type == Field.TYPE_MESSAGE or one.proto3_optional or one.HasField("oneof_index")


def _element(contract: Contract, one: Field, comment: str, where: str, given: bool) -> str:
    if one.type_name.endswith(".StringList"):
        return "Sequence[str]" if given else "list[str]"
    if is_map(contract, one):
        return "Mapping[str, int]" if given else "dict[str, int]"
    if one.type == Field.TYPE_ENUM:
        return f"{where}{one.type_name.rpartition('.')[2]}"
    if one.type == Field.TYPE_MESSAGE:
        known = _KNOWN.get(one.type_name)
        if known:
            return known.replace("dict", "Mapping") if given else known
        return f"{where}{one.type_name.rpartition('.')[2]}"
    if is_decimal(one, comment):
        return "Decimal"
    if given and one.type == Field.TYPE_STRING and re.search(r"\bUUID\b", comment):
        return "str | UUID"
    return _SCALARS.get(one.type, "int")


def python_type(contract: Contract, one: Field, comment: str, where: str = "", given: bool = False) -> str:
    """The type of a field that is there; `given` by a caller it may be wider."""
    element = _element(contract, one, comment, where, given)
    if one.label != Field.LABEL_REPEATED or is_map(contract, one):
        return element
    return f"Sequence[{element}]" if given else f"list[{element}]"


def or_none(kind: str) -> str:
    return kind if kind == "Any" else f"{kind} | None"
