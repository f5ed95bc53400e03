"""`memory_max`, `nice`, `oom_score_adj` and `limits`: what a process may take, read back from the kernel."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, Colony, fields_of, is_alive

RUN: dict[str, Any] = {"args": [SLEEP, "100000"]}
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
# A root without any of root's powers: as a plain user, but it may read everything here.
POWERLESS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
# What /proc/PID/limits calls each of them.
KERNEL_NAMES = {
    "as": "Max address space", "core": "Max core file size", "cpu": "Max cpu time", "data": "Max data size",
    "fsize": "Max file size", "memlock": "Max locked memory",
    "msgqueue": "Max msgqueue size", "nice": "Max nice priority", "nofile": "Max open files",
    "nproc": "Max processes", "rss": "Max resident set", "rtprio": "Max realtime priority",
    "rttime": "Max realtime timeout", "sigpending": "Max pending signals", "stack": "Max stack size",
}  # fmt: skip


def limits_of(pid: int) -> dict[str, tuple[str, str]]:
    """The limits of a process: name to soft and hard, as the kernel writes them."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    found = {}
    for name, title in KERNEL_NAMES.items():
        line = next(line for line in lines if line.startswith(title))
        soft, hard = line.removeprefix(title).split()[:2]
        found[name] = (soft, hard)
    return found


def nice_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


def oom_score_adj_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def history(colony: Colony, name: str) -> list[dict[str, Any]]:
    """How the instances of a process ended."""
    path = colony.state / "history" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events(colony: Colony, event: str, name: str) -> list[dict[str, Any]]:
    lines = (colony.state / "events").read_text().splitlines()
    return [one for one in map(json.loads, lines) if (one["event"], one["name"]) == (event, name)]


# Memory


def test_too_much_memory(colony: Colony) -> None:
    """What takes more than it may is restarted in an orderly way, and the reason is in status, events and history."""
    colony.put("big", {"args": colony.payload("big", "eat", 200), "memory_max": "100M", "kill_time": 60})
    colony.put("small", {"args": colony.payload("small", "eat", 10), "memory_max": "100M"})
    colony.start()
    colony.wait_until_running("big", instance=2)
    first = history(colony, "big")[0]
    assert "memory_max" in first["reason"]
    assert first["signal"] == "TERM"
    (stopping, *_) = events(colony, "stopping", "big")
    assert "memory_max" in stopping["reason"]
    status = colony.wait_for(
        lambda: (found := colony.status("small")) and found["memory"] and found, "its memory is measured"
    )
    assert 10 << 20 <= status["memory"] < 60 << 20
    assert (status["instance"], status["state"]) == (1, "RUNNING")


def test_children_count(colony: Colony) -> None:
    """The memory of everything that a process started is its own."""
    colony.put("web", {"args": colony.payload("web", "eat", 1, 4, 40), "memory_max": 120 << 20})
    colony.start()
    colony.wait_until_running("web", instance=2)
    assert "memory_max" in history(colony, "web")[0]["reason"]
    assert not any(is_alive(pid) for pid in colony.pids("web", "child")[:4])


def test_what_is_shared_counts_once(colony: Colony) -> None:
    """Memory that children share with their parent is no reason for a restart: it is there once."""
    colony.put("web", {"args": colony.payload("web", "eat", 80, 5), "memory_max": "150M"})
    colony.start()
    colony.wait_for_notes("web", 6, beginning="")
    status = colony.wait_for(
        lambda: (found := colony.status("web")) and (found["memory"] or 0) > 80 << 20 and found, "it is measured"
    )
    assert status["memory"] < 150 << 20
    assert (status["instance"], status["state"]) == (1, "RUNNING")


