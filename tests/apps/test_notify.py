"""Alerts: the real program, real commands and HTTP servers, real colonies; whoever is killed at whatever moment."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.python.usage import UsageError

from colony import SLEEP, Colony, is_alive, read_json
from hook import Answer, Hook, free_port
from ncolony.apps import letters, notify
from ncolony.apps.receivers import retry_after
from ncolony.decide.alerts import KINDS, Alert, Held, Limit

DOCS = Path(__file__).parent.parent.parent / "docs"
FIELDS = {
    "version", "id", "event", "resolved", "name", "at", "since", "host", "config", "reason", "status", "exit",
    "held_back", "held",
}  # fmt: skip


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = 60) -> Any:
    """What the condition returns once it is true."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came true: {what}"
        time.sleep(0.01)
    return found


class Yard:
    """A colony's directories without a supervisor, what is written there as one would, and who tells of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.state, self.log = root, root / "state", root / "notify.log"
        for name in ("conf", "messages", "state/status", "state/history"):
            (root / name).mkdir(parents=True)
        self.notifiers: list[subprocess.Popen[bytes]] = []
        self.hooks: list[Hook] = []
        # Held for a supervisor that runs.
        self._supervisor: subprocess.Popen[bytes] | None = None

    def hook(self, how: Callable[[int], Answer | None] = lambda number: (200, {}), **more: Any) -> Hook:
        self.hooks.append(Hook(how, **more))
        return self.hooks[-1]

    def supervise(self) -> None:
        """Have somebody hold the lock by which a supervisor is known."""
        script = "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print(flush=True); sys.stdin.read()"
        self._supervisor = subprocess.Popen(
            [sys.executable, "-S", "-c", script, str(self.state / "supervisor.lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._supervisor.stdout
        self._supervisor.stdout.readline()

    def command(self, *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "twisted", "--log-format=text", "ncolony-notify"),
            *("--messages", str(self.root / "messages"), "--config", str(self.root / "conf")),
            *("--state", str(self.state), "--hostname", "here", *options),
        ]

    def notify(self, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Start one that tells, and wait until it has read what there is."""
        before = self._files()
        with self.log.open("ab") as log:
            self.notifiers.append(
                subprocess.Popen(
                    self.command(*options), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **env}
                )
            )
        wait_for(lambda: self._files() - before or self.notifiers[-1].poll() is not None, "it has begun")
        return self.notifiers[-1]

    def _files(self) -> set[tuple[str, int]]:
        return {
            (path.name, path.stat().st_mtime_ns)
            for path in [*self.state.glob("notify-to/*.json"), *self.root.rglob("own")]
        }

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run one that ends by itself."""
        return subprocess.run(self.command(*options), capture_output=True, text=True, timeout=60, check=False)

    def happen(self, event: str, name: str = "web", at: float | None = None, **more: Any) -> None:
        """Note an event, as a supervisor does."""
        record = {"at": time.time() if at is None else at, "event": event, "name": name, "reason": "why", **more}
        with (self.state / "events").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def rotate(self) -> None:
        (self.state / "events").rename(self.state / "events.old")

    def end(self, instance: int, name: str = "web", lines: tuple[str, ...] = (), **more: Any) -> None:
        """An instance ends by itself: its record, then the event."""
        record = {
            "id": f"{name}-{instance}", "instance": instance, "pid": 1, "started": 1.0, "at": time.time(), "lived": 0.5,
            "code": 3, "signal": None, "core": False, "oom": False, "cpu": None, "rss_kb": None, "text": "exit code 3",
            "reason": "", "lines": list(lines), **more,
        }  # fmt: skip
        with (self.state / "history" / name).open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.happen("backoff", name, instance=instance)

    def status(self, name: str, state: str, **more: Any) -> None:
        (self.state / "status" / f"{name}.new").write_text(json.dumps({"name": name, "state": state, **more}))
        (self.state / "status" / f"{name}.new").rename(self.state / "status" / name)

    def close(self) -> None:
        for notifier in self.notifiers:
            notifier.kill()
            notifier.wait()
        for hook in self.hooks:
            hook.close()
        if self._supervisor is not None:
            self._supervisor.communicate()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """Directories of a colony; nothing outlives the test."""
    found = Yard(tmp_path)
    yield found
    found.close()


def stop(notifier: subprocess.Popen[bytes]) -> int:
    """SIGTERM, and the exit code."""
    notifier.terminate()
    return notifier.wait(30)


def told(hook: Hook) -> list[tuple[str, str, bool]]:
    return [(one["name"], one["event"], one["resolved"]) for one in hook.letters()]


def wait_for_told(hook: Hook, *expected: tuple[str, str, bool]) -> None:
    try:
        wait_for(lambda: told(hook) == list(expected), "all was told", 30)
    except AssertionError:
        assert told(hook) == list(expected)


def copies(path: Path) -> str:
    """A command that appends what it is told to a file."""
    return shlex.join(["/bin/sh", "-c", f"cat >>{shlex.quote(str(path))}"])


# What is told


def test_a_letter(yard: Yard) -> None:
    """A URL gets a POST of JSON: what happened, the status, and how the instance ended, with its last lines."""
    hook = yard.hook()
    yard.status("web", "BACKOFF", reason="exit code 3 after 0.5 s")
    yard.notify("--url", hook.url, "--on", "exit", "--header", "X-Team: web", "--header", "authorization: Bearer 1")
    before = time.time()
    yard.end(7, lines=("one", "two"))
    wait_for_told(hook, ("web", "exit", False))
    [letter] = hook.letters()
    assert letter.keys() == FIELDS
    assert before - 1 <= letter.pop("at") == letter.pop("since") <= time.time()
    status, past = letter.pop("status"), letter.pop("exit")
    assert len(letter.pop("id")) == 16
    assert letter == {
        "version": 1, "event": "exit", "resolved": False, "name": "web", "host": "here",
        "config": str(yard.root / "conf"), "reason": "exit code 3 after 0.5 s", "held_back": 0, "held": [],
    }  # fmt: skip
    assert (status["state"], status["reason"]) == ("BACKOFF", "exit code 3 after 0.5 s")
    assert (past["instance"], past["code"], past["lines"]) == (7, 3, ["one", "two"])
    headers = {name.lower(): value for name, value in hook.requests[0][0].items()}
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("ncolony-notify/")
    assert (headers["x-team"], headers["authorization"]) == ("web", "Bearer 1")


def test_a_command(yard: Yard) -> None:
    """A command gets the same at its standard input, and the main fields in its environment."""
    got = yard.root / "got"
    script = f"cat >{got}.json; env | grep ^NCOLONY_ | sort >{got}.new; mv {got}.new {got}"
    yard.notify("--exec", shlex.join(["/bin/sh", "-c", script]), NCOLONY_NAME="tell", NCOLONY_INSTANCE="ours")
    for number in (1, 2, 3):
        yard.end(number, lines=("last\twords",))
    wait_for(got.exists, "it was told")
    letter = json.loads(Path(f"{got}.json").read_bytes())
    assert letter.keys() == FIELDS
    assert letter["exit"]["instance"] == 3
    reason = "ended 3 times within 300 s: exit code 3 after 0.5 s"
    found = dict(line.split("=", 1) for line in got.read_text().splitlines())
    assert float(found.pop("NCOLONY_AT")) == pytest.approx(letter["at"], abs=1e-5)
    assert found == {
        "NCOLONY_EVENT": "crash-loop", "NCOLONY_NAME": "web", "NCOLONY_RESOLVED": "", "NCOLONY_REASON": reason,
        "NCOLONY_HOST": "here", "NCOLONY_CONFIG": str(yard.root / "conf"), "NCOLONY_ID": letter["id"],
        "NCOLONY_STATE": "", "NCOLONY_EXIT": "exit code 3", "NCOLONY_HELD_BACK": "0",
        "NCOLONY_TEXT": f"here: web: crash-loop: {reason}", "NCOLONY_INSTANCE": "ours",
    }  # fmt: skip
    assert set(found) | {"NCOLONY_AT"} - {"NCOLONY_INSTANCE"} <= {"NCOLONY_INSTANCE", *in_docs("NCOLONY_")}


def in_docs(beginning: str) -> set[str]:
    words = (DOCS / "notify.md").read_text().replace("`", " ").replace(",", " ").split()
    return {word for word in words if word.startswith(beginning)}


def test_every_field_is_explained() -> None:
    """Each field of a letter, and each kind of event, has a row on the page."""
    page = (DOCS / "notify.md").read_text()
    rows = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("|"))
    assert {word for word in [*FIELDS, *KINDS, letters.HELD_BACK] if f"`{word}`" not in rows} == set()


def test_all_kinds(yard: Yard) -> None:
    """Every kind is told when it happens, and when it is over."""
    hook = yard.hook()
    yard.supervise()
    yard.notify("--url", hook.url, "--on", "all", "--crash-loop", "2/60", "--steady", "0.2")
    for name, bad in (("a", "fatal"), ("b", "unhealthy"), ("c", "late"), ("d", "problem"), ("e", "rolled-back")):
        yard.happen(bad, name)
        yard.happen(bad, name)
    yard.end(1, "f")
    yard.end(2, "f")
    yard.end(1, "g", oom=True, signal="KILL", code=None)
    expected = [
        ("a", "fatal", False), ("b", "unhealthy", False), ("c", "late", False), ("d", "problem", False),
        ("e", "rolled-back", False), ("f", "exit", False), ("f", "crash-loop", False), ("g", "oom", False),
    ]  # fmt: skip
    wait_for_told(hook, *expected)
    yard.happen("gone", "e")
    for name, good in (("a", "running"), ("b", "healthy"), ("c", "on-time"), ("d", "healed"), ("f", "adopted")):
        yard.happen(good, name)
    wait_for(lambda: len(hook.requests) == 14, "all is over")
    over = {(name, event) for name, event, resolved in told(hook) if resolved}
    assert over == {(name, event) for name, event, _ in expected if name != "g"} - {("f", "exit")}
    assert len({one["id"] for one in hook.letters()}) == 14


def test_which_are_told_of(yard: Yard) -> None:
    """Only those of the names and groups are told of, and never the one that tells."""
    first, second = yard.hook(), yard.hook()
    for name, group in (("web:0", ["front"]), ("web:1", ["front"]), ("db", []), ("tell:0", ["front"])):
        yard.status(name, "BACKOFF", group=group)
    (yard.root / "conf" / "new").write_text('{"args": ["x"], "group": "front"}')
    yard.notify("--url", first.url, "--name", "web", "--name", "d*")
    yard.notify("--url", second.url, "--group", "front", NCOLONY_NAME="tell:0")
    for name in ("tell:0", "tell:1", "new", "db", "web:1", "other", "web:0"):
        yard.happen("fatal", name)
    wait_for_told(first, ("db", "fatal", False), ("web:1", "fatal", False), ("web:0", "fatal", False))
    wait_for_told(second, ("new", "fatal", False), ("web:1", "fatal", False), ("web:0", "fatal", False))


def test_the_first_time(yard: Yard) -> None:
    """What was wrong before, and is well, is not told when one begins; what is wrong now is."""
    hook = yard.hook()
    long_ago = time.time() - 10_000
    for number in range(3):
        yard.happen("backoff", "old", at=long_ago + number, instance=number + 1)
    yard.happen("running", "old", at=long_ago + 10)
    yard.happen("unhealthy", "sick", at=long_ago + 20)
    yard.happen("exited", "job", at=long_ago + 30, instance=1)
    yard.notify("--url", hook.url, "--on", "all")
    wait_for_told(hook, ("sick", "unhealthy", False))
    assert hook.letters()[0]["at"] == pytest.approx(long_ago + 20)


def test_what_no_event_tells(yard: Yard) -> None:
    """Where an event was lost, the status tells in time that something is wrong, or well again."""
    hook = yard.hook()
    yard.supervise()
    yard.status("web", "FATAL", reason="no such program")
    yard.status("broken", "FATAL", reason="no args", problem="no args")
    yard.status("fine", "RUNNING")
    yard.notify("--url", hook.url, "--steady", "0.2")
    wait_for(lambda: len(hook.requests) == 2, "both are told")
    assert sorted(told(hook)) == [("broken", "problem", False), ("web", "fatal", False)]
    yard.status("web", "RUNNING")
    wait_for(lambda: ("web", "fatal", True) in told(hook), "it is well")


def test_without_a_supervisor_nothing_is_well(yard: Yard) -> None:
    """While no supervisor runs nobody knows, and nothing is said to be well again."""
    hook = yard.hook()
    yard.notify("--url", hook.url, "--steady", "0.1")
    yard.happen("fatal")
    yard.happen("running")
    yard.happen("fatal", "db")
    wait_for_told(hook, ("web", "fatal", False), ("db", "fatal", False))
    yard.supervise()
    wait_for_told(hook, ("web", "fatal", False), ("db", "fatal", False), ("web", "fatal", True))


def test_formats(yard: Yard) -> None:
    """A chat gets its text, escaped; a command with text gets what people read."""
    hook, got = yard.hook(), yard.root / "got"
    yard.notify("--url", hook.url, "--on", "exit", "--format", "slack")
    yard.notify("--exec", copies(got), "--on", "exit", "--format", "text")
    yard.end(1, "a<b>&c", lines=("one ```", "\x1b[31mtwo"))
    wait_for(lambda: hook.requests, "the chat was told")
    found = json.loads(hook.requests[0][1])
    assert found.keys() == {"text"}
    assert found["text"].startswith("here: a&lt;b&gt;&amp;c: exit: exit code 3 after 0.5 s\n```\n")
    assert "one '''" in found["text"]
    assert found["text"].count("```") == 2
    wait_for(lambda: got.exists() and "two" in got.read_text(), "the command was told")
    lines = got.read_text().splitlines()
    assert lines[0] == "here: a<b>&c: exit: exit code 3 after 0.5 s"
    assert lines[-2:] == ["| one ```", "| \\x1b[31mtwo"]


# Receivers that do not do as they should


def test_tried_again(yard: Yard) -> None:
    """After an answer that may be different next time, the same letter comes again, and the next one after it."""
    hook = yard.hook(lambda number: (500, {}) if number == 0 else (204, {}))
    notifier = yard.notify("--url", hook.url)
    yard.happen("fatal", "a")
    yard.happen("fatal", "b")
    wait_for(lambda: len(hook.requests) == 3, "all is told")
    assert [name for name, _, _ in told(hook)] == ["a", "a", "b"]
    assert len({one["id"] for one in hook.letters()}) == 2
    assert stop(notifier) == 0
    log = yard.log.read_text()
    assert "it answered 500 Internal Server Error: no way; trying again: here: a: fatal: why" in log
    assert "is back" in log
    assert "secret-path" not in log


def test_retry_after(yard: Yard) -> None:
    """A receiver that says when it wants to be asked again is left alone until then."""
    times: list[float] = []

    def how(number: int) -> Answer:
        times.append(time.monotonic())
        return (429, {"Retry-After": "3"}) if number == 0 else (200, {})

    hook = yard.hook(how)
    yard.notify("--url", hook.url)
    yard.happen("fatal", "a")
    wait_for_told(hook, ("a", "fatal", False), ("a", "fatal", False))
    assert times[1] - times[0] >= 3


@pytest.mark.parametrize("status", [400, 404, 410, 413])
def test_not_tried_again(yard: Yard, status: int) -> None:
    """A letter that the receiver does not want is given up, and the next one tells that there was one."""
    hook = yard.hook(lambda number: (status, {}) if number == 0 else (200, {}))
    yard.notify("--url", hook.url)
    yard.happen("fatal", "a")
    wait_for_told(hook, ("a", "fatal", False))
    wait_for(lambda: "given up: here: a: fatal" in yard.log.read_text(), "it is given up")
    yard.happen("fatal", "b")
    wait_for_told(hook, ("a", "fatal", False), ("b", "fatal", False))
    assert hook.letters()[1]["held_back"] == 1
    assert hook.letters()[1]["held"] == [{"event": "fatal", "name": "a", "resolved": False}]


def test_a_receiver_that_wants_nothing_is_not_flooded(yard: Yard) -> None:
    """What is given up makes no letter of its own while the receiver takes none."""
    hook = yard.hook(lambda number: (404, {}))
    notifier = yard.notify("--url", hook.url)
    for name in "abcde":
        yard.happen("fatal", name)
    wait_for(lambda: yard.log.read_text().count("given up") == 5, "all are given up")
    assert stop(notifier) == 0
    assert [name for name, _, _ in told(hook)] == list("abcde")


def test_retries_end(yard: Yard) -> None:
    """After so many tries a letter is given up, so that one that cannot be taken does not hold up all others."""
    hook = yard.hook(lambda number: (500, {}) if number < 2 else (200, {}))
    yard.notify("--url", hook.url, "--retries", "1")
    yard.happen("fatal", "a")
    yard.happen("fatal", "b")
    a, b = ("a", "fatal", False), ("b", "fatal", False)
    # The letter about b was written before the one about a was given up.
    wait_for_told(hook, a, a, b, ("", "held-back", False))
    assert hook.letters()[3]["held"] == [{"event": "fatal", "name": "a", "resolved": False}]


def test_nobody_listens(yard: Yard) -> None:
    """Letters wait for a receiver that is not there, across our own end, and arrive in order when it is."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/hook"
    notifier = yard.notify("--url", url)
    for name in "abc":
        yard.happen("fatal", name)
    wait_for(lambda: "cannot tell" in yard.log.read_text(), "it was tried")
    assert "refused" in yard.log.read_text()
    assert stop(notifier) == 0
    hook = yard.hook(port=port)
    yard.notify("--url", url)
    wait_for_told(hook, ("a", "fatal", False), ("b", "fatal", False), ("c", "fatal", False))


