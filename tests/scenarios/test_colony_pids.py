"""The directory of pid files."""

from __future__ import annotations

import os
from pathlib import Path

from colony import SLEEP, Colony


def pid_in(path: Path) -> int | None:
    """The pid in a pid file, which holds nothing but it and a newline; None without a file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    assert text == f"{int(text)}\n"
    return int(text)


def test_pid_files(colony: Colony) -> None:
    """--pid DIR holds one file per running process with its pid and a newline, gone when it ends."""
    pids = colony.root / "pids"
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.put("echo", {"args": [SLEEP, "100000"]})
    colony.put("once", {"args": colony.payload("once", "leave", 0), "restart": "never"})
    colony.start("--pid", str(pids))
    pid = colony.wait_until_running("web")
    colony.wait_for(lambda: pid_in(pids / "web") == pid, "the pid file is there")
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    again = colony.wait_until_running("web", instance=2)
    colony.wait_for(lambda: pid_in(pids / "web") == again, "the pid file is the new one")
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    colony.wait_for(lambda: not (pids / "web").exists(), "the pid file is gone")
    colony.wait_for_status("once", state="EXITED")
    colony.wait_for(lambda: os.listdir(pids) == ["echo"], "only the running process has a pid file")
    assert colony.stop() == 0
    assert os.listdir(pids) == []


def test_pid_files_after_our_death(colony: Colony) -> None:
    """After SIGKILL and restart of the supervisor the pid files say what runs now."""
    pids = colony.root / "pids"
    for name in ("stays", "dies", "removed"):
        colony.put(name, {"args": [SLEEP, "100000"], "restart": "never"})
    colony.start("--pid", str(pids))
    running = {name: colony.wait_until_running(name) for name in ("stays", "dies", "removed")}
    colony.wait_for(lambda: {name: pid_in(pids / name) for name in running} == running, "the pid files are there")
    colony.kill()
    assert {name: pid_in(pids / name) for name in running} == running
    os.kill(running["dies"], 9)
    colony.wait_until_dead(running["dies"])
    colony.remove("removed")
    colony.put("added", {"args": [SLEEP, "100000"]})
    colony.start("--pid", str(pids))
    added = colony.wait_until_running("added")
    expected = {"stays": running["stays"], "added": added}
    colony.wait_for(
        lambda: {name: pid_in(pids / name) for name in os.listdir(pids)} == expected, "the pid files are right"
    )


def test_without_the_option_there_are_none(colony: Colony) -> None:
    """If --pid is not given, no pid files are written."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    pid = colony.wait_until_running("web")
    holding = [
        path
        for path in colony.root.rglob("*")
        if path.is_file() and path.stat().st_size < 20 and path.read_bytes() == b"%d\n" % pid
    ]
    assert holding == []
