"""Errors, streams, deadlines, tokens, addresses, processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import TOKEN, evaluation, new_id, violation, wait_for
from grpc_tools import protoc

from policy_sidecar import Client, connect, errors

STREAMED = "streamed"


def test_an_error_names_every_field_that_is_wrong(client: Client) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        client.single_use.policy_engine.insert_violation(**{**violation("no"), "violation_type": "x" * 51})
    error = refused.value
    assert (error.code, error.reason, error.retriable) == ("INVALID_ARGUMENT", "INVALID_REQUEST", False)
    assert [one.field for one in error.violations] == ["violation_id", "violation_type"]
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.violations, str(again)) == (type(error), error.violations, str(error))


def test_every_reason_has_a_class_and_one_of_a_newer_contract_that_of_its_code() -> None:
    assert set(errors.BY_REASON) == {reason.value for reason in errors.ErrorReason}
    assert errors.class_of("ABORTED", "DEADLOCK_DETECTED") is errors.ConflictError
    assert errors.class_of("INVALID_ARGUMENT", "NOT_KNOWN_YET") is errors.InvalidRequestError
    assert issubclass(errors.UniqueViolationError, errors.ConstraintError)
    assert errors.MEANINGS[errors.ErrorReason.SHUTTING_DOWN].retry


def test_a_constraint_is_told_by_name(client: Client) -> None:
    key = new_id()
    client.single_use.policy_engine.insert_evaluation(**evaluation(key))
    with pytest.raises(errors.UniqueViolationError) as refused:
        client.single_use.policy_engine.insert_evaluation(**evaluation(key))
    assert refused.value.constraint and refused.value.metadata["sqlstate"] == "23505"


def open_streams(client: Client) -> int:
    return sum(one.label.startswith("stream ") for one in client.transactions.list().transactions)


def test_a_stream_is_an_iterator_and_closing_it_early_ends_it(client: Client) -> None:
    with client.transaction() as tx:
        for _ in range(200):
            tx.policy_engine.insert_violation(**violation(new_id(), "x" * 50_000), tenant_id=STREAMED)
    whole = [one.violation.tenant_id for one in client.policy_engine.stream_violations(tenant_id=STREAMED)]
    assert whole == [STREAMED] * 200
    with client.policy_engine.stream_violations(tenant_id=STREAMED) as stream:
        assert next(stream).violation.tenant_id == STREAMED
        wait_for(lambda: open_streams(client) == 1)
    wait_for(lambda: open_streams(client) == 0)
    assert list(stream) == []


def test_a_deadline_ends_a_call_that_waits(client: Client) -> None:
    rule = new_id()
    client.single_use.policy_rules.create_rule(id=rule, tenant_id="t", name="n")
    with client.transaction() as tx:
        tx.policy_rules.update_rule(tenant_id="t", rule_id=rule, name="held")
        with pytest.raises(errors.DeadlineError):
            client.single_use.options(timeout=0.3).policy_rules.update_rule(tenant_id="t", rule_id=rule, name="late")


def test_nobody_there_is_waited_for_until_the_deadline_or_not_at_all() -> None:
    with connect("127.0.0.1:1", timeout=0.3) as client:
        with pytest.raises(errors.DeadlineError):
            client.policy_engine.fetch_policy_versions()
        with pytest.raises(errors.DeadlineError):
            client.transaction().__enter__()
    with connect("127.0.0.1:1", wait_for_ready=False) as client:
        with pytest.raises(errors.UnavailableError):
            client.policy_engine.fetch_policy_versions()


def test_a_token_opens_a_socket_file(guarded: str) -> None:
    with connect(guarded, token=TOKEN) as client:
        with client.transaction() as tx:
            tx.policy_engine.insert_evaluation(**evaluation(new_id()))
            assert [one.caller for one in client.transactions.list().transactions] == ["engine"]
    with connect(guarded, token="another") as client:
        with pytest.raises(errors.UnauthenticatedError):
            client.policy_engine.fetch_policy_versions()
    assert TOKEN not in repr(client.__dict__)


def test_the_environment_says_where_the_sidecar_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICY_SIDECAR", address)
    with connect() as client:
        assert client.policy_engine.fetch_policy_versions(limit=1).policy_versions


def test_reads_say_what_they_have_to_see(client: Client) -> None:
    for consistency in ("strong", "eventual"):
        answer = client.options(consistency=consistency).policy_engine.fetch_policy_versions(limit=1)
        assert answer.policy_versions and answer.trailers.consistency_token is None
    with pytest.raises(ValueError, match="consistency"):
        client.options(consistency="ä")
    with pytest.raises(ValueError, match="token"):
        connect(token="with a line\n")


def test_many_threads_share_a_client(client: Client) -> None:
    keys = [new_id() for _ in range(8)]

    def work(key: str) -> None:
        with client.transaction() as tx:
            tx.policy_engine.insert_evaluation(**evaluation(key))

    threads = [threading.Thread(target=work, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(client.policy_engine.fetch_evaluation_by_id(evaluation_id=key).evaluation for key in keys)


FORKS = """
import os, sys
from policy_sidecar import connect
client = connect(sys.argv[1])
read = lambda: len(client.policy_engine.fetch_policy_versions(limit=1).policy_versions)
assert read() == 1
child = os.fork()
if child == 0:
    os._exit(7 if read() == 1 else 1)
assert read() == 1
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_opens_a_channel_of_its_own(address: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKS, address], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


def test_stubs_that_a_user_made_himself_live_beside_the_client(tmp_path: Path, address: str) -> None:
    described, known = Path(os.environ["POLICY_SIDECAR_PROTO"]), files("grpc_tools") / "_proto"
    folders = ("buf", "hoc")
    sources = [str(path.relative_to(described)) for one in folders for path in described.glob(f"{one}/**/*.proto")]
    assert protoc.main(["protoc", f"-I{described}", f"-I{known}", f"--python_out={tmp_path}", *sources]) == 0
    line = (
        "import sys; from policy_sidecar import connect; from hoc.cus.policies.v1 import types_pb2, policy_engine_pb2;"
        "print(len(connect(sys.argv[1]).policy_engine.fetch_policy_versions(limit=1).policy_versions))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", line, address], capture_output=True, text=True, env=env, timeout=60)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


def test_the_example_of_the_readme_runs(address: str) -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    env = {**os.environ, "POLICY_SIDECAR": address}
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "_pkey" in done.stdout.splitlines()[0]


def test_the_example_engine_runs(address: str) -> None:
    engine = Path(__file__).parent.parent / "examples" / "engine.py"
    done = subprocess.run([sys.executable, engine, address], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "block: budget of agent-7 is spent\nallow\n"