def test_a_receiver_that_hangs_delays_no_other(yard: Yard) -> None:
    """One that never answers has its time, and is tried again; another one is told at once."""
    hanging, other = yard.hook(lambda number: None), yard.hook()
    yard.notify("--url", hanging.url, "--url", other.url, "--exec", f"{SLEEP} 1000", "--timeout", "1")
    for name in "abc":
        yard.happen("fatal", name)
    wait_for_told(other, *((name, "fatal", False) for name in "abc"))
    wait_for(lambda: len(hanging.requests) >= 2, "it is tried again")
    log = wait_for(lambda: "end within 1 s" in (log := yard.log.read_text()) and log, "the command is ended")
    assert "it did not answer within 1 s" in log


def test_a_command_that_hangs_is_killed_with_its_children(yard: Yard) -> None:
    """When its time is over, everything in the command's group is killed."""
    pids = yard.root / "pids"
    script = f"{SLEEP} 1000 & echo $! $$ >{pids}.new; mv {pids}.new {pids}; wait"
    yard.notify("--exec", shlex.join(["/bin/sh", "-c", script]), "--timeout", "0.5", "--retries", "0")
    yard.happen("fatal")
    wait_for(pids.exists, "it runs")
    found = [int(pid) for pid in pids.read_text().split()]
    wait_for(lambda: not any(map(is_alive, found)), "they are dead")


