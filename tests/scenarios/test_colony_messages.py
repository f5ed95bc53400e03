"""Messages: what each does, in which order, and how it is answered."""

from __future__ import annotations

import json
import os
import time

from colony import SLEEP, Colony, is_alive

RUN = {"args": [SLEEP, "100000"]}


def test_restart(colony: Colony) -> None:
    """RESTART ends the instance, starts the next, names the process in its answer, and goes from the directory."""
    for name in ("web", "echo"):
        colony.put(name, RUN)
    colony.start()
    pid, other = colony.wait_until_running("web"), colony.wait_until_running("echo")
    message = colony.post({"type": "RESTART", "name": "web"})
    answer = colony.wait_for_answer(message)
    assert (answer["accepted"], answer["state"], answer["names"]) == (True, "done", ["web"])
    assert colony.wait_until_running("web", instance=2) != pid
    assert not is_alive(pid)
    assert colony.wait_until_running("echo", instance=1) == other
    colony.wait_for(lambda: not list(colony.messages.iterdir()), "the message is deleted")


def test_restart_all(colony: Colony) -> None:
    """RESTART-ALL restarts every process that should run, and none that should not."""
    for name in ("web", "echo", "stopped"):
        colony.put(name, RUN)
    colony.put("disabled", {**RUN, "enabled": False})
    colony.put("bad", b"{")
    colony.start()
    for name in ("web", "echo", "stopped"):
        colony.wait_until_running(name)
    assert colony.send({"type": "STOP", "name": "stopped"})["state"] == "done"
    answer = colony.send({"type": "RESTART-ALL"})
    assert answer["state"] == "done", answer
    assert sorted(answer["names"]) == ["echo", "web"]
    for name in ("web", "echo"):
        colony.wait_until_running(name, instance=2)
    assert colony.wait_for_status("stopped", state="STOPPED")["instance"] == 1
    assert colony.wait_for_status("disabled", state="STOPPED")["instance"] == 0


def test_restart_group(colony: Colony) -> None:
    """RESTART-GROUP restarts the members of a group, whether `group` is a list or one string."""
    colony.put("one", {**RUN, "group": ["front", "all"]})
    colony.put("two", {**RUN, "group": "front"})
    colony.put("three", {**RUN, "group": "f"})
    colony.put("four", RUN)
    colony.start()
    for name in ("one", "two", "three", "four"):
        colony.wait_until_running(name)
    answer = colony.send({"type": "RESTART-GROUP", "group": "front"})
    assert answer["state"] == "done", answer
    assert sorted(answer["names"]) == ["one", "two"]
    for name in ("one", "two"):
        colony.wait_until_running(name, instance=2)
    for name in ("three", "four"):
        colony.wait_until_running(name, instance=1)


def test_stop_and_start(colony: Colony) -> None:
    """STOP stops and keeps stopped, START starts again; both are answered when they are done."""
    colony.put("web", RUN)
    colony.start()
    pid = colony.wait_until_running("web")
    answer = colony.send({"type": "STOP", "name": "web"})
    assert (answer["accepted"], answer["state"], answer["names"]) == (True, "done", ["web"])
    assert not is_alive(pid)
    status = colony.wait_for_status("web", state="STOPPED", wanted="down")
    assert status["pid"] is None
    colony.scan()
    colony.wait_for_status("web", state="STOPPED", instance=1)
    answer = colony.send({"type": "START", "name": "web"})
    assert (answer["accepted"], answer["state"], answer["names"]) == (True, "done", ["web"])
    colony.wait_until_running("web", wanted="up", instance=2)


def test_start_and_stop_of_what_is_so_already(colony: Colony) -> None:
    """START of a running and STOP of a stopped process change nothing and are done."""
    colony.put("web", RUN)
    colony.start()
    pid = colony.wait_until_running("web")
    assert colony.send({"type": "START", "name": "web"})["state"] == "done"
    assert colony.wait_until_running("web", instance=1) == pid
    for _ in range(2):
        assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    colony.wait_for_status("web", state="STOPPED", instance=1)


def test_restart_starts_what_is_stopped(colony: Colony) -> None:
    """RESTART of a stopped process starts it; so does RESTART of one that exited and is never restarted."""
    colony.put("web", RUN)
    colony.put("once", {"args": colony.payload("once", "leave", 0), "restart": "never"})
    colony.start()
    colony.wait_until_running("web")
    colony.wait_for_status("once", state="EXITED")
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    colony.wait_until_running("web", instance=2, wanted="up")
    colony.send({"type": "RESTART", "name": "once"})
    colony.wait_for_notes("once", 2)


def test_restart_during_backoff(colony: Colony) -> None:
    """A RESTART or RESTART-ALL of a process in backoff starts it at once, however long its delay."""
    colony.put("web", {"args": colony.payload("web", "leave", 1)})
    colony.start("-m", "300", "-M", "300")
    for count, message in enumerate(({"type": "RESTART", "name": "web"}, {"type": "RESTART-ALL"}), start=2):
        colony.wait_for_status("web", state="BACKOFF", instance=count - 1)
        colony.post(message)
        colony.wait_for_notes("web", count, timeout=20)
    colony.wait_for_status("web", state="BACKOFF", instance=3)


