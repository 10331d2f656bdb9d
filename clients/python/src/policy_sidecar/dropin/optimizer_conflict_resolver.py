"""`ConflictResolver`: the module stays the caller's; what the resolver decides is written into it."""

from __future__ import annotations

import enum
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from .. import types
from .._gen.enums import ActionType, IrType, PolicyCategory
from ._sessions import unit_of
from ._table import SyncDriver
from ._units import default_client
from .errors import translating

_OPERATIONS = {
    "IRLoadConst": ("load_const", types.IrLoadConst),
    "IRLoadVar": ("load_var", types.IrLoadVar),
    "IRStoreVar": ("store_var", types.IrStoreVar),
    "IRBinaryOp": ("binary_op", types.IrBinaryOp),
    "IRUnaryOp": ("unary_op", types.IrUnaryOp),
    "IRCompare": ("compare", types.IrCompare),
    "IRJump": ("jump", types.IrJump),
    "IRJumpIf": ("jump_if", types.IrJumpIf),
    "IRCall": ("call", types.IrCall),
    "IRReturn": ("return_value", types.IrReturn),
    "IRAction": ("action", types.IrAction),
    "IRCheckPolicy": ("check_policy", types.IrCheckPolicy),
    "IREmitIntent": ("emit_intent", types.IrEmitIntent),
}


class ConflictType(enum.Enum):
    """What policies contradict each other in. Equal to the members of the original's own."""

    ACTION = 1
    PRIORITY = 2
    CATEGORY = 3
    CIRCULAR = 4

    def __eq__(self, other: object) -> bool:
        return isinstance(other, enum.Enum) and (type(other).__name__, other.name) == (type(self).__name__, self.name)

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass
class PolicyConflict:
    """A contradiction between policies, and how it was settled."""

    conflict_type: ConflictType
    policies: list[str]
    description: str
    severity: int = 50
    resolution: str | None = None
    resolved: bool = False
    winner: str | None = None

    def __str__(self) -> str:
        return f"Conflict({self.conflict_type.name}, {self.policies}, {'RESOLVED' if self.resolved else 'UNRESOLVED'})"


def _governance(of: Any) -> types.IrGovernance | None:
    if of is None:
        return None
    return types.IrGovernance(
        category=PolicyCategory[of.category.name],
        priority=of.priority,
        source_policy=of.source_policy,
        source_rule=of.source_rule,
        requires_approval=of.requires_approval,
        audit_level=of.audit_level,
    )


def _instruction(of: Any) -> types.IrInstruction:
    name, kind = _OPERATIONS[type(of).__name__]
    fields = {field: getattr(of, field) for field in kind.__dataclass_fields__}  # type: ignore[attr-defined]
    if name == "action":
        fields["action"] = ActionType[of.action.name]
    return types.IrInstruction(
        id=of.id,
        governance=_governance(of.governance),
        result_type=IrType[of.result_type.name],
        **{name: kind(**fields)},
    )


def _function(name: str, of: Any) -> types.IrFunction:
    return types.IrFunction(
        name=name,
        params=[str(one) for one in of.params],
        return_type=IrType[of.return_type.name],
        blocks=[
            types.IrBlock(
                name=key,
                instructions=[_instruction(one) for one in block.instructions],
                predecessors=list(block.predecessors),
                successors=list(block.successors),
                governance=_governance(block.governance),
            )
            for key, block in of.blocks.items()
        ],
        entry_block=of.entry_block,
        governance=_governance(of.governance),
    )


class ConflictResolver(SyncDriver):
    """Finds and settles what the policies of a module contradict each other in."""

    def __init__(self, session: Any = None) -> None:
        super().__init__(session)
        self.conflicts: list[PolicyConflict] = []
        self.resolution_log: list[str] = []

    def resolve(self, module: Any) -> tuple[Any, list[PolicyConflict]]:
        """The module, with the priorities that were settled, and its conflicts."""
        sent = types.IrModule(
            name=module.name,
            functions=[_function(name, one) for name, one in module.functions.items()],
            imports=list(module.imports),
            governance=_governance(module.governance),
        )
        alone = self._session is None
        with translating(), nullcontext(default_client()) if alone else unit_of(self._session).services(False) as services:
            answer = services.conflict_resolver.resolve(module=sent)
        for after in answer.priorities_after:
            governance = module.functions[after.name].governance
            if governance is not None and after.priority is not None:
                governance.priority = after.priority
        self.conflicts = [
            PolicyConflict(
                ConflictType[one.conflict_type.name],
                one.policies,
                one.description,
                one.severity,
                one.resolution,
                one.resolved,
                one.winner,
            )
            for one in answer.conflicts
        ]
        self.resolution_log = answer.resolution_log
        return module, self.conflicts


__all__ = ["ConflictResolver", "ConflictType", "PolicyConflict"]
