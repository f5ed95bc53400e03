"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from ctl_colony import Colony


@pytest.fixture
def colony(tmp_path: Path) -> Colony:
    """A colony's directories, empty."""
    return Colony(tmp_path)
