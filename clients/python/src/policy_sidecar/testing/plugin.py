"""Fixtures of pytest, for `pytest_plugins = ["policy_sidecar.testing.plugin"]`: one sidecar for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..client import Client, connect
from . import Sidecar, ephemeral


@pytest.fixture(scope="session")
def policy_sidecar_process() -> Iterator[Sidecar]:
    """A sidecar with an empty database."""
    with ephemeral() as sidecar:
        yield sidecar


@pytest.fixture
def policy_sidecar(policy_sidecar_process: Sidecar) -> Iterator[Client]:
    """A client of it."""
    with connect(policy_sidecar_process.address) as client:
        yield client