def test_commands_that_fail(yard: Yard) -> None:
    """What a command says by its exit code, or the lack of it, is said, and it is tried again."""
    count = yard.root / "count"
    script = f"echo >>{count}; test $(wc -l <{count}) -gt 1 || exit 7"
    yard.notify("--exec", shlex.join(["/bin/sh", "-c", script]), "--exec", "/no/such/program x")
    yard.happen("fatal")
    wait_for(lambda: "told command sh: here: web: fatal: why" in yard.log.read_text(), "it is told at last")
    log = yard.log.read_text()
    assert "cannot tell command sh: it ended with exit code 7; trying again" in log
    assert "cannot run '/no/such/program': No such file or directory" in log


def test_the_rate(yard: Yard) -> None:
    """No more letters go than the rate says; then one tells how many there were, and which."""
    hook = yard.hook()
    yard.notify("--url", hook.url, "--rate", "3/4")
    for number in range(40):
        yard.happen("fatal", f"web{number}")
    wait_for(lambda: len(hook.requests) == 4, "the rest is told in one")
    *first, last = hook.letters()
    assert [one["name"] for one in first] == ["web0", "web1", "web2"]
    assert (last["event"], last["name"], last["held_back"]) == ("held-back", "", 37)
    assert [one["name"] for one in last["held"]] == [f"web{number}" for number in range(3, 23)]
    assert last["at"] >= first[0]["at"] + 3.9


