"""A sidecar for tests: an embedded database in a temporary folder, on free ports, gone with the process that started it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

#: Environment variable with the command that is the sidecar's program.
VARIABLE = "POLICY_SIDECAR_COMMAND"
DEFAULT_COMMAND = "npx policy-sidecar"
_END_SECONDS = 15


@dataclass(frozen=True)
class Sidecar:
    """Where a sidecar for tests is."""

    #: `host:port` for `connect`.
    address: str
    #: `host:port` of Connect, gRPC-Web and JSON; None where it is off.
    http: str | None
    #: URL of its database, for what a test has to see or prepare with SQL.
    database: str
    #: Number of its process.
    pid: int


@contextmanager
def ephemeral(command: str | None = None, env: Mapping[str, str] | None = None) -> Iterator[Sidecar]:
    """Starts `serve --ephemeral` and stops it at the end of the block.

    `command` is the program, else what the environment variable POLICY_SIDECAR_COMMAND says, else `npx policy-sidecar`;
    `env` are settings beside the environment. RuntimeError where it does not start; it has said why on standard error.
    """
    words = shlex.split(command or os.environ.get(VARIABLE) or DEFAULT_COMMAND)
    with subprocess.Popen(
        [*words, "serve", "--ephemeral"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(words)} did not start: exit code {process.wait()}")
            where = json.loads(line)
            yield Sidecar(where["grpc"], where["http"], where["database"], where["pid"])
        finally:
            process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