def test_restart_is_never_delayed(colony: Colony) -> None:
    """A restart asked for is no death: many in a row, each short-lived, bring no backoff."""
    colony.put("web", RUN)
    colony.start("-t", "300", "-m", "300", "-M", "300")
    for instance in range(1, 6):
        colony.wait_until_running("web", timeout=20, instance=instance)
        assert colony.send({"type": "RESTART", "name": "web"}, timeout=20)["state"] == "done"


def test_unknown_names(colony: Colony) -> None:
    """A message to a name or group nobody has is answered `failed` with the reason, and hinders no other."""
    colony.put("web", RUN)
    colony.start()
    colony.wait_until_running("web")
    posted = [colony.post({"type": kind, "name": "nosuch"}) for kind in ("RESTART", "STOP", "START")]
    posted.append(colony.post({"type": "RESTART-GROUP", "group": "nosuch"}))
    last = colony.post({"type": "RESTART", "name": "web"})
    for message in posted:
        answer = colony.wait_for_answer(message)
        assert answer["state"] == "failed"
        assert "nosuch" in answer["why"]
    assert colony.wait_for_answer(last)["state"] == "done"
    colony.wait_until_running("web", instance=2)
    colony.wait_for(lambda: not list(colony.messages.iterdir()), "all messages are gone")


def test_a_disabled_process(colony: Colony) -> None:
    """RESTART and START of a disabled process are answered with the reason and start nothing."""
    colony.put("web", {"args": colony.payload("web", "serve"), "enabled": False})
    colony.start()
    colony.wait_for_status("web", state="STOPPED", wanted="down")
    for kind in ("RESTART", "START"):
        answer = colony.send({"type": kind, "name": "web"})
        assert answer["state"] == "failed"
        assert answer["why"]
    assert colony.notes("web") == []


POISON = {
    "empty": b"",
    "not-json": b"restart web",
    "list": b'["RESTART", "web"]',
    "number": b"7",
    "no-type": b'{"name": "web"}',
    "unknown-type": b'{"type": "EXPLODE", "name": "web"}',
    "number-type": b'{"type": 5}',
    "no-name": b'{"type": "RESTART"}',
    "number-name": b'{"type": "RESTART", "name": 5}',
    "null-name": b'{"type": "RESTART", "name": null}',
    "latin": b'{"type": "RESTART", "name": "caf\xe9"}',
    "zeros": b"\0" * 100,
    "deep": b"[" * 100_000,
    "huge": b'{"type": "RESTART", "name": "web", "x": "' + b"y" * 3_000_000 + b'"}',
}


def test_poison(colony: Colony) -> None:
    """A message that makes no sense goes to rejected/ with its reason, is answered, and never delays the next."""
    colony.put("web", RUN)
    colony.start()
    colony.wait_until_running("web")
    for name, data in POISON.items():
        colony.post(data, f"0-{name}")
    good = colony.post({"type": "RESTART", "name": "web"})
    assert colony.wait_for_answer(good)["state"] == "done"
    colony.wait_until_running("web", instance=2)
    answered = (colony.state / "answers" / good).stat().st_mtime
    for name, data in POISON.items():
        rejected = colony.state / "rejected" / f"0-{name}"
        colony.wait_for(rejected.exists, f"{name} is rejected")
        reason = colony.state / "rejected" / f"0-{name}.reason"
        colony.wait_for(reason.exists, f"{name} has a reason")
        assert reason.read_text().strip()
        assert rejected.read_bytes() == data
        answer = colony.wait_for_answer(f"0-{name}")
        assert (answer["accepted"], answer["state"]) == (False, "failed"), name
        assert answer["why"]
        assert answered < reason.stat().st_mtime, f"{name} was rejected before the next message was done"
    colony.wait_for(lambda: not list(colony.messages.iterdir()), "all messages are gone")
    assert colony.wait_until_running("web", instance=2)


def test_a_slowly_written_message(colony: Colony) -> None:
    """A message written in place and in pieces is handled when it is whole; others are handled meanwhile."""
    for name in ("web", "echo"):
        colony.put(name, RUN)
    colony.start()
    for name in ("web", "echo"):
        colony.wait_until_running(name)
    data = json.dumps({"type": "RESTART", "name": "web"}).encode()
    with (colony.messages / "0-slow").open("wb", buffering=0) as target:
        target.write(data[:7])
        assert colony.send({"type": "RESTART", "name": "echo"})["state"] == "done"
        assert colony.wait_until_running("web", instance=1)
        target.write(data[7:])
    assert colony.wait_for_answer("0-slow")["state"] == "done"
    colony.wait_until_running("web", instance=2)
    assert not (colony.state / "rejected" / "0-slow").exists()


