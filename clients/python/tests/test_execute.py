"""Lists of operations, and calls inside a transaction whose answers are lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import evaluation, new_id, violation
from relay import Relay

from policy_sidecar import Client, IsolationLevel, aio, connect, errors, operations


def evaluating(evaluation_id: str, **others: Any) -> operations.Operation[Any]:
    return operations.policy_engine.insert_evaluation(**{**evaluation(evaluation_id), **others})


def stored(client: Client, evaluation_id: str) -> Any:
    return client.policy_engine.fetch_evaluation_by_id(evaluation_id=evaluation_id).evaluation


def test_a_list_is_a_transaction_of_its_own(client: Client) -> None:
    key, other = new_id(), new_id()
    found = operations.policy_engine.fetch_evaluation_by_id(evaluation_id=key)
    done = client.execute(
        [evaluating(key).expecting(1), found], isolation=IsolationLevel.SERIALIZABLE, attempts=3
    )
    answer = done.of(found).evaluation
    assert answer is not None and (answer.id, done.rows, done.attempts) == (key, [1, 1], 1)
    with pytest.raises(errors.UniqueViolationError) as refused:
        client.single_use.execute([evaluating(other), evaluating(key)])
    assert refused.value.operation == 1 and stored(client, other) is None
    with pytest.raises(errors.InvalidRequestError) as invalid:
        client.options(timeout=10).execute([evaluating(other), evaluating("no")])
    assert [one.field for one in invalid.value.violations] == ["operations[1].insert_evaluation.evaluation_id"]
    with pytest.raises(ValueError, match="was not in the list"):
        done.of(evaluating(key))


def test_inside_a_transaction_it_fails_as_a_whole_and_the_transaction_goes_on(client: Client) -> None:
    before, undone, after = new_id(), new_id(), new_id()
    with client.transaction() as tx:
        tx.execute([evaluating(before)])
        assert stored(client, before) is None
        nothing = operations.policy_engine.update_violation_acknowledged(violation_id=new_id()).expecting(1)
        with pytest.raises(errors.PreconditionError) as refused:
            tx.execute([evaluating(undone), nothing])
        assert (refused.value.reason, refused.value.operation) == ("UNEXPECTED_ROW_COUNT", 1)
        tx.execute([evaluating(after)])
    assert [stored(client, key) is not None for key in (before, undone, after)] == [True, False, True]


def test_a_thousand_operations_with_documents_fit_in_one_call(client: Client) -> None:
    keys = [new_id() for _ in range(1_000)]
    context = {"why": "x" * 2_000}
    with client.transaction() as tx:
        tx.execute([evaluating(key, request_context=context) for key in keys])
        reads = [operations.policy_engine.fetch_evaluation_by_id(evaluation_id=key) for key in keys]
        assert [one.evaluation.id for one in tx.execute(reads).results] == keys
    assert stored(client, keys[-1]).request_context == context


def test_an_answer_that_is_lost_in_a_transaction_is_asked_for_again_and_takes_effect_once(client: Client, address: str) -> None:
    relay = Relay(address)
    keys = [new_id() for _ in range(3)]
    with connect(relay.address) as caller:
        with caller.transaction() as tx:
            relay.loses += ["InsertEvaluation", "Execute", "FetchEvaluationById"]
            assert tx.policy_engine.insert_evaluation(**evaluation(keys[0])).rows_affected == 1
            assert tx.execute([evaluating(key) for key in keys[1:]]).rows == [1, 1]
            assert stored(tx, keys[0]) is not None
        relay.loses += ["Execute"]
        alone = new_id()
        assert caller.execute([evaluating(alone)]).rows == [1]
        with caller.transaction() as tx:
            assert tx.prepare().total_seconds() > 0
        relay.loses += ["CommitPrepared"]
        caller.transactions.commit_prepared(transaction_id=tx.id)
    relay.close()
    assert relay.loses == []
    assert [relay.calls[name] for name in ("InsertEvaluation", "Execute", "CommitPrepared")] == [2, 4, 2]
    assert all(stored(client, key) for key in [*keys, alone])


def test_the_same_for_asyncio(client: Client, address: str) -> None:
    relay = Relay(address)
    keys = [new_id() for _ in range(3)]

    async def work() -> None:
        async with aio.connect(relay.address) as caller:
            async with caller.transaction() as tx:
                relay.loses += ["InsertViolation", "Execute"]
                await tx.policy_engine.insert_violation(**violation(new_id()))
                assert (await tx.execute([evaluating(keys[0])])).rows == [1]
            relay.loses += ["Execute"]
            assert (await caller.execute([evaluating(keys[1])], attempts=2)).rows == [1]
            assert (await caller.single_use.execute([evaluating(keys[2])])).rows == [1]

    asyncio.run(work())
    relay.close()
    assert relay.loses == [] and all(stored(client, key) for key in keys)
