"""Golden calls by way of the drop-in."""

from __future__ import annotations

import importlib
import inspect
from types import SimpleNamespace
from typing import Any

import sqlalchemy
from golden import Reader, comparable, equal, equal_unordered, read

from policy_sidecar import Client, SidecarError, aio
from policy_sidecar.dropin import AsyncUnit, Unit
from policy_sidecar.dropin.policy_engine_driver import PolicyEngineDriver

CLASSES = {one["driver"]: one["class"] for one in reversed(read("inventory.json"))}
#: What a call may be refused with.
REFUSALS = (SidecarError, ValueError, TypeError, OverflowError, sqlalchemy.exc.SQLAlchemyError)


def objects(name: str, value: Any) -> Any:
    """Maps that stand for objects of the original."""
    if name == "context":
        absent = dict.fromkeys(("agent_id", "api_key_id", "human_actor_id", "run_id"))
        return SimpleNamespace(**{**absent, **value})
    if name in ("scope", "rule", "integrity") and isinstance(value, dict):
        return SimpleNamespace(**value)
    if name == "arb_input" and value is not None:
        lists = dict.fromkeys(("policy_ids", "token_limits", "cost_limits", "burn_rate_limits", "breach_actions"), ())
        parts = {
            key: part if key == "policy_ids" else [SimpleNamespace(**{"precedence": 100, **one}) for one in part]
            for key, part in value.items()
        }
        return SimpleNamespace(**{**lists, **parts})
    return value


class Session:
    """A session that drivers of both kinds are made of, for one unit of work."""

    def __init__(self, clients: tuple[Client, aio.Client], engine: PolicyEngineDriver, reader: Reader) -> None:
        self._units = Unit(clients[0]), AsyncUnit(clients[1])
        self._engine = engine
        self._reader = reader
        self._rules: Any = None
        #: The rule that was fetched or made last.
        self._rule: Any = None

    async def call(self, driver: str, method: str, args: dict[str, Any]) -> Any:
        given = {name: objects(name, self._reader.value(one)) for name, one in args.items()}
        if driver == "policy_rules_driver" and method in ("set_fields", "retire"):
            return self._rule.update(given["fields"]) if method == "set_fields" else self._rule.retire(**given)
        kind = getattr(importlib.import_module(f"policy_sidecar.dropin.{driver}"), CLASSES[driver])
        if driver == "policy_engine_driver":
            return getattr(self._engine, method)(self._units[0], **given)
        if method == "update_recovery_candidate":
            fields = given.pop("fields")
            given.update(updates=[f"{name} = :{name}" for name in fields], params=fields)
        function = getattr(kind, method)
        asynchronous = inspect.iscoroutinefunction(function) and method != "suggest_hybrid"
        found = function(kind(self._units[asynchronous or driver == "policy_rules_driver"]), **given)
        if inspect.isawaitable(found):
            found = await found
        if driver == "policy_rules_driver":
            self._rule = found if method in ("fetch_rule_by_id", "create_rule") else self._rule
            return None if method.startswith("create_") else found
        return found.to_snapshot() if method == "resolve_applicable_policies" else found

    async def commit(self) -> None:
        self._units[0].commit()
        await self._units[1].commit()

    async def close(self) -> None:
        self._units[0].close()
        await self._units[1].close()


def refusal(error: Exception, expected: dict[str, Any] | None) -> str | None:
    """Why an error is not the one that is expected."""
    if expected is None:
        return f"{type(error).__name__}: {error}"
    state = expected.get("sqlstate", "")
    kinds: tuple[type[Exception], ...] = REFUSALS
    if state.startswith("23"):
        kinds = (sqlalchemy.exc.IntegrityError,)
    elif state.startswith("22"):
        kinds = (sqlalchemy.exc.DataError, ValueError, TypeError)
    return None if isinstance(error, kinds) else f"{type(error).__name__} in place of {expected}: {error}"


def difference(case: dict[str, Any], ours: Any, theirs: Any) -> str | None:
    """What an answer has other than the original's."""
    ours = comparable(ours._asdict() if isinstance(theirs, dict) and hasattr(ours, "_asdict") else ours)
    same = equal_unordered if case.get("unordered") and isinstance(theirs, list) else equal
    return None if same(ours, theirs) else f"\n   {str(ours)[:600]}\n   {str(theirs)[:600]}"
