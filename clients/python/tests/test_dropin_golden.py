"""The drop-in answers as the original drivers did: all golden calls that change nothing."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Iterator
from datetime import timezone
from types import SimpleNamespace
from typing import Any

import pytest
from golden import Reader, cases, comparable, database, equal, equal_unordered, fill, read

from policy_sidecar import Client, SidecarError, aio, connect
from policy_sidecar.dropin import AsyncUnit, Unit
from policy_sidecar.dropin.policy_engine_driver import PolicyEngineDriver
from policy_sidecar.testing import ephemeral

#: Where the README says that it is not equal: versions by their text, braces, texts outside closed sets, None for a default.
DIFFERENT = {
    "policy_engine_driver/fetch_policy_version_by_id_or_version/06",
    "policy_proposal_read_driver/fetch_proposal_by_id/14",
    "policy_rules_read_driver/fetch_policy_rules/03",
    "policy_rules_read_driver/fetch_policy_rules/04",
    "policy_rules_read_driver/fetch_policy_rules/08",
    "policy_rules_read_driver/fetch_policy_rules/14",
    "policy_rules_read_driver/count_policy_rules/03",
    "policy_rules_read_driver/count_policy_rules/04",
    "policy_rules_read_driver/count_policy_rules/09",
    "proposals_read_driver/fetch_proposals/07",
}

CLASSES = {one["driver"]: one["class"] for one in reversed(read("inventory.json"))}


@pytest.fixture(scope="module")
def filled() -> Iterator[tuple[str, Reader]]:
    """A sidecar of a database with the golden rows."""
    with ephemeral() as sidecar, database(sidecar.database) as connection:
        cursor = connection.cursor()
        cursor.execute("select now()")
        reader = Reader(cursor.fetchone()[0].astimezone(timezone.utc))
        fill(connection, reader)
        yield sidecar.address, reader


def objects(name: str, value: Any) -> Any:
    """Maps that stand for objects of the original."""
    if name == "context":
        absent = dict.fromkeys(("agent_id", "api_key_id", "human_actor_id", "run_id"))
        return SimpleNamespace(**{**absent, **value})
    if name == "scope" and isinstance(value, dict):
        return SimpleNamespace(**value)
    if name == "arb_input" and value is not None:
        lists = dict.fromkeys(("policy_ids", "token_limits", "cost_limits", "burn_rate_limits", "breach_actions"), ())
        parts = {
            key: part if key == "policy_ids" else [SimpleNamespace(**{"precedence": 100, **one}) for one in part]
            for key, part in value.items()
        }
        return SimpleNamespace(**{**lists, **parts})
    return value


async def answer(clients: tuple[Client, aio.Client], engine: Any, case: dict[str, Any], reader: Reader) -> Any:
    name = case["service_driver"]
    kind = getattr(importlib.import_module(f"policy_sidecar.dropin.{name}"), CLASSES[name])
    given = {key: objects(key, reader.value(one)) for key, one in case["args"].items()}
    if name == "policy_engine_driver":
        with engine.get_engine().connect() as conn:
            return getattr(engine, case["method"])(conn, **given)
    method = getattr(kind, case["method"])
    if inspect.iscoroutinefunction(method):
        async with AsyncUnit(clients[1]) as session:
            return await getattr(kind(session), case["method"])(**given)
    with Unit(clients[0]) as session:
        found = getattr(kind(session), case["method"])(**given)
        return found.to_snapshot() if case["method"] == "resolve_applicable_policies" else found


async def differing(address: str, reader: Reader) -> dict[str, str]:
    found = {}
    engine = PolicyEngineDriver(address)
    with connect(address) as client:
        async with aio.connect(address) as caller:
            for case in cases():
                why = await difference((client, caller), engine, case, reader)
                if why:
                    found[case["id"]] = f"{case['args']} {why}"
    engine.get_engine().dispose()
    return found


async def difference(clients: tuple[Client, aio.Client], engine: Any, case: dict[str, Any], reader: Reader) -> str | None:
    try:
        ours = comparable(await answer(clients, engine, case, reader))
    except (SidecarError, ValueError) as error:
        return None if "error" in case else f"{type(error).__name__}: {error}"
    if "error" in case:
        return f"answers {ours}, and not {case['error']}"
    theirs = reader.value(case["result"])
    same = equal_unordered if case.get("unordered") and isinstance(theirs, list) else equal
    return None if same(ours, theirs) else f"\n   {str(ours)[:600]}\n   {str(theirs)[:600]}"


def test_calls_that_change_nothing_are_answered_as_by_the_original(filled: tuple[str, Reader]) -> None:
    found = asyncio.run(differing(*filled))
    assert {key: why for key, why in found.items() if key not in DIFFERENT} == {}
    assert set(found) == DIFFERENT
