"""The tour in the documentation is what a terminal shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_tour_is_true() -> None:
    """Typed into a terminal again, every command of the tour shows what docs/tour.md says, but for pids and times."""
    command = [sys.executable, str(ROOT / "tools" / "tour.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