def test_what_waits_is_bounded(yard: Yard) -> None:
    """While a receiver is away so many letters wait, and what is too much is told of as held back."""
    notifier = yard.notify("--url", f"http://127.0.0.1:{free_port()}/", "--rate", "1000/300")
    for number in range(450):
        yard.happen("fatal", f"web{number}")
    [path] = (yard.state / "notify-to").glob("*.json")
    wait_for(lambda: (read_json(path) or {})["limit"]["count"] == 250, "the rest is held back")
    found = read_json(path) or {}
    assert [one["name"] for one in found["queue"]] == [f"web{number}" for number in range(200)]
    assert stop(notifier) == 0


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A private certificate authority, and a certificate of its for 127.0.0.1."""
    root = tmp_path_factory.mktemp("ca")
    found = {name: root / name for name in ("ca.pem", "ca.key", "host.pem", "host.key", "host.csr", "ext")}
    found["ext"].write_text("subjectAltName=IP:127.0.0.1\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ours", "-days", "2"],
        ["req", *key, "-keyout", "host.key", "-out", "host.csr", "-subj", "/CN=host"],
        ["x509", "-req", "-in", "host.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
         "-extfile", "ext", "-out", "host.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *command], cwd=root, check=True, capture_output=True)
    return found


def test_tls(yard: Yard, authority: dict[str, Path]) -> None:
    """https works with a private authority that is named, and not with one that is not."""
    hook = yard.hook(tls=(authority["host.pem"], authority["host.key"]))
    trusting = yard.run("--url", hook.url, "--test", "--ca", str(authority["ca.pem"]))
    assert trusting.returncode == 0, trusting
    assert [one["event"] for one in hook.letters()] == ["test"]
    wary = yard.run("--url", hook.url, "--test")
    assert wary.returncode == 1
    assert "certificate" in wary.stdout
    assert len(hook.requests) == 1


def test_https_without_tls(yard: Yard) -> None:
    """Without what https needs, one line says what to install."""
    script = (
        "import sys, runpy; sys.modules['OpenSSL'] = None; import importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *more: None if name == 'OpenSSL' else find(name, *more);"
        "sys.argv[0] = 'twist'; runpy.run_module('twisted', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", script, *yard.command("--url", "https://127.0.0.1:1/", "--test")[3:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "cannot start: https needs TLS, which is not installed: pip install 'ncolony[tls]'"


# Options


def test_a_test(yard: Yard) -> None:
    """--test sends one letter to each receiver, ends with 0 or 1, and leaves nothing behind."""
    hook, got = yard.hook(lambda number: (200, {}) if number == 0 else (403, {})), yard.root / "got"
    assert yard.run("--url", hook.url, "--exec", copies(got), "--test").returncode == 0
    assert [one["event"] for one in hook.letters()] == ["test"]
    assert json.loads(got.read_text())["event"] == "test"
    done = yard.run("--url", hook.url, "--exec", copies(got), "--test")
    assert done.returncode == 1
    assert "it answered 403" in done.stdout
    assert len(hook.requests) == 2
    assert not (yard.state / "notify-to").exists()


def test_secret_files(yard: Yard) -> None:
    """URL and headers may come from files, and headers may change while one runs."""
    hook, url, headers = yard.hook(), yard.root / "url", yard.root / "headers"
    url.write_text(f"{hook.url}\n")
    headers.write_text("# ours\nAuthorization: Bearer one\n\n")
    yard.notify("--url-file", str(url), "--header-file", str(headers))
    yard.happen("fatal", "a")
    wait_for(lambda: len(hook.requests) == 1, "the first is told")
    headers.write_text("Authorization: Bearer two\n")
    yard.happen("fatal", "b")
    wait_for(lambda: len(hook.requests) == 2, "the second is told")
    assert [found["Authorization"] for found, _ in hook.requests] == ["Bearer one", "Bearer two"]


BASE = ["--messages", "m", "--config", "c"]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--config", "c", "--exec", "x"], "--messages DIR is required"),
        (["--messages", "m", "--exec", "x"], "--config DIR is required"),
        (BASE, "--exec COMMAND, --url URL or --url-file PATH is required"),
        ([*BASE, "--exec", ""], "--exec: expected a command"),
        ([*BASE, "--exec", "'"], "--exec: No closing quotation"),
        ([*BASE, "--url", "ftp://x/"], "--url: expected a URL that begins with http:// or https://"),
        ([*BASE, "--url", "http:///x"], "--url: expected a URL that begins with http:// or https://"),
        ([*BASE, "--url", "http://x/ y"], "--url: expected a URL that begins with http:// or https://"),
        ([*BASE, "--url", "http://a:b@x/"], "--url: expected a URL without a password in it"),
        ([*BASE, "--url-file", "/no/such"], "--url-file: cannot read /no/such: No such file or directory"),
        ([*BASE, "--exec", "x", "--on", "fire"], "--on: expected some of crash-loop, fatal"),
        ([*BASE, "--exec", "x", "--rate", "3"], "--rate: expected NUMBER/SECONDS"),
        ([*BASE, "--exec", "x", "--rate", "0/3"], "--rate: expected NUMBER/SECONDS"),
        ([*BASE, "--exec", "x", "--crash-loop", "3/x"], "--crash-loop: expected NUMBER/SECONDS"),
        ([*BASE, "--exec", "x", "--timeout", "0"], "--timeout: expected seconds, more than 0"),
        ([*BASE, "--exec", "x", "--steady", "nan"], "--steady: expected seconds, more than 0"),
        ([*BASE, "--exec", "x", "--retries", "-1"], "--retries: expected a number"),
        ([*BASE, "--exec", "x", "--format", "xml"], "--format: expected one of json, slack, text"),
        ([*BASE, "--exec", "x", "--header", "x"], "--header: expected a header such as 'Name: value'"),
        ([*BASE, "--exec", "x", "--header", "X: a\nY: b"], "--header: expected a header such as 'Name: value'"),
        ([*BASE, "--exec", "x", "--exec", "y", "--state-file", "f"], "--state-file is for one receiver"),
        ([*BASE, "--exec", "x", "y"], "unexpected argument 'y'"),
    ],
)
def test_options_that_make_no_sense(options: list[str], wrong: str) -> None:
    """Each wrong option is refused in one line that names it."""
    with pytest.raises(UsageError) as refused:
        notify.Options().parseOptions(options)
    assert str(refused.value).startswith(wrong)
    assert "\n" not in str(refused.value)


def test_defaults() -> None:
    """Without options all kinds are told but single ends; what counts as well lasts as long as a crash loop."""
    options = notify.Options()
    options.parseOptions([*BASE, "--exec", "mail -s 'it is bad' ops"])
    assert options["exec"] == [["mail", "-s", "it is bad", "ops"]]
    assert set(options["on"]) == set(KINDS) - {"exit"}
    assert (options["crash-loop"], options["steady"], options["rate"]) == ((3, 300.0), 300.0, (20, 300.0))
    options = notify.Options()
    options.parseOptions([*BASE, "--exec", "x", "--on", "fatal,oom", "--on", "late", "--crash-loop", "5/20"])
    assert (options["on"], options["steady"]) == (["fatal", "oom", "late"], 20.0)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            ["--exec", "x", "--header-file", "/no/such"],
            "--header-file: cannot read /no/such: No such file or directory",
        ),
        (["--url", "https://127.0.0.1:1/", "--ca", "/no/such"], "--ca: cannot use /no/such: No such file or directory"),
        (["--url", "https://127.0.0.1:1/", "--ca", "/dev/null"], "--ca: cannot use /dev/null: there is no certificate"),
        (["--exec", "x", "--state-file", "/no/such/file"], "cannot use /no/such/file.lock: No such file or directory"),
    ],
)
def test_what_cannot_start(yard: Yard, options: list[str], why: str) -> None:
    """What is wrong with a file is said in one line."""
    done = yard.run(*options)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot start: {why}")
    assert done.stderr.count("\n") == 1


def test_two_for_one_receiver(yard: Yard) -> None:
    """A second one for the same receiver refuses to start, unless it has a file of its own."""
    yard.notify("--exec", "true", "--on", "fatal")
    done = yard.run("--exec", "true")
    assert done.returncode == 1
    assert done.stderr.startswith("cannot start: another ncolony-notify tells command true and remembers it in ")
    hook = yard.hook()
    yard.notify("--url", hook.url, "--state-file", str(yard.root / "own"))
    wait_for((yard.root / "own").exists, "it has begun")
    yard.happen("fatal")
    wait_for_told(hook, ("web", "fatal", False))


def test_who_may_read_the_file(yard: Yard) -> None:
    """What is kept, which has last lines in it, is for its user alone."""
    yard.notify("--exec", "true")
    directory = yard.state / "notify-to"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"120", 120.0),
        (b"0", 0.0),
        (b"Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (b"", None),
        (b"-3", None),
        (b"soon", None),
        (b"\xff", None),
    ],
)
def test_retry_after_values(value: bytes, seconds: float | None) -> None:
    """Retry-After is a number of seconds or a date; what is neither is not heeded."""
    assert retry_after(value, now=1000.0) == seconds


def test_the_text_of_what_was_held_back() -> None:
    """The line for people says how many more there were, which, and what is over."""
    limit = Limit(count=30, held=(Held("fatal", "a", False), Held("late", "b\n", True)))
    record = letters.letter(Alert("oom", 1.0, "signal KILL"), "web", host="here", config="/c", limit=limit)
    expected = "here: web: oom: signal KILL (and 30 more: a fatal, b\\n late is over and 28 others)"
    assert letters.headline(record) == expected
    over = letters.letter(Alert("late", 1.0, "on time for 3 s", True), "web", host="here", config="/c")
    assert letters.headline(over) == "here: web: late is over: on time for 3 s"


# Whoever is killed


def test_stopped_in_time(yard: Yard) -> None:
    """SIGTERM gives what is due a second, and ends with 0; what did not arrive in it comes after the next start."""
    hook = yard.hook(lambda number: None if number == 0 else (200, {}))
    notifier = yard.notify("--url", hook.url, "--timeout", "60")
    yard.happen("fatal", "a")
    wait_for(lambda: len(hook.requests) == 1, "it is under way")
    began = time.monotonic()
    assert stop(notifier) == 0
    assert time.monotonic() - began < 10
    yard.notify("--url", hook.url)
    wait_for_told(hook, ("a", "fatal", False), ("a", "fatal", False))


def test_stopped_with_a_command_under_way(yard: Yard) -> None:
    """SIGTERM ends a command that takes longer than a second, and leaves nothing of it."""
    pids = yard.root / "pids"
    script = f"{SLEEP} 1000 & echo $! $$ >{pids}.new; mv {pids}.new {pids}; wait"
    notifier = yard.notify("--exec", shlex.join(["/bin/sh", "-c", script]), "--timeout", "600")
    yard.happen("fatal")
    wait_for(pids.exists, "it runs")
    assert stop(notifier) == 0
    wait_for(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()), "they are dead")


def ends(hook: Hook) -> list[int]:
    """The instances of web that were told to have ended."""
    return [one["exit"]["instance"] for one in hook.letters() if one["name"] == "web"]


SINGLE_ENDS = ("--on", "exit", "--rate", "1000/1")


def test_what_happens_meanwhile(yard: Yard) -> None:
    """What happened while nobody told, across a rotation of the events too, is told afterwards, once."""
    hook = yard.hook()
    notifier = yard.notify("--url", hook.url, *SINGLE_ENDS)
    yard.end(1)
    wait_for(lambda: ends(hook) == [1], "the first is told")
    assert stop(notifier) == 0
    yard.end(2)
    yard.rotate()
    yard.end(3)
    notifier = yard.notify("--url", hook.url, *SINGLE_ENDS)
    wait_for(lambda: len(ends(hook)) >= 3, "what happened meanwhile is told")
    yard.end(4)
    yard.rotate()
    yard.end(5)
    wait_for(lambda: len(ends(hook)) >= 5, "what happens now is told")
    assert stop(notifier) == 0
    notifier = yard.notify("--url", hook.url, *SINGLE_ENDS)
    assert stop(notifier) == 0
    # Twice: our place is in a file that is gone. What is left of what was read is not told again.
    for number in (6, 7, 8):
        yard.rotate()
        yard.end(number)
    notifier = yard.notify("--url", hook.url, *SINGLE_ENDS)
    wait_for(lambda: 8 in ends(hook), "what is left is told")
    yard.end(9)
    wait_for(lambda: 9 in ends(hook), "the next one is told")
    assert stop(notifier) == 0
    # Another file with the same in it, as after a restore.
    shutil.copy(yard.state / "events", yard.state / "copy")
    (yard.state / "copy").rename(yard.state / "events")
    yard.end(10)
    notifier = yard.notify("--url", hook.url, *SINGLE_ENDS)
    wait_for(lambda: 10 in ends(hook), "the last one is told")
    assert ends(hook) == [1, 2, 3, 4, 5, 7, 8, 9, 10]


def test_killed_at_rest(yard: Yard) -> None:
    """Once a letter has arrived and that is noted, it does not come again, whoever is killed."""
    hook = yard.hook()
    notifier = yard.notify("--url", hook.url, *SINGLE_ENDS)
    [path] = (yard.state / "notify-to").glob("*.json")
    for number in (1, 2, 3):
        yard.end(number)
        wait_for(lambda number=number: number in ends(hook), "it is told")  # type: ignore[misc]
        wait_for(lambda: not (read_json(path) or {})["queue"], "that is noted", 5)
        notifier.kill()
        notifier.wait()
        notifier = yard.notify("--url", hook.url, *SINGLE_ENDS)
    yard.end(4)
    wait_for(lambda: 4 in ends(hook), "the last one is told")
    assert ends(hook) == [1, 2, 3, 4]


def test_a_file_that_makes_no_sense(yard: Yard) -> None:
    """A file that is damaged is said to be so, and one begins anew."""
    hook = yard.hook()
    (yard.root / "own").write_text('{"version": 1, "queue": [3]')
    yard.happen("fatal", "a")
    yard.notify("--url", hook.url, "--state-file", str(yard.root / "own"))
    wait_for_told(hook, ("a", "fatal", False))
    assert f"cannot use {yard.root}/own: " in yard.log.read_text()


def test_a_file_that_cannot_be_written(yard: Yard) -> None:
    """Where nothing can be remembered that is said, and alerts go out all the same."""
    hook, directory = yard.hook(), yard.root / "place"
    directory.mkdir()
    yard.notify("--url", hook.url, "--state-file", str(directory / "own"))
    shutil.rmtree(directory)
    yard.happen("fatal")
    wait_for_told(hook, ("web", "fatal", False))
    assert f"cannot write {directory}/own: No such file or directory; alerts may come twice" in yard.log.read_text()


def test_a_disk_that_is_full_keeps_nobody_busy(yard: Yard) -> None:
    """Where nothing can be written that is tried again now and then, and not all the time."""
    none = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (0, 0))
    hook = yard.hook()
    command = yard.command("--url", hook.url)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=none) as notifier:
        yard.notifiers.append(notifier)
        assert notifier.stdout
        for line in notifier.stdout:
            if b"alerts may come twice" in line:
                break
        yard.happen("fatal")
        wait_for_told(hook, ("web", "fatal", False))
        before, until = turns(notifier.pid), time.monotonic() + 2
        wait_for(lambda: time.monotonic() > until, "two seconds have passed")
        assert turns(notifier.pid) - before < 40
        assert stop(notifier) == 0


def turns(pid: int) -> int:
    """How often a process has gone to sleep, having had something to do."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)$", text, re.MULTILINE)[0])


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment(yard: Yard, seed: int) -> None:
    """However often it is killed in the middle of its work, no alert is lost, and at most one a kill comes twice."""
    chance, hook, kills, count, rotated = random.Random(seed), yard.hook(), 0, 0, 0
    options = ("--url", hook.url, *SINGLE_ENDS)
    notifier = yard.notify(*options)
    for _ in range(8):
        for _ in range(chance.randrange(1, 30)):
            if chance.random() < 0.05:  # more than is dealt with at once
                with (yard.state / "events").open("a") as file:
                    file.write('{"at": 1, "event": "message", "name": ""}\n' * 500)
            count += 1
            yard.end(count)
            if chance.random() < 0.1:
                # What is rotated away twice before it is read is nobody's any more.
                wait_for(partial(have_ended, hook, rotated), "what was rotated away is read")
                yard.rotate()
                rotated = count
                yard.happen("running", "other")
        time.sleep(chance.random() * 0.3)
        notifier.kill()
        notifier.wait()
        kills += 1
        notifier = yard.notify(*options)
    wait_for(partial(have_ended, hook, count), "all is told")
    assert stop(notifier) == 0
    assert len({one["id"] for one in hook.letters()}) == count
    assert len(ends(hook)) - count <= kills
    assert {one["event"] for one in hook.letters()} == {"exit"}


