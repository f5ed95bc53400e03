"""Fixtures of the tests of the supervisor's deeds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from desk import Desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A reactor for this test alone."""
    found = Desk()
    yield found
    found.close()
