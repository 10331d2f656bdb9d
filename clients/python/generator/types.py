"""Generates the values that answers are made of: frozen dataclasses."""

import re

from .contract import Contract, Field, Message
from .python_types import has_presence, is_map, or_none, python_type
from .text import HEAD, docstring, remark

_IMPORTS = '''"""What answers are made of, and the parts of requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from .._answer import ABSENT, Answer
from .enums import *  # noqa: F403


'''


def _attribute(contract: Contract, one: Field, comment: str) -> str:
    kind = python_type(contract, one, comment)
    if is_map(contract, one):
        return f"{kind} = field(default_factory=dict)"
    if one.label == Field.LABEL_REPEATED:
        return f"{kind} = field(default_factory=list)"
    may_be_unset = re.search(r"\b(unset|nullable)\b", comment, re.IGNORECASE)
    if one.proto3_optional or one.HasField("oneof_index") or (has_presence(one) and may_be_unset):
        return f"{or_none(kind)} = None"
    if one.type == Field.TYPE_MESSAGE:
        return f"{kind} = None" if kind == "Any" else f"{kind} = ABSENT"
    if one.type == Field.TYPE_ENUM:
        return f"{kind} = {kind}.UNSPECIFIED"
    default = {"str": '""', "bool": "False", "float": "0.0", "Decimal": "Decimal()", "bytes": 'b""'}
    return f"{kind} = {default.get(kind, '0')}"


def _dataclass(contract: Contract, message: Message, answer: bool) -> str:
    text = "@dataclass(frozen=True, kw_only=True, slots=True)\n"
    text += f"class {message.name}{'(Answer)' if answer else ''}:\n" + docstring(message.comment, 4)
    for one, comment in message.fields:
        text += "\n" + remark(comment, 4) + f"    {one.name}: {_attribute(contract, one, comment)}\n"
    return text


def types_module(contract: Contract) -> str:
    """The module of all of them."""
    answers = {rpc.response.name for service in contract.services for rpc in service.rpcs}
    messages = list(contract.reachable())
    text = HEAD + _IMPORTS
    text += "\n\n".join(_dataclass(contract, message, message.name in answers) for message in messages)
    text += "\n__all__ = [\n" + "".join(f'    "{message.name}",\n' for message in messages) + "]\n"
    return text