def test_a_live_limit(colony: Colony) -> None:
    """A limit applies to the instance that runs, another one replaces it, and without it nothing is measured."""
    config = {"args": colony.payload("web", "eat", 60)}
    colony.put("web", config)
    colony.start()
    pid = colony.wait_until_running("web")
    colony.wait_for_notes("web")
    colony.put("web", {**config, "memory_max": "500M"})
    colony.wait_for(lambda: ((colony.status("web") or {})["memory"] or 0) > 60 << 20, "it is measured")
    assert colony.wait_until_running("web", instance=1) == pid
    colony.put("web", {**config, "memory_max": "30M"})
    colony.wait_until_running("web", instance=2)
    colony.put("web", config)
    colony.scan()
    colony.wait_for_status("web", memory=None)
    instance = (colony.status("web") or {})["instance"]
    colony.wait_until_running("web", instance=instance)


def test_a_limit_survives_us(colony: Colony) -> None:
    """A new supervisor goes on measuring what it adopts."""
    config = {"args": colony.payload("web", "eat", 60), "memory_max": "500M"}
    colony.put("web", config)
    colony.start()
    pid = colony.wait_until_running("web")
    colony.wait_for_notes("web")
    colony.kill()
    colony.put("web", {**config, "memory_max": "30M"})
    colony.start()
    assert colony.wait_until_running("web", instance=2) != pid
    assert "memory_max" in history(colony, "web")[0]["reason"]


# Priorities and limits


def hard(name: str) -> int:
    return resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]