def test_order(colony: Colony) -> None:
    """Messages are handled in the order of their times, and those of the same time by name."""
    for name in ("by-time-up", "by-time-down", "by-name-up", "by-name-down"):
        colony.put(name, RUN)
    sent = [  # file name, time, message; the last word to each process decides
        ("z1", 100, {"type": "STOP", "name": "by-time-up"}),
        ("a1", 200, {"type": "START", "name": "by-time-up"}),
        ("z2", 300, {"type": "START", "name": "by-time-down"}),
        ("a2", 400, {"type": "STOP", "name": "by-time-down"}),
        ("z3", 500, {"type": "START", "name": "by-name-up"}),
        ("a3", 500, {"type": "STOP", "name": "by-name-up"}),
        ("z4", 600, {"type": "STOP", "name": "by-name-down"}),
        ("a4", 600, {"type": "START", "name": "by-name-down"}),
    ]
    now = time.time_ns() - 10**9
    for name, offset, message in sent:
        colony.post(message, name)
        os.utime(colony.messages / name, ns=(now + offset, now + offset))
    colony.start()
    for name, _, _ in sent:
        colony.wait_for_answer(name)
    for name in ("by-time-up", "by-name-up"):
        colony.wait_until_running(name, wanted="up")
    for name in ("by-time-down", "by-name-down"):
        colony.wait_for_status(name, state="STOPPED", wanted="down")


def test_a_hundred_at_once(colony: Colony) -> None:
    """Of a hundred messages at once, poison among them, each is answered, and the last word to each process holds."""
    for name in ("up", "down"):
        colony.put(name, RUN)
    colony.start()
    for name in ("up", "down"):
        colony.wait_until_running(name)
    kinds = ["STOP", "START"]
    posted, poison = [], []
    for number in range(45):
        posted.append(colony.post({"type": kinds[number % 2], "name": "down"}))
        posted.append(colony.post({"type": kinds[(number + 1) % 2], "name": "up"}))
        if number % 5 == 0:
            poison.append(colony.post(b"{" if number % 2 else b'{"type": "NONSENSE"}'))
    posted.append(colony.post({"type": "RESTART", "name": "nosuch"}))
    for message in posted:
        colony.wait_for_answer(message)
    for message in poison:
        assert colony.wait_for_answer(message)["state"] == "failed"
    colony.wait_until_running("up", wanted="up")
    colony.wait_for_status("down", state="STOPPED", wanted="down")
    colony.wait_for(lambda: not list(colony.messages.iterdir()), "all messages are gone")


def test_messages_wait_for_a_supervisor(colony: Colony) -> None:
    """A message written while no supervisor runs is there until one comes and handles it."""
    colony.put("web", RUN)
    message = colony.post({"type": "STOP", "name": "web"}, "000Message.4711")  # a name as upstream gave them
    assert (colony.messages / message).exists()
    colony.start()
    assert colony.wait_for_answer(message)["state"] == "done"
    colony.wait_for_status("web", state="STOPPED", wanted="down")


def test_stop_survives_our_death(colony: Colony) -> None:
    """What was stopped stays stopped over SIGKILL of the supervisor, and over its orderly end."""
    for name in ("web", "echo"):
        colony.put(name, RUN)
    colony.start()
    for name in ("web", "echo"):
        colony.wait_until_running(name)
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    colony.kill()
    colony.start()
    colony.wait_until_running("echo", instance=1)
    colony.wait_for_status("web", state="STOPPED", wanted="down")
    assert colony.stop() == 0
    colony.start()
    colony.wait_until_running("echo")
    colony.scan()
    colony.wait_for_status("web", state="STOPPED", wanted="down")
    assert colony.send({"type": "START", "name": "web"})["state"] == "done"
    colony.wait_until_running("web")


def test_what_is_no_message_harms_nothing(colony: Colony) -> None:
    """Directories, FIFOs, dangling links, ignored and non-UTF-8 names among the messages hinder no message."""
    (colony.messages / "0directory").mkdir()
    os.mkfifo(colony.messages / "0fifo")
    (colony.messages / "0dangling").symlink_to("nowhere")
    for name in (".hidden", "x.new", "x~", "x.tmp", "#x#"):
        (colony.messages / name).write_text(json.dumps({"type": "STOP", "name": "web"}))
    with open(os.path.join(os.fsencode(colony.messages), b"0caf\xe9"), "wb") as target:
        target.write(b'{"type": "SCAN"}')
    colony.put("web", RUN)
    colony.start()
    colony.wait_until_running("web")
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    colony.wait_until_running("web", instance=2)
    assert (colony.messages / ".hidden").exists()


def test_scan(colony: Colony) -> None:
    """SCAN has the directories read now: a change that nothing else tells of for ten minutes is found."""
    elsewhere = colony.root / "real"
    elsewhere.write_text(json.dumps({"args": [SLEEP, "100000"], "enabled": False}))
    (colony.config / "web").symlink_to(elsewhere)
    colony.start("--frequency", "600")
    colony.wait_for_status("web", state="STOPPED", enabled=False)
    elsewhere.write_text(json.dumps({"args": [SLEEP, "100000"], "enabled": False, "group": "found"}))
    assert colony.send({"type": "SCAN"})["state"] == "done"
    colony.wait_for_status("web", group=["found"])
