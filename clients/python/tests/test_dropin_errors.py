"""Errors of the drop-in are SQLAlchemy's and the client's at once."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy
from conftest import TOKEN, evidence, new_id, wait_for
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from test_write_behind import DRIVER

from policy_sidecar import Client, aio, connect, errors
from policy_sidecar.dropin import AsyncUnit, Unit, unit_of
from policy_sidecar.dropin.errors import translated
from policy_sidecar.dropin.policy_engine_driver import PolicyEngineDriver
from policy_sidecar.dropin.policy_proposal_write_driver import PolicyProposalWriteDriver
from policy_sidecar.dropin.recovery_write_driver import RecoveryWriteService


@pytest.mark.parametrize("reason", sorted(errors.BY_REASON))
def test_whatever_a_call_is_refused_with_callers_of_sqlalchemy_catch_it(reason: str) -> None:
    meaning = errors.MEANINGS[errors.ErrorReason(reason)]
    ours = errors.class_of(meaning.code, reason)
    error = translated(ours("m", code=meaning.code, reason=reason, retry_after=0.5 if meaning.retry else None))
    assert isinstance(error, sqlalchemy.exc.SQLAlchemyError) and isinstance(error, ours)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) == f"{reason}: m"
    assert (again.reason, again.retriable) == (reason, again.orig.retriable)


@pytest.mark.parametrize(
    ("error", "theirs"),
    [
        (errors.TransactionEndedError("m", code="FAILED_PRECONDITION", reason="TRANSACTION_EXPIRED"), "OperationalError"),
        (errors.LimitError("m", code="RESOURCE_EXHAUSTED", reason="TRANSACTION_LIMIT"), "OperationalError"),
        (errors.OutcomeUnknownError(transaction_id="i"), "OperationalError"),
        (errors.ConflictError("m", code="ABORTED", reason="SERIALIZATION_FAILURE"), "OperationalError"),
        (errors.UnauthenticatedError("m", code="UNAUTHENTICATED", reason="UNAUTHENTICATED"), "OperationalError"),
        (errors.NotAllowedError("m", code="PERMISSION_DENIED", reason="NOT_ALLOWED"), "ProgrammingError"),
        (errors.InternalError("m", code="INTERNAL", reason="INTERNAL"), "InternalError"),
        (errors.UniqueViolationError("m", code="ALREADY_EXISTS", reason="UNIQUE_VIOLATION"), "IntegrityError"),
        (errors.SidecarError("m", code="UNKNOWN"), "OperationalError"),
    ],
)
def test_an_error_has_the_name_that_callers_look_at(error: errors.SidecarError, theirs: str) -> None:
    told = translated(error)
    assert type(told).__name__ == theirs and isinstance(told, getattr(sqlalchemy.exc, theirs))
    assert isinstance(told, type(error)) and translated(told) is told


def test_what_has_to_be_rolled_back_and_what_is_stale_are_no_errors_of_a_database() -> None:
    for ours, reason, theirs in (
        (errors.TransactionAbortedError, "TRANSACTION_ABORTED", sqlalchemy.exc.PendingRollbackError),
        (errors.PreconditionError, "UNEXPECTED_ROW_COUNT", StaleDataError),
    ):
        told = translated(ours("m", code="FAILED_PRECONDITION", reason=reason))
        assert isinstance(told, theirs) and not isinstance(told, sqlalchemy.exc.DBAPIError)


@pytest.mark.parametrize(
    "write",
    [
        lambda session: DRIVER.insert_violation(session, **evidence(new_id(), detected_at=None)),
        lambda session: DRIVER.insert_violation(session, **evidence(None)),
        lambda session: upsert(session, confidence=1.5),
        lambda session: upsert(session, confidence=float("nan")),
        lambda session: upsert(session, suggestion=None),
        lambda session: RecoveryWriteService(session).update_recovery_candidate(1, ["decision = :d"], {"d": "maybe"}),
    ],
    ids=["null", "null id", "range", "nan", "null text", "closed set"],
)
def test_what_not_null_or_a_check_would_refuse_is_an_integrity_error(client: Client, write: Callable[[Any], None]) -> None:
    with Unit(client) as session, pytest.raises(sqlalchemy.exc.IntegrityError) as refused:
        write(session)
        session.commit()
    assert "Integrity" in type(refused.value).__name__ and isinstance(refused.value, errors.InvalidRequestError)


def test_what_a_column_cannot_hold_at_all_is_a_data_error(client: Client) -> None:
    # Of a request with both it is the one that the original's database would have found first.
    for others in ({"detected_at": None, "evaluation_id": "no"}, {"evaluation_id": "no"}):
        with Unit(client) as session, pytest.raises(sqlalchemy.exc.DataError):
            DRIVER.insert_violation(session, **evidence(new_id(), **others))
            session.commit()


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda session: DRIVER.insert_violation(session, **evidence(new_id(), severity="high")), "severity"),
        (lambda session: DRIVER.update_risk_ceiling(session, new_id(), {"max_value": "much"}), "max_value"),
        (lambda session: DRIVER.update_safety_rule(session, new_id(), {"priority": "1.5"}), "priority"),
        (lambda session: DRIVER.update_safety_rule(session, new_id(), {"priority": 2**31}), "priority"),
        (lambda session: DRIVER.insert_dependency(session, "a", "b", "c", "d", -(2**31) - 1, ""), "priority"),
        (lambda session: DRIVER.fetch_violations(session, limit=2**31), "limit"),
    ],
    ids=["word", "word of an update", "fraction", "integer of an update", "integer", "integer of a read"],
)
def test_what_cannot_even_be_sent_is_a_data_error_too(client: Client, call: Callable[[Any], None], field: str) -> None:
    with Unit(client) as session, pytest.raises(sqlalchemy.exc.DataError) as refused:
        call(session)
    assert isinstance(refused.value, errors.InvalidRequestError) and isinstance(refused.value, ValueError)
    assert [one.field for one in refused.value.violations] == [field]
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_what_cannot_even_be_sent_is_a_data_error_for_asyncio(address: str) -> None:
    async def refusals() -> list[Any]:
        async with aio.connect(address) as client, AsyncUnit(client) as session:
            driver = PolicyProposalWriteDriver(session)
            return await asyncio.gather(
                driver.create_proposal("t", "n", "custom", "r", {"a": float("nan")}, []),
                driver.create_version(new_id(), 2**31, {}, "me", "why"),
                return_exceptions=True,
            )

    for refused in asyncio.run(refusals()):
        assert isinstance(refused, sqlalchemy.exc.DataError) and isinstance(refused, ValueError)


def upsert(session: Any, **others: Any) -> None:
    given = {"suggestion": "s", "confidence": 0.5, "explain_json": "{}", "error_code": "E", "error_signature": "s"}
    RecoveryWriteService(session).upsert_recovery_candidate(
        new_id(), **{**given, "source": "test", "idempotency_key": None, **others}
    )


def leases(client: Client) -> set[timedelta]:
    """The longest lives of the drop-in's open transactions."""
    return {one.total_lease for one in client.transactions.list().transactions if one.label == "dropin"}