def shown(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def test_what_the_kernel_says(colony: Colony) -> None:
    """nice, oom_score_adj and limits are the process's, its children's as well, and nobody else's."""
    limits = {"nofile": [123, 456], "core": [0, "unlimited"] if hard("CORE") == -1 else 0, "RLIMIT_STACK": 1 << 20}
    keys = {"nice": os.getpriority(os.PRIO_PROCESS, 0) + 3, "oom_score_adj": 500, "limits": limits}
    script = f"{SLEEP} 100000 & echo child $! >> {colony.notes_directory}/web; wait"
    colony.put("web", {"args": ["/bin/sh", "-c", script], **keys})
    colony.put("plain", RUN)
    colony.start()
    colony.wait_for_notes("web", beginning="child ")
    pid = colony.wait_until_running("web")
    for one in (pid, colony.pids("web", "child")[0]):
        found = limits_of(one)
        assert (nice_of(one), oom_score_adj_of(one)) == (keys["nice"], 500)
        assert found["nofile"] == ("123", "456")
        assert found["core"] == ("0", shown(hard("CORE")) if hard("CORE") == -1 else "0")
        assert found["stack"] == (str(1 << 20), str(1 << 20))
    plain = colony.wait_until_running("plain")
    assert (nice_of(plain), oom_score_adj_of(plain)) == (nice_of(os.getpid()), oom_score_adj_of(os.getpid()))
    assert limits_of(plain)["stack"] == limits_of(os.getpid())["stack"]
    assert limits_of(plain)["nofile"] == limits_of(os.getpid())["nofile"]


def test_every_limit(colony: Colony) -> None:
    """Each name of a limit that is accepted can be set."""
    ours = limits_of(os.getpid())

    def value(limit: str) -> int | str:
        return limit if limit == "unlimited" else int(limit)

    for name, (_, most) in ours.items():
        colony.put(name, {**RUN, "limits": {name: [0 if name == "nice" else value(most), value(most)]}})
    colony.start()
    for name in ours:
        pid = colony.wait_until_running(name, timeout=20)
        assert limits_of(pid)[name][1] == ours[name][1]


def test_a_limit_of_nearly_nothing(colony: Colony) -> None:
    """The smallest limits do not keep the other settings from being made."""
    limits = {"nofile": 4, "core": 0, "fsize": 0}
    colony.put("web", {**RUN, "limits": limits, "nice": 15, "oom_score_adj": 700})
    colony.start()
    pid = colony.wait_until_running("web", timeout=10)
    assert (nice_of(pid), oom_score_adj_of(pid), limits_of(pid)["nofile"]) == (15, 700, ("4", "4"))


@needs_root
def test_with_a_user(open_colony: Colony) -> None:
    """What takes root is done before the user is changed."""
    colony, uid = open_colony, 23456
    colony.put("web", {**RUN, "uid": uid, "nice": -5, "oom_score_adj": 300, "limits": {"nofile": [100, 200]}})
    colony.put("late", {**RUN, "uid": uid, "limits": {"nice": 25}} if _has_resource() else RUN)
    colony.start()
    pid = colony.wait_until_running("web")
    colony.wait_until_running("late")
    assert fields_of(pid)["Uid"].split() == [str(uid)] * 4
    assert (nice_of(pid), oom_score_adj_of(pid), limits_of(pid)["nofile"]) == (-5, 300, ("100", "200"))


def _has_resource() -> bool:
    return bool(int(fields_of(os.getpid())["CapEff"], 16) >> 24 & 1)  # CAP_SYS_RESOURCE


def test_a_change_is_a_restart(colony: Colony) -> None:
    """None of these keys is live: another value is another instance, with it."""
    colony.put("web", {**RUN, "nice": 5})
    colony.start()
    assert nice_of(colony.wait_until_running("web")) == 5
    colony.put("web", {**RUN, "nice": 4, "limits": {"nofile": 99}})
    pid = colony.wait_until_running("web", instance=2)
    assert (nice_of(pid), limits_of(pid)["nofile"]) == (4, ("99", "99"))
    colony.put("web", RUN)
    pid = colony.wait_until_running("web", instance=3)
    assert (nice_of(pid), limits_of(pid)["nofile"]) == (nice_of(os.getpid()), limits_of(os.getpid())["nofile"])


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="no powers to give away")
def test_what_is_refused(colony: Colony) -> None:
    """Without the power to do so, each refusal is a reason that names the key and the value, and hurts nobody else."""
    refused = {
        "nice": ({"nice": -5}, "nice to -5"),
        "oom": ({"oom_score_adj": -900}, "oom_score_adj to -900"),
        "hard": ({"limits": {"nofile": hard("NOFILE") + 1}}, f"nofile to {hard('NOFILE') + 1}"),
        "memlock": ({"limits": {"memlock": [1, "unlimited"]}}, "memlock to 1 and unlimited"),
    }
    if hard("MEMLOCK") == -1:
        del refused["memlock"]
    for name, (keys, _) in refused.items():
        colony.put(name, {**RUN, **keys})
    colony.put("fine", {**RUN, "nice": 10, "oom_score_adj": 10, "limits": {"nofile": 64}})
    colony.start("-m", "0.2", "-M", "0.2", prefix=POWERLESS)
    pid = colony.wait_until_running("fine")
    assert (nice_of(pid), oom_score_adj_of(pid), limits_of(pid)["nofile"]) == (10, 10, ("64", "64"))
    for name, (_, said) in refused.items():
        reason = colony.wait_for_status(name, state="BACKOFF")["reason"]
        assert said in reason, reason
        assert "cannot" in reason, reason
        assert ("permitted" in reason) or ("ermission" in reason) or ("allowed" in reason), reason
        colony.put(name, RUN)
    for name in refused:
        colony.wait_until_running(name)
    assert colony.wait_until_running("fine", instance=1) == pid
    assert "Traceback" not in colony.log()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"nice": 20}, "nice"),
        ({"nice": "5"}, "nice"),
        ({"oom_score_adj": 1001}, "oom_score_adj"),
        ({"limits": {"nofiles": 5}}, "nofiles"),
        ({"limits": {"nofile": -1}}, "nofile"),
        ({"limits": {"locks": 5}}, "locks"),  # which Linux has none of
        ({"limits": {"nofile": [5, 4]}}, "nofile"),
        ({"limits": {"nofile": "many"}}, "limits"),
        ({"limits": {"nofile": [1, 2, 3]}}, "limits"),
        ({"memory_max": "lots"}, "memory_max"),
        ({"memory_max": 0}, "memory_max"),
        ({"memory_max": "-5M"}, "memory_max"),
    ],
)
def test_what_makes_no_sense(colony: Colony, keys: dict[str, Any], said: str) -> None:
    """Values that cannot be are a problem that names the key."""
    colony.put("web", {**RUN, **keys})
    colony.start()
    assert said in colony.wait_for_problem("web")
