"""What the death of an instance costs that an earlier keeper had started."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from colony import SLEEP, Colony

NUMBER = 150


def reads(pid: int) -> int:
    """How many system calls of a process have read something so far (proc(5), /proc/PID/io)."""
    text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    return int(dict(line.split(": ") for line in text.splitlines())["syscr"])


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace of its own takes root")
def test_nobody_else_is_looked_at(colony: Colony) -> None:
    """When an adopted instance dies the keeper reads nothing of the others, of which it knows who they are."""
    for number in range(NUMBER):
        colony.put(f"web-{number}", {"args": [SLEEP, "1000"]})
    # Here are no other processes that could be somebody's.
    colony.start(prefix=["unshare", "--pid", "--fork", "--mount-proc"])
    for number in range(NUMBER):
        colony.wait_until_running(f"web-{number}")
    first = colony.keeper_pid()
    assert first
    os.kill(first, signal.SIGKILL)
    keeper = colony.wait_for(lambda: (pid := colony.keeper_pid()) != first and pid, "there is another keeper")
    assert colony.send({"type": "RESTART", "name": "web-0"})["state"] == "done"
    before = reads(keeper)
    assert colony.send({"type": "RESTART", "name": "web-1"})["state"] == "done"
    assert reads(keeper) - before < NUMBER
