"""Transactions, and what happens to them."""

from __future__ import annotations

import os
import re
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import Program, Proxy, evaluation, new_id, violation, wait_for

from policy_sidecar import Client, IsolationLevel, Transaction, connect, errors


def exists(client: Client, evaluation_id: str) -> bool:
    return client.policy_engine.fetch_evaluation_by_id(evaluation_id=evaluation_id).evaluation is not None


def test_the_end_of_the_block_commits_and_an_error_rolls_back(client: Client) -> None:
    kept, undone = new_id(), new_id()
    with client.transaction() as tx:
        tx.policy_engine.insert_evaluation(**evaluation(kept))
        assert tx.policy_engine.fetch_evaluation_by_id(evaluation_id=kept).evaluation is not None
        assert not exists(client, kept)
    with pytest.raises(KeyError):
        with client.transaction() as tx:
            tx.policy_engine.insert_evaluation(**evaluation(undone))
            raise KeyError
    assert exists(client, kept) and not exists(client, undone)


def test_a_transaction_is_what_its_options_say(client: Client) -> None:
    options = client.transaction(
        isolation=IsolationLevel.SERIALIZABLE,
        read_only=True,
        deferrable=True,
        lease=timedelta(seconds=90),
        label="as its options say",
    )
    with pytest.raises(errors.PreconditionError) as refused:
        with options as tx:
            (one,) = (one for one in client.transactions.list().transactions if one.label == "as its options say")
            assert (one.isolation_level, one.read_only, one.deferrable) == (IsolationLevel.SERIALIZABLE, True, True)
            assert one.total_lease == timedelta(seconds=90)
            tx.policy_engine.insert_evaluation(**evaluation(new_id()))
    assert refused.value.reason == "READ_ONLY_TRANSACTION"


def test_a_savepoint_undoes_its_block_alone_also_inside_another(client: Client) -> None:
    outer, middle, inner = new_id(), new_id(), new_id()
    with client.transaction() as tx:
        tx.policy_engine.insert_evaluation(**evaluation(outer))
        with tx.savepoint():
            tx.policy_engine.insert_evaluation(**evaluation(middle))
            with pytest.raises(errors.UniqueViolationError):
                with tx.savepoint():
                    tx.policy_engine.insert_evaluation(**evaluation(inner))
                    tx.policy_engine.insert_evaluation(**evaluation(outer))
    assert [exists(client, key) for key in (outer, middle, inner)] == [True, True, False]


def test_a_call_belongs_to_what_it_is_asked_of(client: Client) -> None:
    with pytest.raises(errors.PreconditionError) as refused:
        client.policy_engine.insert_evaluation(**evaluation(new_id()))
    assert refused.value.reason == "TRANSACTION_REQUIRED"
    left = client.transaction()
    with pytest.raises(RuntimeError, match="begins where its block does"):
        left.policy_engine.insert_evaluation(**evaluation(new_id()))
    with left:
        pass
    with pytest.raises(errors.TransactionEndedError) as ended:
        left.policy_engine.insert_evaluation(**evaluation(new_id()))
    assert ended.value.reason == "TRANSACTION_COMMITTED"


def test_run_tries_again_what_collides(client: Client) -> None:
    rule = new_id()
    client.single_use.policy_rules.create_rule(id=rule, tenant_id="t", name="0")
    tries: list[str] = []

    def count_up(tx: Transaction) -> str:
        stored = tx.policy_rules.fetch_rule_by_id(tenant_id="t", rule_id=rule).rule
        assert stored is not None
        tries.append(stored.name)
        if len(tries) == 1:
            with client.transaction(isolation=IsolationLevel.SERIALIZABLE) as other:
                other.policy_rules.update_rule(tenant_id="t", rule_id=rule, name="1")
        after = str(int(stored.name) + 1)
        tx.policy_rules.update_rule(tenant_id="t", rule_id=rule, name=after)
        return after

    assert client.run(count_up, isolation=IsolationLevel.SERIALIZABLE) == "2"
    assert tries == ["0", "1"]


