"""Generates what the client has to know of fields and RPCs beside their descriptors."""

from .contract import PACKAGE, Contract
from .python_types import is_decimal
from .text import HEAD

_WRITE = 2


def facts_module(contract: Contract) -> str:
    """The module of them."""
    decimals = [
        f"{PACKAGE}.{message.name}.{one.name}"
        for message in contract.messages.values()
        for one, comment in message.fields
        if is_decimal(one, comment)
    ]
    once = [f"/{PACKAGE}.TransactionService/Execute"] + [
        rpc.path
        for service in contract.services
        for rpc in service.rpcs
        if contract.option(rpc.options, "MethodOptions", "access") == _WRITE
    ]
    text = HEAD + '"""What descriptors do not say."""\n'
    text += "\n#: Fields whose texts are decimal numbers.\n" + _set("DECIMALS", decimals)
    return text + "\n#: RPCs that write, of which one that is sent again with its key or number takes effect once.\n" + _set("ONCE", once)


def _set(name: str, members: list[str]) -> str:
    return f"{name} = frozenset(\n    {{\n" + "".join(f'        "{one}",\n' for one in sorted(members)) + "    }\n)\n"
