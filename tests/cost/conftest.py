"""Two colonies that differ in nothing but their size, for all tests of this directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from cost.events import Place, place

SIZES = (30, 200)


@pytest.fixture(scope="session")
def places() -> Iterator[list[Place]]:
    """A small one and a large one, at rest. Whoever uses them leaves them as they were."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(place(size)) for size in SIZES]
        for one in found:
            one.write()
            one.begin()
            one.rest()
        yield found
