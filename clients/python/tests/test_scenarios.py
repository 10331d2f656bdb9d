"""The scenarios of the contract, put to a sidecar by stubs that are made here, without the client."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

HERE = Path(__file__).parent
PROTO = Path(os.environ.get("POLICY_SIDECAR_PROTO") or HERE.parents[2] / "proto")
FOLDER = Path(os.environ.get("POLICY_SIDECAR_SCENARIOS") or HERE.parents[2] / "scenarios")
NAMES = re.compile(r"\{\{([\w.]+)\}\}")
BEGINNINGS = ("TransactionService/Begin", "TransactionService/Hold")


class Failure(Exception):
    """It is not as it has to be."""


class NotGranted(Exception):
    """The caller of the run may not do what the scenario does."""


@dataclass
class Reply:
    """What a call brought: messages in protobuf's JSON, or why it was refused."""

    stream: bool
    messages: list[Any] = field(default_factory=list)
    refusal: dict[str, Any] | None = None
    leave: Callable[[], object] = lambda: None

    @property
    def first(self) -> Any:
        return self.messages[0] if self.messages else None


class Stubs:
    """Calls any RPC of the contract by its name."""

    def __init__(self, address: str, scratch: Path) -> None:
        described = scratch / "contract.binpb"
        protos = [str(path) for path in PROTO.rglob("*.proto")]
        known = str(files("grpc_tools") / "_proto")
        options = [f"-I{PROTO}", f"-I{known}", "--include_imports", f"--descriptor_set_out={described}"]
        assert protoc.main(["protoc", *options, *protos]) == 0
        self._pool = descriptor_pool.DescriptorPool()
        self._methods = {}
        for file in descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file:
            self._pool.AddSerializedFile(file.SerializeToString())
            for service in file.service:
                found = self._pool.FindServiceByName(f"{file.package}.{service.name}")
                self._methods.update({f"{service.name}/{name}": each for name, each in found.methods_by_name.items()})
        self.channel = grpc.insecure_channel(address)

    def _class(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def call(self, step: dict[str, Any]) -> Reply:
        method = self._methods[step["call"]]
        request = self._class(method.input_type.full_name)()
        json_format.ParseDict(step.get("request", {}), request, descriptor_pool=self._pool)
        headers = dict(step.get("headers", {}))
        if "transaction" in step:
            headers["transaction"] = step["transaction"]
        # A call with one answer is a stream of one.
        answers = self.channel.unary_stream(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._class(method.output_type.full_name).FromString,
        )(request, metadata=tuple(headers.items()), timeout=60)
        reply = Reply(method.server_streaming, leave=answers.cancel)
        try:
            for message in answers:
                reply.messages.append(
                    json_format.MessageToDict(
                        message, always_print_fields_with_no_presence=True, descriptor_pool=self._pool
                    )
                )
                if len(reply.messages) == step.get("take"):
                    break
        except grpc.RpcError as error:
            reply.refusal = self._refusal(error)
        return reply

    def _refusal(self, error: Any) -> dict[str, Any]:
        refusal: dict[str, Any] = {
            "code": error.code().name,
            "message": error.details(),
            "metadata": {},
            "fields": [],
            "retry": False,
            "preconditions": 0,
        }
        for key, value in error.trailing_metadata():
            for detail in self._class("google.rpc.Status").FromString(value).details if key == "grpc-status-details-bin" else ():
                name = detail.type_url.rpartition("/")[2]
                told = self._class(name).FromString(detail.value)
                if name == "google.rpc.ErrorInfo":
                    refusal |= {"reason": told.reason, "metadata": dict(told.metadata)}
                elif name == "google.rpc.RetryInfo":
                    refusal["retry"] = True
                elif name == "google.rpc.BadRequest":
                    refusal["fields"] = sorted(each.field for each in told.field_violations)
                elif name == "google.rpc.PreconditionFailure":
                    refusal["preconditions"] = len(told.violations)
        return refusal


def difference(path: str, expected: Any, found: Any) -> str | None:
    """Where something found lacks what was expected of it; more than that it may have."""
    differs = f"{path} is {found!r}, expected {expected!r}"
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return differs
        problems = (difference(f"{path}[{at}]", each, found[at]) for at, each in enumerate(expected))
        return next((one for one in problems if one), None)
    if not isinstance(expected, dict):
        return None if expected == found and isinstance(expected, bool) == isinstance(found, bool) else differs
    if len(expected) == 1:
        ((key, wanted),) = expected.items()
        if key.startswith("$"):
            return None if is_special(key, wanted, found) else differs
    if not isinstance(found, dict):
        return differs
    problems = (difference(f"{path}.{key}", each, found.get(key)) for key, each in expected.items())
    return next((one for one in problems if one), None)


def is_special(key: str, wanted: Any, found: Any) -> bool:
    """Whether something found is what an object of one key that begins with `$` asks for."""
    if key == "$present":
        return (found is not None) == wanted
    if key == "$contains":
        return isinstance(found, list) and any(difference("", wanted, each) is None for each in found)
    assert key == "$matches", f"{key} is nothing that can be expected"
    return isinstance(found, str) and re.search(wanted, found) is not None


def problem_with(expected: dict[str, Any], reply: Reply) -> str | None:
    """Where a reply is not what was expected."""
    if "error" in expected:
        error = dict(expected["error"])
        if reply.refusal is None:
            return f"it succeeded, expected {error}"
        if "fields" in error:
            error["fields"] = sorted(error["fields"])
        return difference("error", error, reply.refusal)
    if reply.refusal is not None:
        return f"it was refused: {reply.refusal}"
    if "response" in expected:
        problem = difference("response", expected["response"], reply.messages if reply.stream else reply.first)
        if problem:
            return problem
    if "rows" not in expected:
        return None
    lists = [reply.messages] if reply.stream else [each for each in reply.first.values() if isinstance(each, list)]
    if len(lists) != 1:
        return "the answer has not one list whose rows could be counted"
    wanted, found = expected["rows"], len(lists[0])
    least, most = (wanted, wanted) if isinstance(wanted, int) else (wanted.get("at_least", 0), wanted.get("at_most", found))
    return None if least <= found <= most else f"{found} rows, expected {wanted}"


def at(value: Any, path: str) -> Any:
    """The value at a path, `scope.scopeId` or `results.0.rows`; None where there is none."""
    for key in path.split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


class Run:
    """One run of a scenario, and all that it has begun."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs
        self._variables: dict[str, Any] = {"now": datetime.now(timezone.utc).isoformat(), "run": str(uuid.uuid4())[:8]}
        self._transactions: list[str] = []
        self._streams: dict[str, Callable[[], object]] = {}

    def step(self, raw: dict[str, Any]) -> None:
        step = self._fill(raw)
        if "leave" in step:
            self._streams[step["leave"]]()
            return
        until = time.monotonic() + step.get("within_ms", 0) / 1_000
        while True:
            reply = self._send(step)
            problem = problem_with(step.get("expect", {}), reply)
            if problem is None:
                break
            if (reply.refusal or {}).get("reason") in ("NOT_ALLOWED", "OUTSIDE_TENANTS"):
                raise NotGranted
            if time.monotonic() >= until:
                raise Failure(f"{step['call']}: {problem}")
            time.sleep(0.05)
        for name, path in step.get("capture", {}).items():
            self._variables[name] = at(reply.first, path)
            if self._variables[name] is None:
                raise Failure(f"the answer has no {path}")

    def _send(self, step: dict[str, Any]) -> Reply:
        reply = self._stubs.call(step)
        if "keep" in step:
            self._streams[step["keep"]] = reply.leave
        else:
            reply.leave()
        begun = at(reply.first, "transaction.id") if step["call"] in BEGINNINGS else None
        if begun is not None:
            self._transactions.append(begun)
        return reply

    def end(self) -> None:
        """Leaves nothing open."""
        for leave in self._streams.values():
            leave()
        for one in self._transactions:
            self._send({"call": "TransactionService/Rollback", "request": {"transactionId": one}})

    def knows(self, step: dict[str, Any]) -> bool:
        """Whether all that a step mentions has been captured."""
        return all(name.startswith("uuid.") or name in self._variables for name in NAMES.findall(json.dumps(step)))

    def _fill(self, value: Any) -> Any:
        """The value with everything in its place; a text that is nothing but a name becomes what it stands for."""
        if isinstance(value, list):
            return [self._fill(each) for each in value]
        if isinstance(value, dict):
            return {key: self._fill(each) for key, each in value.items()}
        if not isinstance(value, str):
            return value
        whole = NAMES.fullmatch(value)
        return self._get(whole[1]) if whole else NAMES.sub(lambda name: str(self._get(name[1])), value)

    def _get(self, name: str) -> Any:
        if name.startswith("uuid."):
            self._variables.setdefault(name, str(uuid.uuid4()))
        return self._variables[name]


def play(stubs: Stubs, scenario: dict[str, Any]) -> None:
    """Runs the steps, and the cleanup whatever happened."""
    run = Run(stubs)
    try:
        for step in scenario["steps"]:
            run.step(step)
    except Exception:
        run.end()
        for step in filter(run.knows, scenario.get("cleanup", [])):
            try:
                run.step(step)
            except Failure:
                pass
        raise
    run.end()
    for step in scenario.get("cleanup", []):
        run.step(step)


@pytest.fixture
def stubs(address: str, tmp_path: Path) -> Iterator[Stubs]:
    made = Stubs(address, tmp_path)
    yield made
    made.channel.close()


def test_the_scenarios_of_the_contract_hold(stubs: Stubs, capsys: pytest.CaptureFixture[str]) -> None:
    passed, skipped, problems = 0, 0, []
    for file in sorted(FOLDER.glob("*.json")):
        if file.name.endswith(".schema.json"):
            continue
        try:
            play(stubs, json.loads(file.read_text(encoding="utf-8")))
            passed += 1
        except NotGranted:
            skipped += 1
        except Failure as failure:
            problems.append(f"{file.name}: {failure}")
    assert problems == []
    assert passed > 0
    with capsys.disabled():
        print(f"\nscenarios: {passed} passed, {skipped} skipped")
