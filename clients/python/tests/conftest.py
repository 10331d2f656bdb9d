"""One sidecar for the whole run, and what stands between it and a client."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import pytest

from policy_sidecar import Client
from policy_sidecar.testing import Sidecar

pytest_plugins = ["policy_sidecar.testing.plugin"]

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Waits until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def new_id() -> str:
    return str(uuid.uuid4())


def evaluation(evaluation_id: str) -> dict[str, object]:
    """Arguments of `insert_evaluation`."""
    return {
        "evaluation_id": evaluation_id,
        "action_type": "route",
        "request_context": {},
        "decision": "allow",
        "policies_checked": 1,
        "evaluated_at": NOW,
    }


def violation(violation_id: str, description: str = "d") -> dict[str, object]:
    """Arguments of `insert_violation`."""
    return {
        "violation_id": violation_id,
        "violation_type": "compliance_breach",
        "severity": 0.5,
        "description": description,
        "evidence": {},
        "routed_to_governor": False,
        "detected_at": NOW,
    }


def evidence(violation_id: str, **others: object) -> dict[str, object]:
    """Arguments of the original driver's `insert_violation`."""
    absent = dict.fromkeys(("evaluation_id", "policy_name", "agent_id", "action_attempted", "governor_action"))
    return {**absent, **violation(violation_id), "evidence": json.dumps({"a": 1}), "tenant_id": "t", **others}


class Proxy:
    """Passes bytes on between a client and a sidecar, unless told otherwise."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        #: Answers, or requests, are thrown away.
        self.swallows_answers = False
        self.swallows_requests = False
        #: How often something was thrown away.
        self.swallowed = 0
        #: How many connections there were.
        self.accepted = 0
        #: After how many bytes of answers the next connection that brings so many is cut.
        self.cuts_after: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            sidecar = socket.create_connection(self._to)
            self._open += [caller, sidecar]
            for source, sink, swallows, cuts in (
                (caller, sidecar, lambda: self.swallows_requests, lambda _: False),
                (sidecar, caller, lambda: self.swallows_answers, self._is_cut_after),
            ):
                threading.Thread(target=self._pass, args=(source, sink, swallows, cuts), daemon=True).start()

    def _is_cut_after(self, passed: int) -> bool:
        return self.cuts_after is not None and passed >= self.cuts_after

    def _pass(
        self, source: socket.socket, sink: socket.socket, swallows: Callable[[], bool], cuts: Callable[[int], bool]
    ) -> None:
        passed = 0
        try:
            while data := source.recv(65_536):
                if swallows():
                    self.swallowed += 1
                    continue
                sink.sendall(data)
                passed += len(data)
                if cuts(passed):
                    self.cuts_after = None
                    self.cut()
        except OSError:
            pass

    def cut(self) -> None:
        """Ends what is connected; what connects from now on gets through."""
        cut, self._open = self._open, []
        for one in cut:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        self.swallows_answers = self.swallows_requests = False

    def close(self) -> None:
        if self._listener.fileno() != -1:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self.cut()


class Program:
    """A sidecar of a database, that can be killed and started again at the same address."""

    def __init__(self, database: str, listen: str, **settings: str) -> None:
        self._command = [*shlex.split(os.environ["POLICY_SIDECAR_COMMAND"]), "serve"]
        self._env = {
            **os.environ,
            "DATABASE_URL": database,
            "SIDECAR_GRPC_LISTEN": listen,
            "SIDECAR_HTTP_LISTEN": "off",
            "SIDECAR_LOG_LEVEL": "error",
            **settings,
        }
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, env=self._env, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        assert line.startswith("gRPC"), line

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def client(policy_sidecar: Client) -> Client:
    return policy_sidecar


@pytest.fixture(scope="session")
def address(policy_sidecar_process: Sidecar) -> str:
    return policy_sidecar_process.address


@pytest.fixture
def proxy(address: str) -> Iterator[Proxy]:
    between = Proxy(address)
    yield between
    between.close()


@pytest.fixture
def mortal(policy_sidecar_process: Sidecar) -> Iterator[tuple[Program, str]]:
    """A sidecar to be killed, and its address."""
    address = f"127.0.0.1:{free_port()}"
    program = Program(policy_sidecar_process.database, address)
    yield program, address
    program.kill()


TOKEN = "a-secret-of-the-tests"


@pytest.fixture(scope="session")
def guarded(policy_sidecar_process: Sidecar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a sidecar at a socket file that wants a token."""
    folder: Path = tmp_path_factory.mktemp("socket")
    tokens = folder / "tokens"
    tokens.write_text(f"engine: {sha256(TOKEN.encode()).hexdigest()}\n")
    address = f"unix:{folder}/sidecar.sock"
    program = Program(policy_sidecar_process.database, address, SIDECAR_TOKENS_FILE=str(tokens))
    yield address
    program.kill()
