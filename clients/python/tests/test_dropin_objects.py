"""What the original's computing drivers hand out are objects of its kinds: conflicts, scopes, symbol tables."""

from __future__ import annotations

import enum
import gc
import pickle
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
from conftest import new_id, wait_for
from relay import Relay

from policy_sidecar import Client, connect, errors, types
from policy_sidecar.dropin import Unit
from policy_sidecar.dropin.arbitrator import ArbitrationInput, PolicyAction, PolicyArbitrator, PolicyLimit
from policy_sidecar.dropin.optimizer_conflict_resolver import ConflictResolver, ConflictType, PolicyConflict
from policy_sidecar.dropin.policy_engine_driver import PolicyEngineDriver
from policy_sidecar.dropin.scope_resolver import PolicyScope, RunContext, ScopeResolver
from policy_sidecar.dropin.symbol_table import PolicyCategory, Symbol, SymbolTable, SymbolType


def test_a_module_stays_its_callers_and_gets_the_priorities(address: str) -> None:
    def function(category: types.PolicyCategory, priority: int) -> SimpleNamespace:
        governance = SimpleNamespace(
            category=category, priority=priority, source_policy=None, source_rule=None, requires_approval=False, audit_level=0
        )
        void = SimpleNamespace(name="VOID")
        return SimpleNamespace(params=[], return_type=void, blocks={}, entry_block="entry", governance=governance)

    safety = types.PolicyCategory.SAFETY
    functions = {"a": function(safety, 50), "b": function(safety, 50)}
    module = SimpleNamespace(name="m", functions=functions, imports=[], governance=None)
    with connect(address) as client, Unit(client) as session:
        resolver = ConflictResolver(session)
        back, conflicts = resolver.resolve(module)
    assert back is module and conflicts is resolver.conflicts
    assert [(one.conflict_type, one.policies, one.resolved) for one in conflicts] == [(ConflictType.PRIORITY, ["a", "b"], True)]
    assert type(conflicts[0]) is PolicyConflict and str(conflicts[0]) == "Conflict(PRIORITY, ['a', 'b'], RESOLVED)"
    assert [one.governance.priority for one in functions.values()] == [50, 51]


def test_a_symbol_table_is_used_as_before(client: Client) -> None:
    table = SymbolTable(client)
    table.define(types.Symbol(name="p", symbol_type=types.SymbolType.POLICY, category=types.PolicyCategory.SAFETY))
    with pytest.raises(ValueError, match="already defined"):
        table.define(types.Symbol(name="p", symbol_type=types.SymbolType.RULE))
    scope = table.enter_scope("p")
    assert (scope.name, scope.category) == ("p", None)
    scope.define(types.Symbol(name="r", symbol_type=types.SymbolType.RULE))
    found = table.lookup_rule("r", "p")
    assert found is not None and found.name == "r" and "r" in scope.get_all_symbols()
    table.add_reference("p", "somewhere")
    assert [one.name for one in table.get_unreferenced_symbols()] == ["r"]
    table.exit_scope()
    with pytest.raises(ValueError, match="Cannot exit global scope"):
        table.exit_scope()
    table.close()


def test_a_symbol_is_made_as_before(client: Client) -> None:
    table = SymbolTable(client)
    limit = Symbol("limit", SymbolType.CONSTANT, PolicyCategory.SAFETY, value=None, referenced_by=["a"])
    limit.value = {"most": 1.0}
    table.define(limit)
    assert str(limit) == "Symbol(limit, CONSTANT[SAFETY])" and table.lookup("limit") == limit
    original = enum.Enum("SymbolType", "POLICY RULE")
    table.define(Symbol("p", original["POLICY"]))  # type: ignore[arg-type]
    assert table.get_policies() == [Symbol("p", SymbolType.POLICY)] and table.lookup("nothing") is None
    table.close()


def test_a_type_of_conflict_is_that_of_the_original() -> None:
    original = enum.Enum("ConflictType", "ACTION PRIORITY CATEGORY CIRCULAR")
    assert [(one.name, one.value) for one in ConflictType] == [(one.name, one.value) for one in original]
    assert ConflictType.ACTION == original["ACTION"] and original["ACTION"] == ConflictType.ACTION
    assert ConflictType.ACTION != original["PRIORITY"] and {ConflictType.ACTION: 1}[original["ACTION"]] == 1
    assert ConflictType.ACTION != enum.Enum("Other", "ACTION")["ACTION"] and ConflictType.ACTION != 1


