"""`ConflictResolver`: the module stays the caller's; what the resolver decides is written into it."""

from __future__ import annotations

from typing import Any

from .. import types
from .._gen.enums import ActionType, IrType, PolicyCategory
from ._sessions import unit_of
from ._shapes import Row
from ._table import SyncDriver
from ._units import default_client

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
        self.conflicts: list[Row] = []
        self.resolution_log: list[str] = []

    def resolve(self, module: Any) -> tuple[Any, list[Row]]:
        """The module, with the priorities that were settled, and its conflicts."""
        services = default_client() if self._session is None else unit_of(self._session).services(writes=False)
        answer = services.conflict_resolver.resolve(
            module=types.IrModule(
                name=module.name,
                functions=[_function(name, one) for name, one in module.functions.items()],
                imports=list(module.imports),
                governance=_governance(module.governance),
            )
        )
        for after in answer.priorities_after:
            governance = module.functions[after.name].governance
            if governance is not None and after.priority is not None:
                governance.priority = after.priority
        names = ("policies", "description", "severity", "resolution", "resolved", "winner")
        self.conflicts = [
            Row(conflict_type=one.conflict_type, **{name: getattr(one, name) for name in names})
            for one in answer.conflicts
        ]
        self.resolution_log = answer.resolution_log
        return module, self.conflicts