def have_ended(hook: Hook, count: int) -> bool:
    """Whether all of them up to this one are told of."""
    return set(range(1, count + 1)) <= set(ends(hook))


# A real colony


def as_process(colony: Colony, *options: str) -> dict[str, Any]:
    """The entry of the config directory that the documentation shows, with the options of a test."""
    args = [sys.executable, "-m", "twisted", "--log-format=text", "ncolony-notify"]
    places = ["--messages", str(colony.messages), "--config", str(colony.config), "--state", str(colony.state)]
    return {"args": [*args, *places, *options], "env_inherit": ["*"]}


def begun(colony: Colony) -> Callable[[], bool]:
    return lambda: any(colony.state.glob("notify-to/*.json"))


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.close()


def test_a_colony(colony: Colony, hook: Hook) -> None:
    """A process of the colony itself tells of a crash loop, of one given up, of a bad file, and of their ends."""
    options = ("--url", hook.url, "--crash-loop", "3/5", "--steady", "1", "--on", "all")
    colony.put("tell", as_process(colony, *options))
    colony.start("-m", "0.1", "-M", "0.1", "-t", "0.5")
    colony.wait_for(begun(colony), "it has begun")
    ready = colony.root / "ready"
    loop = ["/bin/sh", "-c", f"test -e {ready} && exec {SLEEP} 1000; echo I am not ready; exit 3"]
    colony.put("web", {"args": loop})
    colony.put("lost", {"args": loop, "give_up": {"failures": 2, "within": 60}})
    colony.put("bad", b'{"args": 3}')
    expected = {("web", "crash-loop", False), ("lost", "fatal", False), ("bad", "problem", False)}
    colony.wait_for(lambda: expected <= set(told(hook)), "all is told")
    [letter] = [one for one in hook.letters() if one["event"] == "crash-loop"]
    assert letter["exit"]["code"] == 3
    assert letter["exit"]["lines"] == ["I am not ready"]
    ready.touch()
    colony.send({"type": "START", "name": "lost"})
    colony.remove("bad")
    over = {(name, event, True) for name, event, _ in expected}
    colony.wait_for(lambda: over <= set(told(hook)), "all is well")
    colony.send({"type": "SIGNAL", "name": "web", "signal": "KILL"})
    colony.wait_for(lambda: told(hook)[-1] == ("web", "exit", False), "a single end is told")
    assert hook.letters()[-1]["exit"]["signal"] == "KILL"
    lasting = [one for one in told(hook) if one[1] != "exit"]
    assert len(lasting) == len(set(lasting)) == 6
    assert not any(name == "tell" for name, _, _ in told(hook))


