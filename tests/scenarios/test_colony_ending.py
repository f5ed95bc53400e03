"""`on_exit` and `on_give_up`: a process that the whole colony ends with."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from colony import SLEEP, Colony, is_alive

QUICK = ("-m", "0.05", "-M", "0.05")


def main(colony: Colony, code: int = 3, **keys: Any) -> dict[str, Any]:
    """A process that the colony ends with: it ends with the code when there is a file `trigger`."""
    args = colony.payload("main", "leave_when", code, colony.root / "trigger")
    return {"args": args, "on_exit": "shutdown", **keys}


def end(colony: Colony) -> None:
    (colony.root / "trigger").touch()


def ended(colony: Colony) -> int:
    """The supervisor's exit code, once nothing of the colony is left."""
    code = colony.wait_for_exit()
    assert colony.processes() == {}
    return code


@pytest.mark.parametrize("policy", ["always", "on-failure", "never"])
@pytest.mark.parametrize("code", [0, 3, 255])
def test_its_exit_code(colony: Colony, code: int, policy: str) -> None:
    """Whatever its restart policy, the colony ends with its exit code, after the others had their stop sequences."""
    colony.put("main", main(colony, code, restart=policy))
    colony.put("other", {"args": colony.payload("other", "signals", "TERM"), "stop": [["USR1", 0.2], ["TERM", 30]]})
    colony.start()
    colony.wait_for_notes("main")
    colony.wait_for_notes("other")
    end(colony)
    assert ended(colony) == code
    got = [line.split()[1] for line in colony.notes("other", "got ") if "CONT" not in line]
    assert got == ["USR1", "TERM"]
    assert len(colony.notes("main")) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_killed_by_a_signal(colony: Colony, number: signal.Signals) -> None:
    """Killed by a signal, its code is 128 and the signal's number, as a shell says it."""
    colony.put("main", {"args": [SLEEP, "100000"], "on_exit": "shutdown", "limits": {"core": 0}})
    colony.put("other", {"args": [SLEEP, "100000"]})
    colony.start()
    colony.wait_until_running("other")
    os.kill(colony.wait_until_running("main"), number)
    assert ended(colony) == 128 + number


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program", "/etc/passwd"])
def test_what_cannot_be_run(colony: Colony, program: str) -> None:
    """A program that cannot be run ends the colony with 127, and the reason is in the log."""
    colony.put("main", {"args": [program], "on_exit": "shutdown"})
    colony.put("other", {"args": [SLEEP, "100000"]})
    colony.launch()
    assert ended(colony) == 127
    assert program in colony.log()


def test_leftovers_first(colony: Colony) -> None:
    """What it left behind gets its stop sequence too, and the code is the process's own."""
    script = f'echo "up $$" > {colony.notes_directory}/main; {SLEEP} 100000 & exit 5'
    colony.put("main", {"args": ["/bin/sh", "-c", script], "on_exit": "shutdown"})
    colony.launch()
    assert ended(colony) == 5


def test_what_does_not_end_it(colony: Colony) -> None:
    """STOP, RESTART, a change, disabling and removal end the process, and not the colony."""
    colony.put("other", {"args": [SLEEP, "100000"]})
    colony.put("main", main(colony))
    colony.start()
    colony.wait_for_notes("main")
    assert colony.send({"type": "STOP", "name": "main"})["state"] == "done"
    assert colony.send({"type": "START", "name": "main"})["state"] == "done"
    assert colony.send({"type": "RESTART", "name": "main"})["state"] == "done"
    assert colony.send({"type": "RESTART", "name": "main", "rolling": 1})["state"] == "done"
    colony.put("main", main(colony, env={"COLOUR": "red"}))
    colony.wait_until_running("main", instance=5)
    colony.put("main", main(colony, enabled=False))
    colony.wait_for_status("main", state="STOPPED")
    colony.put("main", main(colony, instances=2))
    for name in ("main:0", "main:1"):
        colony.wait_until_running(name)
    colony.put("main", main(colony, instances=1))
    colony.wait_until_forgotten("main:1")
    colony.remove("main")
    colony.wait_until_forgotten("main:0")
    colony.scan()
    assert not colony.has_exited()
    colony.wait_until_running("other", instance=1)


def test_a_live_change(colony: Colony) -> None:
    """`on_exit` applies to the instance that runs, in both directions."""
    trigger = colony.root / "trigger"
    colony.put("main", main(colony, 3))
    colony.put("once", main(colony, 4, on_exit="restart"))
    colony.start("-m", "60", "-M", "60")
    for name in ("main", "once"):
        colony.wait_until_running(name)
    colony.put("main", main(colony, 3, on_exit="restart"))
    colony.scan()
    os.kill(colony.wait_until_running("main", instance=1), signal.SIGKILL)
    colony.wait_for(lambda: (colony.status("main") or {})["last_exit"], "main has ended")
    assert not colony.has_exited()
    colony.put("once", main(colony, 4, on_exit="shutdown"))
    colony.scan()
    colony.wait_until_running("once", instance=1)
    trigger.touch()
    assert ended(colony) == 4


def test_the_next_start_is_another_life(colony: Colony) -> None:
    """Once it has ended, a new supervisor runs everything anew, what was ended and what ended itself."""
    colony.put("main", main(colony, 3))
    colony.put("other", {"args": [SLEEP, "100000"]})
    for instance in (1, 2):
        colony.start()
        colony.wait_until_running("main", instance=instance)
        colony.wait_until_running("other", instance=instance)
        end(colony)
        assert ended(colony) == 3
        (colony.root / "trigger").unlink()
    colony.start()
    colony.wait_until_running("main", instance=3)
    colony.wait_until_running("other", instance=3)
    colony.scan()
    assert colony.stop() == 0


