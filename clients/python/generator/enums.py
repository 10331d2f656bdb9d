"""Generates the closed sets, and the reasons that calls are refused with."""

from .contract import Contract, Enum
from .text import HEAD, docstring, remark

#: Sets that the database spells in lower case; the others are spelled as the contract does.
LOWER = {
    "ActionType", "BindAt", "CandidateDecision", "CandidateStatus", "ConflictStrategy", "ExecutionStatus", "FailureMode",
    "IntegrityTable", "ScopeType", "SuggestionEventType",
}  # fmt: skip


def _enum(enum: Enum) -> str:
    text = f"class {enum.name}(enum.Enum):\n" + docstring(enum.comment, 4)
    for value, comment in enum.values:
        short = value.name.removeprefix(enum.prefix)
        spelling = short.lower() if enum.name in LOWER else short
        text += "\n" + remark(comment, 4) + f'    {short} = "{spelling}"\n'
    return text


def enums_module(contract: Contract) -> str:
    """The module of all closed sets; the value of a member is the spelling of the database."""
    enums = [enum for name, enum in sorted(contract.enums.items()) if name not in ("ErrorReason", "MethodAccess")]
    text = HEAD + '"""Closed sets. The value of a member is how the database spells it."""\n\nimport enum\n\n\n'
    text += "\n\n".join(_enum(enum) for enum in enums)
    return text + "\n\n__all__ = [\n" + "".join(f'    "{enum.name}",\n' for enum in enums) + "]\n"


def reasons_module(contract: Contract) -> str:
    """The module of reasons."""
    enum = contract.enums["ErrorReason"]
    text = HEAD + '"""Why a call is refused, for programs."""\n\nimport enum\nfrom typing import NamedTuple\n\n\n'
    text += "class Meaning(NamedTuple):\n" + docstring("What goes with a reason.", 4)
    text += "\n    #: Name of the gRPC code.\n    code: str\n"
    text += "    #: The same call, or for ABORTED the whole transaction, may succeed later.\n    retry: bool\n"
    text += "    #: Keys that the error's metadata may have.\n    metadata: tuple[str, ...]\n\n\n"
    text += "class ErrorReason(enum.Enum):\n" + docstring(enum.comment, 4)
    for value, comment in enum.values[1:]:
        text += "\n" + remark(comment, 4) + f'    {value.name} = "{value.name}"\n'
    text += "\n\nMEANINGS: dict[ErrorReason, Meaning] = {\n"
    for value, _ in enum.values[1:]:
        meaning = contract.option(value.options, "EnumValueOptions", "meaning")
        facts = (meaning.code, meaning.retry, tuple(meaning.metadata))
        text += f"    ErrorReason.{value.name}: Meaning{facts!r},\n"
    return text + "}\n"
