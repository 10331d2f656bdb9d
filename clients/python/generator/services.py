"""Generates one class a service whose methods take and give native values: for threads, for asyncio, and as operations of a
list.
"""

from .contract import Contract, Field, Message, Rpc, Service, patch_of, snake
from .python_types import has_presence, or_none, python_type
from .text import HEAD, docstring, remark

_IMPORTS = '''"""{title}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

from .. import types
{base}
from ..values import UNSET, Unset

'''
_SERVICES = "from ..{module} import Binding, Service, Stream"
_OPERATIONS = "from .._operations import Operation, operation"

#: Requests whose fields all may be left out, whatever their comments say.
_MAY_BE_LEFT_OUT = ("empty:", "left empty", "left out", "free text")


def _required(one: Field, comment: str) -> bool:
    """Whether a caller has to say it: so the contract says, or the field is an id or a name that nothing stands in for."""
    if comment.startswith("Required"):
        return True
    if has_presence(one) or one.label == Field.LABEL_REPEATED or one.type == Field.TYPE_BOOL:
        return False
    return not any(words in comment.lower() for words in _MAY_BE_LEFT_OUT)


def _parameters(contract: Contract, message: Message, skip: tuple[str, ...]) -> list[tuple[str, str]]:
    """Keyword parameters, the required ones first."""
    required, others = [], []
    for one, comment in message.fields:
        if one.name in skip:
            continue
        kind = python_type(contract, one, comment, "types.", given=True)
        if _required(one, comment):
            required.append((one.name, kind))
        else:
            others.append((one.name, f"{or_none(kind)} = None"))
    return required + others


def _changes(contract: Contract, patch: Message) -> list[tuple[str, str]]:
    """Keyword parameters of an update: what is given is changed, None to NULL."""
    return [
        (one.name, f"{or_none(python_type(contract, one, comment, 'types.', given=True))} | Unset = UNSET")
        for one, comment in patch.fields
    ]


def _given(names: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{name}": {name}' for name, _ in names) + "}"


def _declared(contract: Contract, rpc: Rpc) -> tuple[str, str]:
    """The parameters of an RPC, and what it is given for them."""
    patch = patch_of(contract, rpc.request)
    own = _parameters(contract, rpc.request, ("updates", "update_mask") if patch else ())
    changes = _changes(contract, patch) if patch else []
    twice = {name for name, _ in own} & {name for name, _ in changes}
    if twice:
        raise RuntimeError(f"{rpc.path} has {', '.join(twice)} beside its updates, too")
    parameters = "".join(f"        {name}: {kind},\n" for name, kind in own + changes)
    return "        *,\n" + parameters if parameters else "", _given(own) + (f", {_given(changes)}" if patch else "")


def _doc(contract: Contract, rpc: Rpc) -> str:
    """The comment of an RPC; the header is the binding's matter, not the caller's."""
    changed = "\n\nWhat is given is changed, None to NULL; the mask is made of it." if patch_of(contract, rpc.request) else ""
    return docstring(rpc.comment.replace(" Needs a `transaction` header.", " A write.") + changed, 8)


def _method(contract: Contract, rpc: Rpc, asynchronous: bool) -> str:
    parameters, given = _declared(contract, rpc)
    answer = f"types.{rpc.response.name}"
    call = f'self._{"stream" if rpc.stream else "unary"}("{rpc.path}", {answer}, {given})'
    awaited = asynchronous and not rpc.stream
    text = f"    {'async ' if awaited else ''}def {snake(rpc.name)}(\n        self,\n{parameters}    ) -> "
    text += f"Stream[{answer}]:\n" if rpc.stream else f"{answer}:\n"
    return text + _doc(contract, rpc) + f"        return {'await ' if awaited else ''}{call}\n"


def _class(contract: Contract, service: Service, asynchronous: bool) -> str:
    text = f"class {service.name}(Service):\n" + docstring(service.comment, 4) + "\n"
    return text + "\n".join(_method(contract, rpc, asynchronous) for rpc in service.rpcs)


def _listed(names: list[str]) -> str:
    return "\n\n__all__ = [\n" + "".join(f'    "{name}",\n' for name in names) + "]\n"


def services_module(contract: Contract, asynchronous: bool) -> str:
    """The module of all services, and `Services`, which has them bound."""
    title = f"The services of the contract{', for asyncio' if asynchronous else ''}"
    base = _SERVICES.format(module="aio._binding" if asynchronous else "_binding")
    text = HEAD + _IMPORTS.format(title=title, base=base) + "\n"
    text += "\n\n".join(_class(contract, service, asynchronous) for service in contract.services)
    text += "\n\nclass Services:\n" + docstring("The driver services, bound to where their calls belong.", 4)
    text += "\n    def __init__(self, binding: Binding) -> None:\n        self._binding = binding\n"
    for service in contract.services:
        if service.name == "Transaction":
            continue
        first = service.comment.partition("\n")[0]
        text += f"\n    @cached_property\n    def {snake(service.name)}(self) -> {service.name}:\n"
        text += docstring(first, 8) + f"        return {service.name}(self._binding)\n"
    return text + _listed([service.name for service in contract.services] + ["Services"])


def operations_module(contract: Contract) -> str:
    """The module of what a list of operations is made of: the services again, whose methods run nothing."""
    kinds = {one.type_name.rpartition(".")[2] for one, _ in contract.messages["Operation"].fields}
    text = HEAD + _IMPORTS.format(title="Operations, by the services that run them", base=_OPERATIONS)
    names = []
    for service in contract.services:
        rpcs = [rpc for rpc in service.rpcs if rpc.request.name in kinds and not rpc.stream]
        if not rpcs:
            continue
        text += f"\nclass {service.name}:\n" + docstring(f"Operations of `{service.name}Service`.", 4)
        for rpc in rpcs:
            parameters, given = _declared(contract, rpc)
            text += f"\n    def {snake(rpc.name)}(\n        self,\n{parameters}    ) -> Operation[types.{rpc.response.name}]:\n"
            text += _doc(contract, rpc) + f'        return operation("{rpc.path}", types.{rpc.response.name}, {given})\n'
        names.append(snake(service.name))
        text += f"\n\n{remark(service.comment.partition(chr(10))[0], 0)}{names[-1]} = {service.name}()\n"
    return text + _listed(names)
