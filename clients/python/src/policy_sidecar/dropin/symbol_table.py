"""`SymbolTable`: the table is held by the sidecar while it is used; symbols are values, read anew with each call."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any

from .. import types
from ..client import Client
from ..errors import AlreadyExistsError, PreconditionError, SidecarError
from ..types import PolicyCategory, SymbolScope, SymbolType
from ..values import JSON_NULL
from ._units import default_client

Garbage = SimpleQueue[str]

#: Tables that nobody can reach any more, which are dropped when the next one is made: a finalizer runs in whatever thread, at
#: whatever moment, and must not call.
_garbage: weakref.WeakKeyDictionary[Client, Garbage] = weakref.WeakKeyDictionary()


#: Forks that this process has come through: a table that was made before one may be used on its other side.
_forks = 0


def _fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fork)


def _throw_away(garbage: Garbage, table: str, forks: int) -> None:
    if forks == _forks:
        garbage.put(table)


@dataclass
class Symbol:
    """A symbol, as it was when it was asked for."""

    name: str
    symbol_type: SymbolType
    category: PolicyCategory | None = None
    priority: int = 50
    value_type: str | None = None
    value: Any = None
    defined_at: str | None = None
    referenced_by: list[str] = field(default_factory=list)
    requires_approval: bool = False
    audit_level: int = 0

    def __str__(self) -> str:
        category = f"[{self.category.name}]" if self.category else ""
        return f"Symbol({self.name}, {self.symbol_type.name}{category})"


_FIELDS = [one.name for one in fields(Symbol)]


def _sent(symbol: Any) -> types.Symbol:
    """A symbol of this module, of the original or of the client, as it is sent."""
    given = {name: getattr(symbol, name) for name in _FIELDS}
    given["symbol_type"] = SymbolType[given["symbol_type"].name]
    if given["category"] is not None:
        given["category"] = PolicyCategory[given["category"].name]
    return types.Symbol(**given)


def _made(found: types.Symbol) -> Symbol:
    made = Symbol(**{name: getattr(found, name) for name in _FIELDS})
    made.value = None if made.value is JSON_NULL else made.value
    return made


def _found(found: types.Symbol | None) -> Symbol | None:
    return None if found is None else _made(found)


def _listed(found: list[types.Symbol]) -> list[Symbol]:
    return [_made(one) for one in found]


@contextmanager
def _explained() -> Iterator[None]:
    """Says of a table that is gone what to do."""
    try:
        yield
    except PreconditionError as error:
        if error.reason != "TABLE_UNKNOWN":
            raise
        message = (
            "the sidecar has dropped this symbol table: it is closed, was not used for longer than its idle lease, or the"
            " sidecar was started anew; make another one and define its symbols again"
        )
        raise PreconditionError(message, code=error.code, reason=error.reason) from error


class Scope:
    """A scope of a table. Its methods raise RuntimeError where it is not the table's current one."""

    def __init__(self, table: SymbolTable, of: SymbolScope) -> None:
        self._of = of
        self._in = table
        self.name = of.name
        self.parent = of.parent
        self.category = of.category

    def define(self, symbol: Symbol) -> None:
        """Defines a symbol here, and in no index; ValueError where its name is taken."""
        self._table._define(symbol, scope_only=True)

    def lookup(self, name: str, local_only: bool = False) -> Symbol | None:
        """The symbol of that name, here or further out."""
        table = self._table
        with _explained():
            return _found(table._service.lookup(table=table._table, name=name, local_only=local_only).symbol)

    def lookup_by_category(self, category: PolicyCategory) -> list[Symbol]:
        """Symbols of a category, here and further out."""
        table = self._table
        with _explained():
            return _listed(table._service.lookup_by_category(table=table._table, category=category).symbols)

    def get_all_symbols(self) -> dict[str, Symbol]:
        """All that is visible here."""
        table = self._table
        with _explained():
            return {one.name: _made(one) for one in table._service.get_all_symbols(table=table._table).symbols}

    @property
    def _table(self) -> SymbolTable:
        """The table, whose current scope this is."""
        current = self._in._scopes()[-1]
        if current is not self._of:
            raise RuntimeError(f"scope '{self.name}' is not the current one, which is '{current.name}'")
        return self._in


