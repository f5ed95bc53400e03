"""What once went wrong: each test failed before it was mended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from colony import SLEEP, Colony, is_alive, put_whole

STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"


def test_a_start_while_the_keeper_is_replaced_is_made_once(colony: Colony) -> None:
    """A file dropped while a new keeper comes up starts one instance, not two."""
    colony.put("first", {"args": colony.payload("first", "serve")})
    colony.start()
    colony.wait_until_running("first")
    for number in range(8):
        keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
        os.kill(keeper, signal.SIGKILL)
        name = f"late-{number}"
        colony.put(name, {"args": colony.payload(name, "serve")})
        colony.wait_for_notes(name)
        pid = colony.wait_until_running(name)
        assert [one for one in colony.pids(name) if is_alive(one)] == [pid]


def test_many_last_words_are_all_forwarded(colony: Colony) -> None:
    """When a hundred processes print and end at once, every line is forwarded, and the end of the colony is clean."""
    names = [f"p{number}" for number in range(100)]
    for name in names:
        colony.put(name, {"args": ["/bin/sh", "-c", f"echo one {name}; echo two {name}"], "restart": "never"})
    colony.start()
    for name in names:
        colony.wait_for(lambda name=name: len(colony.lines(name)) >= 2, f"{name} has said two lines")
    assert colony.stop() == 0


def test_what_was_asked_for_survives_us_in_the_middle(colony: Colony) -> None:
    """A STOP that was accepted holds although the supervisor is killed while the process is still being stopped."""
    colony.put("web", {"args": ["/bin/sh", "-c", STUBBORN], "kill_time": 60})
    colony.start()
    pid = colony.wait_until_running("web")
    message = colony.post({"type": "STOP", "name": "web"})
    colony.wait_for(lambda: colony.answer(message), "it is accepted")
    colony.kill()
    os.kill(pid, signal.SIGKILL)
    colony.wait_until_dead(pid)
    colony.start()
    colony.wait_for_status("web", state="STOPPED", wanted="down", instance=1)
    assert colony.answer(message) is not None
    assert colony.wait_for_answer(message)["state"] in ("done", "failed")


def test_a_removal_leaves_no_trace_in_the_log(colony: Colony) -> None:
    """Removing processes raises nothing; messages that come in the same moment are answered."""
    colony.put("bad", {"args": ["/bin/false"]})
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    colony.wait_for_status("bad", state="BACKOFF")
    colony.wait_until_running("web")
    os.kill(colony.supervisor_pid, signal.SIGSTOP)
    colony.remove("bad")
    messages = [colony.post({"type": "RESTART", "name": "web"}) for _ in range(3)]
    os.kill(colony.supervisor_pid, signal.SIGCONT)
    for message in messages:
        assert colony.wait_for_answer(message)["state"] == "done"
    colony.wait_until_forgotten("bad")
    assert "Traceback" not in colony.log()


def test_nothing_starts_while_everything_stops(colony: Colony) -> None:
    """Neither a file nor a message that comes while the colony ends keeps it from ending."""
    colony.put("slow", {"args": ["/bin/sh", "-c", STUBBORN], "kill_time": 1})
    colony.start()
    colony.wait_until_running("slow")
    os.kill(colony.supervisor_pid, signal.SIGTERM)
    colony.put("new", {"args": [SLEEP, "100000"]})
    colony.post({"type": "RESTART", "name": "slow"})
    os.kill(colony.supervisor_pid, signal.SIGHUP)
    assert colony.wait_for_exit() == 0
    assert colony.processes() == {}


def test_a_lost_socket_is_made_anew(colony: Colony) -> None:
    """When somebody removed the keeper's socket, the next supervisor still finds the keeper."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    pid = colony.wait_until_running("web")
    (colony.state / "keeper.sock").unlink()
    colony.kill()
    colony.start()
    assert colony.wait_until_running("web", instance=1) == pid
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"


def test_removals_are_not_put_off_for_ever(colony: Colony) -> None:
    """A process is stopped soon after its file is removed although another file is rewritten all the time."""
    colony.put("busy", {"args": [SLEEP, "100000"]})
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    pid = colony.wait_until_running("web")
    colony.remove("web")

    def rewritten() -> bool:
        colony.put("busy", {"args": [SLEEP, "100000"], "threshold": 1})
        return not is_alive(pid)

    colony.wait_for(rewritten, "web is stopped", timeout=10)


def test_a_directory_removed_file_by_file_stops_nothing(colony: Colony) -> None:
    """`rm -r` of the config directory removes the files first, and still stops nothing; without files it is back."""
    for number in range(20):
        colony.put(f"p{number}", {"args": [SLEEP, "100000"]})
    colony.start("--frequency", "0.2")
    pids = [colony.wait_until_running(f"p{number}") for number in range(20)]
    shutil.rmtree(colony.config)
    colony.wait_for(lambda: (colony.supervisor() or {}).get("problems"), "it is told")
    assert all(is_alive(pid) for pid in pids)
    again = colony.root / "again"
    again.mkdir()
    put_whole(again, "p0", b'{"args": ["%s", "100000"]}' % SLEEP.encode())
    again.rename(colony.config)
    colony.wait_until_dead(*pids[1:])
    colony.wait_until_running("p0")


def test_a_message_that_cannot_be_removed_is_handled_once(colony: Colony) -> None:
    """A request in a directory where nothing may be removed is carried out once, not at every look."""
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.start("--frequency", "0.1")
    colony.wait_for_notes("web")
    # Append only: even root may remove nothing there.
    if subprocess.run(["chattr", "+a", colony.messages], capture_output=True, check=False).returncode != 0:
        pytest.skip("this filesystem knows no append-only directories")
    try:
        put = colony.messages / "restart"
        put.write_bytes(b'{"type": "RESTART", "name": "web"}')
        colony.wait_for_answer("restart")
        colony.wait_until_running("web", instance=2)
        for _ in range(3):
            colony.put("web2", {"args": [SLEEP, "100000"]})
            colony.wait_until_running("web2")
            colony.remove("web2")
            colony.wait_until_forgotten("web2")
        assert (colony.status("web") or {})["instance"] == 2
    finally:
        subprocess.run(["chattr", "-a", colony.messages], check=True)


def test_a_name_that_looks_like_anothers_escape(colony: Colony) -> None:
    """A bad name and a good one that is written like its escaped form are two processes."""
    good, bad = "w\\xff", b"w\xff"
    colony.put(good, {"args": [SLEEP, "100000"]})
    colony.put(bad, b"{}")
    colony.start()
    pid = colony.wait_until_running(good)
    os.unlink(os.fsencode(colony.config) + b"/" + bad)
    colony.scan()
    assert is_alive(pid)
    assert colony.send({"type": "RESTART", "name": good})["state"] == "done"


def test_the_stop_reaches_a_new_keeper(colony: Colony) -> None:
    """A stop asked for while there is no keeper is carried out by the next one, politely."""
    colony.put("web", {"args": colony.payload("web", "signals")})
    colony.start("-k", "60")
    colony.wait_for_notes("web")
    os.kill(colony.wait_for(colony.keeper_pid, "there is a keeper"), signal.SIGKILL)
    colony.remove("web")
    colony.wait_for(lambda: any("TERM" in line for line in colony.notes("web", "got ")), "it got TERM")
    colony.put("other", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("other")
    assert colony.status("web") is not None
    os.kill(colony.pids("web")[0], signal.SIGKILL)
    colony.wait_until_forgotten("web")