def test_run_ends_with_its_attempts_and_passes_other_errors_on(client: Client) -> None:
    tries = 0

    def collide(tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        raise errors.ConflictError("again", code="ABORTED", retry_after=0.0)

    with pytest.raises(errors.ConflictError):
        client.run(collide, attempts=3)
    assert tries == 3
    with pytest.raises(errors.UniqueViolationError):
        client.run(lambda tx: [tx.policy_engine.insert_violation(**violation(new)) for new in [new_id()] * 2])


def test_a_killed_sidecar_is_told_and_the_client_works_again(client: Client, mortal: tuple[Program, str]) -> None:
    program, address = mortal
    undone, kept = new_id(), new_id()
    with connect(address) as caller:
        with pytest.raises((errors.UnavailableError, errors.TransactionEndedError)):
            with caller.transaction() as tx:
                tx.policy_engine.insert_evaluation(**evaluation(undone))
                program.kill()
                tx.policy_engine.insert_evaluation(**evaluation(new_id()))
        program.start()
        caller.single_use.policy_engine.insert_evaluation(**evaluation(kept))
    assert exists(client, kept) and not exists(client, undone)


def test_run_survives_a_sidecar_that_is_killed_in_it(client: Client, mortal: tuple[Program, str]) -> None:
    program, address = mortal
    tries: list[str] = []

    def work(tx: Transaction) -> None:
        tries.append(new_id())
        tx.policy_engine.insert_evaluation(**evaluation(tries[-1]))
        if len(tries) == 1:
            program.kill()
            program.start()
        tx.policy_engine.insert_violation(**violation(new_id()))

    with connect(address) as caller:
        caller.run(work)
    assert [exists(client, key) for key in tries] == [False, True]


def test_a_commit_whose_answer_is_lost_is_looked_up(client: Client, proxy: Proxy) -> None:
    key = new_id()
    ended: list[BaseException | None] = []

    def commit(tx: Transaction) -> None:
        try:
            tx.__exit__(None, None, None)
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    with connect(proxy.address) as caller:
        tx = caller.transaction().__enter__()
        tx.policy_engine.insert_evaluation(**evaluation(key))
        proxy.swallows_answers = True
        committing = threading.Thread(target=commit, args=(tx,))
        committing.start()
        wait_for(lambda: exists(client, key))
        assert ended == []
        proxy.cut()
        committing.join()
    assert ended == [None]


def test_a_commit_that_never_arrived_is_a_conflict_and_run_tries_it_again(client: Client, proxy: Proxy) -> None:
    tries: list[str] = []

    def cut() -> None:
        wait_for(lambda: proxy.swallowed > 0)
        proxy.cut()

    def work(tx: Transaction) -> None:
        tries.append(new_id())
        tx.policy_engine.insert_evaluation(**evaluation(tries[-1]))
        if len(tries) == 1:
            proxy.swallows_requests = True
            threading.Thread(target=cut).start()

    with connect(proxy.address) as caller:
        caller.run(work)
    assert [exists(client, key) for key in tries] == [False, True]


def test_an_outcome_that_nobody_tells_is_an_error_with_the_id(proxy: Proxy) -> None:
    with connect(proxy.address, timeout=1.0) as caller:
        tx = caller.transaction().__enter__()
        proxy.close()
        with pytest.raises(errors.OutcomeUnknownError) as unknown:
            tx.__exit__(None, None, None)
    assert unknown.value.transaction_id == tx.id and not unknown.value.retriable


def test_a_single_use_write_whose_answer_is_lost_takes_effect_once(client: Client, proxy: Proxy) -> None:
    name = new_id()

    def rows() -> int:
        return len(client.policy_engine.fetch_violations(violation_type=name).violations)

    with connect(proxy.address) as caller:
        caller.policy_engine.fetch_policy_versions(limit=1)
        proxy.swallows_answers = True
        done: list[int] = []

        def write() -> None:
            given = {**violation(new_id()), "violation_type": name[:36]}
            done.append(caller.single_use.policy_engine.insert_violation(**given).rows_affected)

        writing = threading.Thread(target=write)
        writing.start()
        wait_for(lambda: rows() == 1)
        assert done == []
        proxy.cut()
        writing.join()
    assert (done, rows()) == ([1], 1)


def test_a_prepared_transaction_ends_when_its_caller_says_so(client: Client) -> None:
    for commits in (True, False):
        key = new_id()
        with client.transaction() as tx:
            tx.policy_engine.insert_evaluation(**evaluation(key))
            assert tx.prepare().total_seconds() > 0
        assert not exists(client, key)
        assert tx.id in [one.id for one in client.transactions.list_prepared().transactions]
        end = client.transactions.commit_prepared if commits else client.transactions.rollback_prepared
        end(transaction_id=tx.id)
        assert exists(client, key) is commits


def test_what_run_tries_again_is_what_the_table_of_all_clients_says() -> None:
    text = (Path(os.environ["POLICY_SIDECAR_GOLDEN"]).parent.parent / "docs" / "clients.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \| (yes|no) \|", text, re.MULTILINE)
    named = {reason: again == "yes" for reasons, again in rows for reason in re.findall(r"[A-Z_]+", reasons)}
    assert len(named) == 7

    def told(code: str, reason: str | None, retry: bool) -> bool:
        return errors.class_of(code, reason)("m", code=code, reason=reason, retry_after=0.0 if retry else None).retriable

    differing = {
        reason.name
        for reason, (code, retry, _) in errors.MEANINGS.items()
        if told(code, reason.value, retry) != named.get(reason.name, retry or code in ("ABORTED", "UNAVAILABLE"))
    }
    assert differing == set()
    assert [told(code, None, False) for code in ("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")] == [True, True, False]
    assert not errors.OutcomeUnknownError(transaction_id="id").retriable
