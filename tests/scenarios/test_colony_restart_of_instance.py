"""A restart that is asked for because of one instance is of that one alone."""

from __future__ import annotations

import json
import os
import signal

from colony import SLEEP, Colony


def put(colony: Colony) -> int:
    colony.put("web", {"args": [SLEEP, "1000"]})
    colony.start()
    return colony.wait_until_running("web", instance=1)


def test_instance_that_runs(colony: Colony) -> None:
    """The instance that runs is restarted, and the history has the reason that was given."""
    put(colony)
    answer = colony.send({"type": "RESTART", "name": "web", "instance": 1, "why": "no answer\x1b"})
    assert answer["state"] == "done"
    colony.wait_until_running("web", instance=2)
    [line] = (colony.state / "history" / "web").read_text().splitlines()
    assert json.loads(line)["reason"] == "no answer\\x1b"


def test_instance_that_is_over(colony: Colony) -> None:
    """A request because of a former instance, or of one that is still to come, restarts nobody."""
    put(colony)
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    pid = colony.wait_until_running("web", instance=2)
    for number in (1, 3):
        answer = colony.send({"type": "RESTART", "name": "web", "instance": number})
        assert (answer["state"], answer["why"]) == ("failed", f"instance {number} of web does not run any more")
    assert colony.wait_until_running("web", instance=2) == pid


def test_instance_that_was_stopped(colony: Colony) -> None:
    """Who was stopped meanwhile stays stopped."""
    put(colony)
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    assert colony.send({"type": "RESTART", "name": "web", "instance": 1})["state"] == "failed"
    assert (colony.status("web") or {})["state"] == "STOPPED"


def test_instance_that_ended_while_nobody_looked(colony: Colony) -> None:
    """A request that waits for a supervisor does nothing to an instance that has replaced the one it is about."""
    pid = put(colony)
    colony.kill()
    os.kill(pid, signal.SIGKILL)
    colony.wait_until_dead(pid)
    message = colony.post({"type": "RESTART", "name": "web", "instance": 1})
    colony.start()
    assert colony.wait_for_answer(message)["state"] == "failed"
    colony.wait_until_running("web", instance=2)
    colony.scan()
    assert (colony.status("web") or {})["instance"] == 2
