"""The drop-in answers as the original drivers did: all golden calls that change nothing, and all sequences of steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from golden import cases, equal_unordered
from golden_calls import REFUSALS, Session, difference, refusal
from golden_tables import Tables

from policy_sidecar import Client, aio, connect
from policy_sidecar.dropin.policy_engine_driver import PolicyEngineDriver
from policy_sidecar.testing import Sidecar

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

#: Sequences that differ, by the reason.
DIFFERENT_SEQUENCES = {
    # DIFFERENCES.md
    "a severity is a finite number": {"policy_engine_driver/insert_violation/19"},
    "windows of temporal events are one tenant's": {
        f"policy_engine_driver/compact_temporal_events/{number}" for number in ("01", "04", "07", "08", "09", "10")
    },
    "a text that is no JSON fails no list": {"recovery_matcher/get_candidates/21"},
    # README.md
    "a write without a result fails at the flush, and then all is rolled back": {
        "policy_engine_driver/insert_temporal_policy/12"
    },
    "None where a parameter has a default means the default": {
        "recovery_write_driver/insert_suggestion_provenance/08",
        "recovery_matcher/approve_candidate/07",
    },
    # The original has none.
    "the order of scopes": {"scope_resolver/resolve_applicable_policies/14"},
}


@pytest.fixture(scope="module")
def tables(policy_sidecar_process: Sidecar) -> Iterator[tuple[str, Tables]]:
    """A sidecar, and the tables of its database."""
    made = Tables(policy_sidecar_process.database)
    yield policy_sidecar_process.address, made
    made.close()


class Run:
    """Runs cases and says what differs."""

    def __init__(self, address: str, tables: Tables, clients: tuple[Client, aio.Client]) -> None:
        self._tables = tables
        self._clients = clients
        self._engine = PolicyEngineDriver(address)
        self._engine.get_engine()
        self.reader = tables.restore()
        self.driver = ""

    def begin(self, driver: str, changes: bool) -> None:
        """Begins a case; one before it may have changed rows."""
        self.driver = driver
        if changes or not self._tables.fresh:
            self.reader = self._tables.restore()

    def session(self) -> Session:
        return Session(self._clients, self._engine, self.reader)

    async def single(self, step: dict[str, Any]) -> str | None:
        """A call in a transaction of its own, with which its error may come as well."""
        session = self.session()
        driver = step.get("service_driver", self.driver)
        answer = None
        try:
            answer = await session.call(driver, step["method"], step.get("args", {}))
            await session.commit()
        except REFUSALS as error:
            return refusal(error, step.get("error"))
        finally:
            self.reader.results.append(answer)
            await session.close()
        return self.judged(step, answer)

    def judged(self, step: dict[str, Any], answer: Any) -> str | None:
        """What differs in an answer."""
        if "error" in step:
            return f"answers {answer}, and not {step['error']}"
        return difference(step, answer, self.reader.value(step.get("result")))

    async def together(self, calls: list[dict[str, Any]], outcome: str) -> str | None:
        """Calls in one transaction, which an error ends."""
        session = self.session()
        answers: list[Any] = []
        failed = False
        try:
            for step in calls:
                driver = step.get("service_driver", self.driver)
                try:
                    answer = await session.call(driver, step["method"], step.get("args", {}))
                    why = self.judged(step, answer)
                    answers.append(answer)
                except REFUSALS as error:
                    why = refusal(error, step.get("error"))
                    failed = True
                if why:
                    return f"{step['method']}: {why}"
                if failed:
                    break
            if not failed:
                await session.commit()
        except REFUSALS as error:
            failed = True
            if outcome == "committed":
                return f"commit: {error}"
        finally:
            self.reader.results.append(answers)
            await session.close()
        return None if failed == (outcome == "rolled back") else f"is not {outcome}"

    def work(self, step: dict[str, Any]) -> str | None:
        """A change of the tables by the test itself, or a look at one."""
        table, op = step["table"], step["op"]
        self.reader.results.append(None)
        if op == "set":
            self._tables.set(table, step["values"], step.get("where", {}), self.reader)
        elif op == "insert":
            self._tables.insert(table, step["rows"], self.reader)
        elif op == "clear":
            self._tables.clear(table)
        else:
            theirs = self.reader.value(step["result"])
            columns = step.get("columns") or [name for row in theirs[:1] for name in row]
            ours = self._tables.dump(table, columns, step.get("where", {}), self.reader)
            if not equal_unordered(ours, theirs):
                return f"{table}\n   {str(ours)[:900]}\n   {str(theirs)[:900]}"
        return None

    async def sequence(self, steps: list[dict[str, Any]]) -> str | None:
        """What differs first in a sequence of steps."""
        for at, step in enumerate(steps):
            if "op" in step:
                why = self.work(step)
            elif "transaction" in step:
                why = await self.together(step["transaction"], step["outcome"])
            else:
                why = await self.single(step)
            if why:
                return f"step {at}: {why}"
        return None


async def differing(address: str, tables: Tables, sequences: bool) -> dict[str, str]:
    found = {}
    with connect(address) as client:
        async with aio.connect(address) as caller:
            run = Run(address, tables, (client, caller))
            for case in cases(sequences):
                run.begin(case["service_driver"], changes=sequences)
                why = await (run.sequence(case["sequence"]) if sequences else run.single(case))
                if why:
                    found[case["id"]] = f"{case.get('args', case.get('note'))} {why}"
    return found


def test_calls_that_change_nothing_are_answered_as_by_the_original(tables: tuple[str, Tables]) -> None:
    found = asyncio.run(differing(*tables, sequences=False))
    assert {key: why for key, why in found.items() if key not in DIFFERENT} == {}
    assert set(found) == DIFFERENT


def test_sequences_of_writes_and_reads_leave_what_the_original_left(tables: tuple[str, Tables]) -> None:
    found = asyncio.run(differing(*tables, sequences=True))
    named = set().union(*DIFFERENT_SEQUENCES.values())
    assert {key: why for key, why in found.items() if key not in named} == {}
    assert set(found) == named