def test_a_session_says_how_long_its_transactions_may_last(client: Client, address: str) -> None:
    long = timedelta(minutes=47)
    info = {"policy_sidecar": client, "policy_sidecar_lease": long}
    with Session(sqlalchemy.create_engine("sqlite://"), info=info) as session:
        DRIVER.insert_violation(session, **evidence(new_id()))
        unit_of(session).flush()
        assert leases(client) == {long}
    engine = PolicyEngineDriver(address, lease=2 * long).get_engine()
    for begin in (engine.connect, engine.begin):
        with pytest.raises(KeyError), begin() as conn:
            DRIVER.insert_violation(conn, **evidence(new_id()))
            conn.flush()
            assert leases(client) == {timedelta(hours=1)}, "the longest that is granted"
            raise KeyError


def test_a_transaction_that_has_lasted_too_long_ends_with_an_error_that_is_caught(client: Client) -> None:
    with Unit(client, lease=timedelta(milliseconds=1)) as session:

        def ends() -> bool:
            try:
                DRIVER.insert_violation(session, **evidence(new_id()))
                session.flush()
            except sqlalchemy.exc.OperationalError as error:
                assert isinstance(error, errors.TransactionEndedError)
                return True
            return False

        wait_for(ends)


def test_a_sidecar_that_does_not_know_its_caller_is_an_operational_error(guarded: str) -> None:
    with connect(guarded, token=TOKEN[:-1]) as caller, Unit(caller) as session:
        with pytest.raises(sqlalchemy.exc.OperationalError) as refused:
            DRIVER.fetch_violation_by_id(session, new_id())
    assert isinstance(refused.value, errors.UnauthenticatedError)