def test_a_scope_is_an_object_with_its_lists(client: Client) -> None:
    policy = new_id()
    client.single_use.scope_resolver.create_scope(
        policy_id=policy, tenant_id="t", scope_type=types.ScopeType.AGENT, agent_ids=["a", ""], created_by="ann"
    )
    with Unit(client) as session:
        resolver = ScopeResolver(session)
        scope = resolver.get_scope_for_policy(policy, "t")
        assert isinstance(scope, PolicyScope) and (scope.scope_type, scope.created_by) == ("agent", "ann")
        assert (scope.agent_ids, scope.api_key_ids, scope.human_actor_ids) == (["a", ""], [], [])
        assert "agent_ids" not in scope and scope["agent_ids_json"] == '["a", ""]'
        assert scope.matches("a") and scope.matches(agent_id="") and not scope.matches("b", "a") and not scope.matches()
        assert scope.to_snapshot() == {
            "scope_id": scope.scope_id,
            "scope_type": "agent",
            "agent_ids": ["a", ""],
            "api_key_ids": [],
            "human_actor_ids": [],
        }
        for one, key in ((scope, "a"), (PolicyScope.create_agent_scope("p", "t", ["b"]), "b")):
            for agent in "ab":
                assert resolver.matches_scope(one, RunContext(tenant_id="t", agent_id=agent)) is (agent == key)
        assert resolver.get_scope_for_policy(policy, "u") is None


def test_what_resolvers_are_asked_with_is_made_as_before(client: Client) -> None:
    with Unit(client) as session:
        run = RunContext("t", "agent")
        found = ScopeResolver(session).resolve_applicable_policies(run)
        assert found.context == run == RunContext(tenant_id="t", agent_id="agent", run_id=None)
        asked = ArbitrationInput(["p"], [PolicyLimit("p", "token", 5.0)], breach_actions=[PolicyAction("p", "pause")])
        asked.cost_limits = [PolicyLimit("p", "cost", 7.5, precedence=1)]
        settled = PolicyArbitrator(session).arbitrate(["p"], "t", asked)
    assert (settled.effective_token_limit, settled.effective_cost_limit_cents) == (5, 7)
    assert settled.effective_breach_action == "pause"
    with pytest.raises(TypeError):
        ArbitrationInput()  # type: ignore[call-arg]


def test_a_row_is_copied_and_read_as_one_of_sqlalchemy(address: str) -> None:
    row = PolicyEngineDriver(address).fetch_temporal_storage_stats_auto()
    assert dict(row._mapping) == dict(zip(row._fields, row, strict=True)) and row._mapping["events_size"] == row[5]
    again = pickle.loads(pickle.dumps(row))
    assert again == row and again.events_size == row.events_size


def test_a_scope_is_made_as_before() -> None:
    everyone = PolicyScope.create_all_runs_scope("p", "t", created_by="ann")
    assert everyone.matches() and (everyone.scope_type, everyone.created_by) == ("all_runs", "ann")
    assert everyone.scope_id.startswith("SCOPE-") and len(everyone.scope_id) == 18
    people = PolicyScope.create_human_actor_scope("p", "t", ["\u00e9"])
    assert people.human_actor_ids_json == '["\\u00e9"]' and people.matches(human_actor_id="\u00e9")
    people.human_actor_ids = []
    assert people.human_actor_ids_json is None and people.human_actor_ids == []
    keys = PolicyScope.create_api_key_scope("p", "t", ["k"])
    assert keys.matches(api_key_id="k") and not keys.matches("k", None, "k")
    keys.api_key_ids_json = '"xx k yy"'
    assert keys.matches(api_key_id="k")
    keys.api_key_ids_json = "7"
    with pytest.raises(TypeError):
        keys.matches(api_key_id="k")
    keys.scope_type = "other"
    with pytest.raises(ValueError, match="'other' is not a valid ScopeType"):
        keys.matches()


def test_a_scope_that_is_not_the_current_one_is_not_taken_for_it(client: Client) -> None:
    table = SymbolTable(client)
    outermost, rule = table.current_scope, types.Symbol(name="r", symbol_type=types.SymbolType.RULE)
    scope = table.enter_scope("p")
    inner = table.enter_scope("p")
    for stale in (outermost, scope):
        for use in (
            lambda: stale.define(rule),
            lambda: stale.lookup("r"),
            lambda: stale.lookup_by_category(types.PolicyCategory.SAFETY),
            stale.get_all_symbols,
        ):
            with pytest.raises(RuntimeError, match=f"'{stale.name}' is not the current one"):
                use()
    inner.define(rule)
    assert (table.exit_scope().name, scope.lookup("r")) == ("p", None)
    with pytest.raises(RuntimeError):
        inner.lookup("r")
    scope.define(rule)
    assert table.current_scope.lookup("r", local_only=True) == scope.lookup("r") is not None


