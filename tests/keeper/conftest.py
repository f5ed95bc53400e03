"""Fixtures of the keeper's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, Line

if sys.platform != "linux":
    collect_ignore_glob = ["*"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Directories for a keeper that is not yet started; at the end nothing that was started is left."""
    found = Bench(tmp_path)
    yield found
    found.close()


@pytest.fixture
def line(bench: Bench) -> Line:
    """The supervisor's side of a keeper that was just started."""
    started = bench.start_keeper()
    assert started.hello() == {}
    return started
