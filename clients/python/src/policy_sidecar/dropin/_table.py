"""The one mechanism of the drop-in: a driver is a table of its methods."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

from .. import operations
from ._sessions import async_unit_of, unit_of
from ._shapes import Shape, nothing
from ._units import default_aio_client, default_client
from .errors import translating

#: The limit of a list without one: the greatest that can be said.
_ALL = 2**31 - 1

#: How an argument of that name becomes one of the RPC.
Given = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class Op:
    """A method of an original driver."""

    #: `service.method` of the client.
    rpc: str
    #: The parameters as the original declares them, without self.
    parameters: str
    answer: Shape
    #: Conversions by parameter; a name that is not one of the RPC's is renamed by `name_of`.
    given: Given | None = None
    rename: Mapping[str, str] | None = None
    #: A parameter whose map has the arguments, and parameters that the RPC does without.
    spread: str | None = None
    drop: tuple[str, ...] = ()
    writes: bool = False

    @property
    def waits(self) -> bool:
        """Whether it is a write that nobody waits for."""
        return self.writes and self.answer is nothing


def signature(parameters: str) -> Signature:
    """A signature of its text."""
    function = ast.parse(f"def f(self, {parameters}): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    names = function.args.args
    defaults = [Parameter.empty] * (len(names) - len(function.args.defaults)) + [
        ast.literal_eval(one) for one in function.args.defaults
    ]
    made = [Parameter(one.arg, Parameter.POSITIONAL_OR_KEYWORD, default=default) for one, default in zip(names, defaults, strict=True)]
    for one, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        made.append(
            Parameter(
                one.arg,
                Parameter.KEYWORD_ONLY,
                default=Parameter.empty if default is None else ast.literal_eval(default),
            )
        )
    return Signature(made)


def arguments(op: Op, bound: Mapping[str, Any]) -> dict[str, Any]:
    """What the RPC is given for what the method was."""
    given: dict[str, Any] = {}
    for name, argument in bound.items():
        if name in op.drop:
            continue
        if name == "limit" and argument is None:
            argument = _ALL
        if op.given and name in op.given:
            argument = op.given[name](argument)
        if name == op.spread:
            given.update({key: _zoned(each) for key, each in argument.items()})
        else:
            given[(op.rename or {}).get(name, name)] = _zoned(argument)
    return given


def _zoned(argument: Any) -> Any:
    """An instant without a zone is one in UTC."""
    naive = isinstance(argument, datetime) and argument.tzinfo is None
    return argument.replace(tzinfo=timezone.utc) if naive else argument


def rpc_of(services: Any, op: Op) -> Any:
    """The client's method."""
    service, _, method = op.rpc.partition(".")
    return getattr(getattr(services, service), method)


def operation_of(op: Op, given: Mapping[str, Any]) -> operations.Operation[Any]:
    """The same as an operation of a list."""
    made: operations.Operation[Any] = rpc_of(operations, op)(**arguments(op, given))
    return made


class Driver:
    """A driver whose methods are those of its table; made of a session, or of none for reads on their own."""

    table: Mapping[str, Op]

    def __init_subclass__(cls, table: Mapping[str, Op] | None = None, **others: Any) -> None:
        super().__init_subclass__(**others)
        if table is not None:
            cls.table = table
            for name, op in table.items():
                setattr(cls, name, cls.method(name, op))

    @classmethod
    def method(cls, name: str, op: Op) -> Any:
        """The method of a line of the table."""
        raise NotImplementedError

    def __init__(self, session: Any = None) -> None:
        self._session = session

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def dressed(function: Any, name: str, op: Op, declared: Signature) -> Any:
    """A function with the name and the signature that the original's has."""
    function.__name__ = name
    function.__qualname__ = name
    function.__doc__ = f"`{op.rpc}` with the arguments and the result of the original."
    function.__signature__ = declared
    return function


class SyncDriver(Driver):
    """A driver for threads."""

    @classmethod
    def method(cls, name: str, op: Op) -> Any:
        declared = signature(op.parameters)

        def call(self: SyncDriver, *args: Any, **kwargs: Any) -> Any:
            bound = declared.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            del given["self"]
            return self.perform(op, given)

        return dressed(call, name, op, declared)

    def perform(self, op: Op, given: dict[str, Any]) -> Any:
        """Calls in the session's transaction."""
        return perform(op, given, self._session)


def perform(op: Op, given: dict[str, Any], session: Any) -> Any:
    """Calls in a session's transaction; without a session, on its own, where a write is refused.

    A write without a result waits on its session; what waits there is sent before any other call.
    """
    if session is None and op.writes:
        raise RuntimeError("a write needs a transaction that its caller owns: give the driver a session")
    with translating():
        if session is None:
            return op.answer(rpc_of(default_client(), op)(**arguments(op, given)))
        unit = unit_of(session)
        if op.waits:
            return unit.add(operation_of(op, given))
        with unit.services(op.writes) as services:
            return op.answer(rpc_of(services, op)(**arguments(op, given)))


class AsyncDriver(Driver):
    """A driver for asyncio."""

    @classmethod
    def method(cls, name: str, op: Op) -> Any:
        declared = signature(op.parameters)

        async def call(self: AsyncDriver, *args: Any, **kwargs: Any) -> Any:
            bound = declared.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            del given["self"]
            return await self.perform(op, given)

        return dressed(call, name, op, declared)

    async def perform(self, op: Op, given: dict[str, Any]) -> Any:
        """Calls in the session's transaction."""
        return await perform_async(op, given, self._session)


async def perform_async(op: Op, given: dict[str, Any], session: Any) -> Any:
    """As `perform`, for drivers whose writes all have results."""
    if session is None and op.writes:
        raise RuntimeError("a write needs a transaction that its caller owns: give the driver a session")
    with translating():
        if session is None:
            return op.answer(await rpc_of(default_aio_client(), op)(**arguments(op, given)))
        async with async_unit_of(session).services(op.writes) as services:
            return op.answer(await rpc_of(services, op)(**arguments(op, given)))
