"""Fixtures for every test: colonies that leave nothing behind."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# Test modules import the helpers beside this file by their plain name, whatever import mode pytest runs in.
sys.path.insert(0, str(Path(__file__).parent))

from colony import Colony

# A loaded machine is no failure, and a run is like the one before it. What a test says itself goes before this.
hypothesis.settings.register_profile("colony", deadline=None, derandomize=True)
hypothesis.settings.load_profile("colony")


@pytest.fixture
def new_colony(tmp_path: Path) -> Iterator[Callable[[str], Colony]]:
    """Make a colony in a directory of the given name; at the end each is stopped and must leave nothing running."""
    made: list[Colony] = []

    def make(name: str) -> Colony:
        root = tmp_path / name
        root.mkdir()
        made.append(Colony(root))
        return made[-1]

    yield make
    _close(made)


@pytest.fixture
def colony(new_colony: Callable[[str], Colony]) -> Colony:
    """A colony whose supervisor is not yet started."""
    return new_colony("c")


@pytest.fixture
def open_colony() -> Iterator[Colony]:
    """A colony in a directory that every user may enter (pytest's own are private)."""
    root = Path(tempfile.mkdtemp(prefix="colony-"))
    try:
        root.chmod(0o755)
        found = Colony(root)
        found.notes_directory.chmod(0o777)
        yield found
        _close([found])
    finally:
        shutil.rmtree(root)


def _close(colonies: list[Colony]) -> None:
    failures: list[AssertionError] = []
    for colony in colonies:
        try:
            colony.close()
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
