"""What fuzzing has found stays found: every kept input, and as many by chance as take a second or two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import CORPUS, TARGETS

_RUN = Path(__file__).with_name("run.py")
_COUNT = {"definition": 500, "text": 300, "frames": 300, "message": 300}


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_broken_by_garbage(target: str) -> None:
    """The target bears every input that is kept, and those that chance makes of them. In a process of its own."""
    command = [sys.executable, str(_RUN), target, "--chance", str(_COUNT.get(target, 60))]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_target_has_something_to_begin_with() -> None:
    """Each target has a folder of kept inputs, and no folder is without a target."""
    assert [path.name for path in sorted(CORPUS.iterdir())] == TARGETS
    assert all(any((CORPUS / target).iterdir()) for target in TARGETS)