def test_a_scope_of_which_the_answer_was_lost_is_known_again(address: str) -> None:
    relay = Relay(address)
    with connect(relay.address) as caller:
        table = SymbolTable(caller)
        scope = table.enter_scope("a")
        for rpc, move, current in (
            ("EnterScope", lambda: table.enter_scope("b"), "b"),
            ("ExitScope", table.exit_scope, "a"),
        ):
            relay.loses.append(rpc)
            with pytest.raises(errors.UnavailableError):
                move()
            assert table.current_scope.name == current
        assert scope.lookup("none") is None
        relay.drops.append("ExitScope")
        with pytest.raises(errors.UnavailableError):
            table.exit_scope()
        assert scope.lookup("none") is None
    relay.close()


def test_a_scope_is_known_again_after_an_interrupt_in_the_midst_of_its_call(address: str) -> None:
    relay = Relay(address)
    with connect(relay.address) as caller:
        table = SymbolTable(caller)
        for rpc, move, current in (
            ("EnterScope", lambda: table.enter_scope("a"), "a"),
            ("ExitScope", table.exit_scope, "global"),
        ):
            relay.interrupts.append(rpc)
            with pytest.raises(KeyboardInterrupt):
                move()
            assert table.current_scope.name == current
    relay.close()


def test_a_table_that_is_closed_is_no_garbage(address: str) -> None:
    relay = Relay(address)
    with connect(relay.address) as caller:
        table = SymbolTable(caller)
        table.close()
        del table
        gc.collect()
        SymbolTable(caller)
        assert relay.calls["DropTable"] == 1
    relay.close()


def is_gone(client: Client, handle: str) -> bool:
    with pytest.raises(errors.PreconditionError) as told:
        client.symbol_table.get_table(table=handle)
    return told.value.reason == "TABLE_UNKNOWN"


def test_garbage_that_is_gone_already_keeps_no_other_from_being_dropped(client: Client) -> None:
    first, second = SymbolTable(client), SymbolTable(client)
    gone, handle = first._table, second._table
    del first
    gc.collect()
    del second
    gc.collect()
    client.symbol_table.drop_table(table=gone)
    SymbolTable(client)
    assert is_gone(client, handle)


def test_tables_that_are_garbage_are_dropped(client: Client) -> None:
    table = SymbolTable(client)
    scope, handle = table.enter_scope("p"), table._table
    del table
    gc.collect()
    SymbolTable(client)
    assert scope.lookup("none") is None, "its scope reaches it"
    del scope
    gc.collect()
    client.symbol_table.get_table(table=handle)
    SymbolTable(client)
    assert is_gone(client, handle)


IN_A_CHILD = """
import gc, os, sys
from policy_sidecar import connect
from policy_sidecar.dropin.symbol_table import SymbolTable

client = connect(sys.argv[1])
table = SymbolTable(client)
child = os.fork()
if child == 0:
    del table
    gc.collect()
    SymbolTable(client)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(table.lookup("len").name)
"""


IN_A_PARENT = """
import gc, os, sys
from policy_sidecar import connect
from policy_sidecar.dropin.symbol_table import SymbolTable

client = connect(sys.argv[1])
table = SymbolTable(client)
dropped, drops = os.pipe()
child = os.fork()
if child == 0:
    os.read(dropped, 1)
    print(table.lookup("len").name, flush=True)
    os._exit(0)
del table
gc.collect()
SymbolTable(client)
os.write(drops, b"d")
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("program", [IN_A_CHILD, IN_A_PARENT], ids=["child", "parent"])
def test_what_is_garbage_on_one_side_of_a_fork_is_the_other_sides_still(address: str, program: str) -> None:
    run = subprocess.run([sys.executable, "-c", program, address], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.returncode) == ("len\n", 0), run.stderr


def test_a_table_that_was_left_alone_says_what_to_do(client: Client) -> None:
    table = SymbolTable(client, idle_lease=timedelta(milliseconds=1))
    told: list[errors.PreconditionError] = []

    def is_gone() -> bool:
        try:
            table.lookup("len")
        except errors.PreconditionError as error:
            told.append(error)
        return bool(told)

    wait_for(is_gone)
    for use in (table.get_rules, lambda: table.enter_scope("p"), lambda: str(table)):
        with pytest.raises(errors.PreconditionError, match="make another one") as refused:
            use()
        assert refused.value.reason == told[0].reason == "TABLE_UNKNOWN"
