"""`SymbolTable`: the table is held by the sidecar while it is used; symbols are values, read anew with each call."""

from __future__ import annotations

from typing import Any

from ..errors import AlreadyExistsError, PreconditionError
from ..types import PolicyCategory, Symbol, SymbolScope, SymbolType
from ._units import default_client


class Scope:
    """A scope of a table. Its methods act on the table's current scope."""

    def __init__(self, table: SymbolTable, of: SymbolScope) -> None:
        self._table = table
        self.name = of.name
        self.parent = of.parent
        self.category = of.category

    def define(self, symbol: Symbol) -> None:
        """Defines a symbol here, and in no index; ValueError where its name is taken."""
        self._table._define(symbol, scope_only=True)

    def lookup(self, name: str, local_only: bool = False) -> Symbol | None:
        """The symbol of that name, here or further out."""
        return self._table._ask("lookup", name=name, local_only=local_only).symbol  # type: ignore[no-any-return]

    def lookup_by_category(self, category: PolicyCategory) -> list[Symbol]:
        """Symbols of a category, here and further out."""
        return self._table._ask("lookup_by_category", category=category).symbols  # type: ignore[no-any-return]

    def get_all_symbols(self) -> dict[str, Symbol]:
        """All that is visible here."""
        return {one.name: one for one in self._table._ask("get_all_symbols").symbols}


class SymbolTable:
    """Scopes and symbols of a policy program."""

    def __init__(self, client: Any = None) -> None:
        self._service = (client or default_client()).symbol_table
        self._table = self._service.create_table().table

    def _ask(self, method: str, **given: Any) -> Any:
        return getattr(self._service, method)(table=self._table, **given)

    def _define(self, symbol: Symbol, scope_only: bool) -> None:
        try:
            self._ask("define", symbol=symbol, scope_only=scope_only)
        except AlreadyExistsError as error:
            raise ValueError(error.message) from error

    @property
    def current_scope(self) -> Scope:
        """The innermost open scope."""
        return Scope(self, self._ask("get_table").open_scopes[-1])

    def enter_scope(self, name: str, category: PolicyCategory | None = None) -> Scope:
        """Opens a scope in the current one."""
        return Scope(self, self._ask("enter_scope", name=name, category=category).scope)

    def exit_scope(self) -> Scope:
        """Closes the current scope; ValueError for the global one."""
        try:
            return Scope(self, self._ask("exit_scope").scope)
        except PreconditionError as error:
            if error.reason != "GLOBAL_SCOPE":
                raise
            raise ValueError("Cannot exit global scope") from error

    def define(self, symbol: Symbol) -> None:
        """Defines a symbol in the current scope; ValueError where its name is taken."""
        self._define(symbol, scope_only=False)

    def lookup(self, name: str) -> Symbol | None:
        """The visible symbol of that name."""
        return self._ask("lookup", name=name).symbol  # type: ignore[no-any-return]

    def lookup_policy(self, name: str) -> Symbol | None:
        """The policy of that name."""
        return self._ask("lookup_policy", name=name).symbol  # type: ignore[no-any-return]

    def lookup_rule(self, name: str, policy: str | None = None) -> Symbol | None:
        """The rule of that name, visible or of a policy's open scope."""
        return self._ask("lookup_rule", name=name, policy=policy).symbol  # type: ignore[no-any-return]

    def get_symbols_by_category(self, category: PolicyCategory, symbol_type: SymbolType | None = None) -> list[Symbol]:
        """Symbols of a category, the highest priority first."""
        return self._ask("get_symbols_by_category", category=category, symbol_type=symbol_type).symbols  # type: ignore[no-any-return]

    def get_policies(self) -> list[Symbol]:
        """All policies."""
        return self._ask("get_policies").symbols  # type: ignore[no-any-return]

    def get_rules(self) -> list[Symbol]:
        """All rules that have a category."""
        return self._ask("get_rules").symbols  # type: ignore[no-any-return]

    def add_reference(self, name: str, referenced_from: str) -> None:
        """Notes who refers to a symbol."""
        self._ask("add_reference", name=name, referenced_from=referenced_from)

    def get_unreferenced_symbols(self) -> list[Symbol]:
        """Symbols of open scopes that nothing refers to."""
        return self._ask("get_unreferenced_symbols").symbols  # type: ignore[no-any-return]

    def __str__(self) -> str:
        text: str = self._ask("get_table").text
        return text

    def close(self) -> None:
        """Drops the table; one that is left alone is dropped by its lease."""
        self._ask("drop_table")


__all__ = ["PolicyCategory", "Scope", "Symbol", "SymbolTable", "SymbolType"]