@pytest.mark.parametrize("code", [3, 0])
def test_killed_while_it_ends(colony: Colony, code: int) -> None:
    """A supervisor that is killed while it ends the colony is followed by one that ends it, with the same code."""
    colony.put("main", main(colony, code))
    colony.put("other", {"args": colony.payload("other", "signals", "USR2"), "stop": [["USR1", 60]]})
    colony.start()
    colony.wait_for_notes("main")
    colony.wait_for_notes("other")
    pid = colony.wait_until_running("other")
    end(colony)
    colony.wait_for_notes("other", beginning="got USR1")
    colony.kill()
    assert is_alive(pid)
    colony.launch()
    colony.wait_for_notes("other", 2, "got USR1")  # asked again, since nobody knows whether it heard
    os.kill(pid, signal.SIGUSR2)
    assert ended(colony) == code
    assert len(colony.notes("main")) == 1
    assert len(colony.notes("other", "up")) == 1
    (colony.root / "trigger").unlink()
    colony.start()
    colony.wait_until_running("main", instance=2)
    colony.wait_until_running("other", instance=2)
    told = colony.log().count("stopping every process")
    os.kill(colony.supervisor_pid, signal.SIGTERM)
    colony.wait_for(lambda: colony.log().count("stopping every process") > told, "it ends")
    os.kill(colony.supervisor_pid, signal.SIGTERM)  # asked again: it does not wait for USR1 to be heard
    assert ended(colony) == 0


@pytest.mark.parametrize("code", [3, 0])
def test_it_ends_while_we_are_away(colony: Colony, code: int) -> None:
    """An end that no supervisor saw ends the colony when the next one hears of it."""
    colony.put("main", main(colony, code))
    colony.put("other", {"args": colony.payload("other", "serve")})
    colony.start()
    pid = colony.wait_until_running("main")
    colony.wait_for_notes("main")
    colony.wait_until_running("other")
    colony.kill()
    end(colony)
    colony.wait_until_dead(pid)
    colony.launch()
    assert ended(colony) == code
    assert len(colony.notes("main")) == 1
    assert len(colony.notes("other")) == 1


def test_the_first_one_decides(colony: Colony) -> None:
    """Of two that the colony ends with, the code is that of the first; the other one is stopped like any."""
    colony.put("main", main(colony, 3))
    colony.put("other", {"args": colony.payload("other", "signals", "TERM"), "on_exit": "shutdown"})
    colony.start()
    colony.wait_for_notes("main")
    colony.wait_for_notes("other")
    end(colony)
    assert ended(colony) == 3


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_signal_meanwhile(colony: Colony, stubborn: bool) -> None:
    """SIGTERM to a supervisor that is ending the colony does not change the code, nor that it ends."""
    colony.put("main", main(colony, 3))
    args = colony.payload("other", "signals", *([] if stubborn else ["USR1"]))
    colony.put("other", {"args": args, "stop": [["TERM", 60]]})
    colony.start()
    colony.wait_for_notes("main")
    colony.wait_for_notes("other")
    end(colony)
    colony.wait_for_notes("other", beginning="got TERM")
    os.kill(colony.supervisor_pid, signal.SIGTERM)
    if not stubborn:
        os.kill(colony.pids("other")[0], signal.SIGUSR1)
    while stubborn and not colony.has_exited():
        os.kill(colony.supervisor_pid, signal.SIGTERM)  # until a second one is seen: two at once may be one
    assert ended(colony) == 3
    # The first to ask gets a polite end.
    assert stubborn or colony.notes("other", "got USR1")


def test_a_copy_ends_it(colony: Colony) -> None:
    """Any copy is enough."""
    colony.put("main", {"args": [SLEEP, "100000"], "on_exit": "shutdown", "instances": 3})
    colony.start()
    for name in ("main:0", "main:1", "main:2"):
        colony.wait_until_running(name)
    os.kill(colony.wait_until_running("main:1"), signal.SIGKILL)
    assert ended(colony) == 137


@pytest.mark.parametrize(("args", "code"), [(["sh", "-c", "exit 9"], 9), (["/no/such"], 127)])
def test_giving_up_ends_it(colony: Colony, args: list[str], code: int) -> None:
    """With `on_give_up`, the colony ends with the last exit code once the process is given up, and not before."""
    keys = {"give_up": {"failures": 3, "within": 60}, "on_give_up": "shutdown"}
    colony.put("main", {"args": args, **keys})
    colony.put("other", {"args": [SLEEP, "100000"]})
    colony.launch(*QUICK)
    assert ended(colony) == code
    status = colony.status("main")
    assert status is not None
    assert status["instance"] == 3


def test_giving_up_while_we_are_away(colony: Colony) -> None:
    """Failures are counted across supervisors: the one that hears of the last of them ends the colony."""
    keys = {"give_up": {"failures": 2, "within": 60}, "on_give_up": "shutdown"}
    colony.put("main", {"args": [SLEEP, "100000"], **keys})
    colony.start(*QUICK)
    os.kill(colony.wait_until_running("main"), signal.SIGKILL)
    pid = colony.wait_until_running("main", instance=2)
    colony.kill()
    os.kill(pid, signal.SIGKILL)
    colony.wait_until_dead(pid)
    colony.launch(*QUICK)
    assert ended(colony) == 137