def test_a_colony_whose_supervisor_is_killed(colony: Colony, hook: Hook) -> None:
    """Alerts go on, each once, whoever is killed: the supervisor, the one that tells, or both."""
    colony.put("tell", as_process(colony, "--url", hook.url, "--crash-loop", "3/60", "--steady", "2"))
    colony.start("-m", "0.1", "-M", "0.1", "-t", "0.5")
    colony.wait_for(begun(colony), "it has begun")
    ready = colony.root / "ready"
    loop = ["/bin/sh", "-c", f"test -e {ready} && exec {SLEEP} 1000; exit 3"]
    colony.put("web", {"args": loop})
    colony.wait_for(lambda: told(hook) == [("web", "crash-loop", False)], "it is told")
    colony.kill()
    colony.start("-m", "0.1", "-M", "0.1", "-t", "0.5")
    teller = colony.wait_until_running("tell")
    os.kill(teller, signal.SIGKILL)
    colony.wait_for_status("tell", state="RUNNING", instance=2)
    colony.put("db", {"args": loop})
    expected = [("web", "crash-loop", False), ("db", "crash-loop", False)]
    colony.wait_for(lambda: told(hook) == expected, "the next one is told")
    ready.touch()
    colony.wait_for(lambda: len(hook.requests) == 4, "both are well")
    assert sorted(told(hook)[2:]) == [("db", "crash-loop", True), ("web", "crash-loop", True)]


def test_told_by_itself_about_itself(colony: Colony) -> None:
    """One whose command always fails, and that is killed again and again, tells nothing of itself."""
    got = colony.root / "got"
    script = shlex.join(["/bin/sh", "-c", f"cat >>{got}; exit 1"])
    colony.put("tell", as_process(colony, "--exec", script, "--crash-loop", "2/60", "--on", "all"))
    colony.start("-m", "0.1", "-M", "0.1")
    for instance in (1, 2, 3):
        pid = colony.wait_until_running("tell", instance=instance)
        colony.wait_for(begun(colony), "it has begun")
        os.kill(pid, signal.SIGKILL)
    colony.wait_until_running("tell", instance=4)
    colony.put("web", b"{}")
    colony.wait_for(lambda: got.exists() and got.read_bytes().endswith(b"\n"), "the other is told of")
    assert {json.loads(line)["name"] for line in got.read_text().splitlines()} == {"web"}
