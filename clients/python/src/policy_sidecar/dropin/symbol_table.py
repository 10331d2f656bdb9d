"""`SymbolTable`: the table is held by the sidecar while it is used; symbols are values, read anew with each call."""

from __future__ import annotations

from ..client import Client
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
        return self._table._service.lookup(table=self._table._table, name=name, local_only=local_only).symbol

    def lookup_by_category(self, category: PolicyCategory) -> list[Symbol]:
        """Symbols of a category, here and further out."""
        return self._table._service.lookup_by_category(table=self._table._table, category=category).symbols

    def get_all_symbols(self) -> dict[str, Symbol]:
        """All that is visible here."""
        return {one.name: one for one in self._table._service.get_all_symbols(table=self._table._table).symbols}


class SymbolTable:
    """Scopes and symbols of a policy program."""

    def __init__(self, client: Client | None = None) -> None:
        self._service = (client or default_client()).symbol_table
        self._table = self._service.create_table().table

    def _define(self, symbol: Symbol, scope_only: bool) -> None:
        try:
            self._service.define(table=self._table, symbol=symbol, scope_only=scope_only)
        except AlreadyExistsError as error:
            raise ValueError(error.message) from error

    @property
    def current_scope(self) -> Scope:
        """The innermost open scope."""
        return Scope(self, self._service.get_table(table=self._table).open_scopes[-1])

    def enter_scope(self, name: str, category: PolicyCategory | None = None) -> Scope:
        """Opens a scope in the current one."""
        return Scope(self, self._service.enter_scope(table=self._table, name=name, category=category).scope)

    def exit_scope(self) -> Scope:
        """Closes the current scope; ValueError for the global one."""
        try:
            return Scope(self, self._service.exit_scope(table=self._table).scope)
        except PreconditionError as error:
            if error.reason != "GLOBAL_SCOPE":
                raise
            raise ValueError("Cannot exit global scope") from error

    def define(self, symbol: Symbol) -> None:
        """Defines a symbol in the current scope; ValueError where its name is taken."""
        self._define(symbol, scope_only=False)

    def lookup(self, name: str) -> Symbol | None:
        """The visible symbol of that name."""
        return self._service.lookup(table=self._table, name=name).symbol

    def lookup_policy(self, name: str) -> Symbol | None:
        """The policy of that name."""
        return self._service.lookup_policy(table=self._table, name=name).symbol

    def lookup_rule(self, name: str, policy: str | None = None) -> Symbol | None:
        """The rule of that name, visible or of a policy's open scope."""
        return self._service.lookup_rule(table=self._table, name=name, policy=policy).symbol

    def get_symbols_by_category(self, category: PolicyCategory, symbol_type: SymbolType | None = None) -> list[Symbol]:
        """Symbols of a category, the highest priority first."""
        return self._service.get_symbols_by_category(table=self._table, category=category, symbol_type=symbol_type).symbols

    def get_policies(self) -> list[Symbol]:
        """All policies."""
        return self._service.get_policies(table=self._table).symbols

    def get_rules(self) -> list[Symbol]:
        """All rules that have a category."""
        return self._service.get_rules(table=self._table).symbols

    def add_reference(self, name: str, referenced_from: str) -> None:
        """Notes who refers to a symbol."""
        self._service.add_reference(table=self._table, name=name, referenced_from=referenced_from)

    def get_unreferenced_symbols(self) -> list[Symbol]:
        """Symbols of open scopes that nothing refers to."""
        return self._service.get_unreferenced_symbols(table=self._table).symbols

    def __str__(self) -> str:
        return self._service.get_table(table=self._table).text

    def close(self) -> None:
        """Drops the table; one that is left alone is dropped by its lease."""
        self._service.drop_table(table=self._table)


__all__ = ["PolicyCategory", "Scope", "Symbol", "SymbolTable", "SymbolType"]