class SymbolTable:
    """Scopes and symbols of a policy program.

    The sidecar drops it where no call comes for `idle_lease`, 1 hour at most and 10 minutes unless given.
    """

    def __init__(self, client: Client | None = None, idle_lease: timedelta | None = None) -> None:
        client = client or default_client()
        self._service = client.symbol_table
        garbage = _garbage.setdefault(client, SimpleQueue())
        self._drop_all(garbage)
        self._table = self._service.create_table(idle_lease=idle_lease).table
        self._thrown_away = weakref.finalize(self, _throw_away, garbage, self._table, _forks)
        self._thrown_away.atexit = False
        #: Open scopes, the current one last; and whether one may have been opened or closed of which nobody was told.
        self._open = [SymbolScope(name="global")]
        self._unsure = False

    def _drop_all(self, garbage: Garbage) -> None:
        """Drops what can be dropped; the rest is by its lease."""
        with suppress(Empty, SidecarError):
            while True:
                table = garbage.get_nowait()
                with suppress(PreconditionError):  # It is gone already.
                    self._service.drop_table(table=table)

    def _define(self, symbol: Symbol, scope_only: bool) -> None:
        try:
            with _explained():
                self._service.define(table=self._table, symbol=_sent(symbol), scope_only=scope_only)
        except AlreadyExistsError as error:
            raise ValueError(error.message) from error

    def _scopes(self) -> list[SymbolScope]:
        if self._unsure:
            with _explained():
                there = self._service.get_table(table=self._table).open_scopes
            known = self._open + there[len(self._open) :]
            self._open = [ours if ours == theirs else theirs for ours, theirs in zip(known, there, strict=False)]
            self._unsure = False
        return self._open

    @contextmanager
    def _moving(self) -> Iterator[list[SymbolScope]]:
        """Opens or closes a scope."""
        scopes = self._scopes()
        try:
            with _explained():
                yield scopes
        except BaseException:  # Who is interrupted does not know, either.
            self._unsure = True
            raise

    @property
    def current_scope(self) -> Scope:
        """The innermost open scope."""
        return Scope(self, self._scopes()[-1])

    def enter_scope(self, name: str, category: PolicyCategory | None = None) -> Scope:
        """Opens a scope in the current one."""
        with self._moving() as scopes:
            made = self._service.enter_scope(table=self._table, name=name, category=category).scope
            assert made is not None
            scopes.append(made)
            return Scope(self, made)

    def exit_scope(self) -> Scope:
        """Closes the current scope; ValueError for the global one."""
        try:
            with self._moving() as scopes:
                self._service.exit_scope(table=self._table)
                return Scope(self, scopes.pop())
        except PreconditionError as error:
            if error.reason != "GLOBAL_SCOPE":
                raise
            raise ValueError("Cannot exit global scope") from error

    def define(self, symbol: Symbol) -> None:
        """Defines a symbol in the current scope; ValueError where its name is taken."""
        self._define(symbol, scope_only=False)

    def lookup(self, name: str) -> Symbol | None:
        """The visible symbol of that name."""
        with _explained():
            return _found(self._service.lookup(table=self._table, name=name).symbol)

    def lookup_policy(self, name: str) -> Symbol | None:
        """The policy of that name."""
        with _explained():
            return _found(self._service.lookup_policy(table=self._table, name=name).symbol)

    def lookup_rule(self, name: str, policy: str | None = None) -> Symbol | None:
        """The rule of that name, visible or of a policy's open scope."""
        with _explained():
            return _found(self._service.lookup_rule(table=self._table, name=name, policy=policy).symbol)

    def get_symbols_by_category(self, category: PolicyCategory, symbol_type: SymbolType | None = None) -> list[Symbol]:
        """Symbols of a category, the highest priority first."""
        ask = self._service.get_symbols_by_category
        with _explained():
            return _listed(ask(table=self._table, category=category, symbol_type=symbol_type).symbols)

    def get_policies(self) -> list[Symbol]:
        """All policies."""
        with _explained():
            return _listed(self._service.get_policies(table=self._table).symbols)

    def get_rules(self) -> list[Symbol]:
        """All rules that have a category."""
        with _explained():
            return _listed(self._service.get_rules(table=self._table).symbols)

    def add_reference(self, name: str, referenced_from: str) -> None:
        """Notes who refers to a symbol."""
        with _explained():
            self._service.add_reference(table=self._table, name=name, referenced_from=referenced_from)

    def get_unreferenced_symbols(self) -> list[Symbol]:
        """Symbols of open scopes that nothing refers to."""
        with _explained():
            return _listed(self._service.get_unreferenced_symbols(table=self._table).symbols)

    def __str__(self) -> str:
        with _explained():
            return self._service.get_table(table=self._table).text

    def close(self) -> None:
        """Drops the table."""
        with _explained():
            self._service.drop_table(table=self._table)
        self._thrown_away.detach()


__all__ = ["PolicyCategory", "Scope", "Symbol", "SymbolTable", "SymbolType"]
