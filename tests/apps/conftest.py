"""Fixtures of the tests of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ward import Server, Ward


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """Directories with a supervisor that the test plays; nothing outlives the test."""
    found = Ward(tmp_path / "w")
    found.supervise()
    yield found
    found.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers, which end with the test."""
    servers: list[Server] = []

    def start(*arguments: Any, **more: Any) -> Server:
        servers.append(Server(*arguments, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
