"""Nothing that a process, a file's name or a message says reaches a terminal or a line of a log as anything but text.

`test_output` (log in text and JSON, history, `status --long`), `test_kept_output_on_a_terminal` (`ctl logs`),
`test_a_line_cannot_pass_for_anothers`,
`test_reasons_and_problems` (config files), `test_names_of_files` (config and messages), `test_messages`,
`test_what_a_process_calls_itself` (`holding`), `test_names_that_deceive`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from colony import SLEEP, Colony
from ncolony.model.names import DECEPTIVE

# Sequences that set a terminal's title, clear it, answer for the user; line ends of all kinds; turned writing.
TRICKS = [
    "\x1b]0;title\x07", "\x1b[2J", "\x1b[6n", "\x9b31m", "\r[web] overwritten", "\x0b", "\x0c", "\x08\x08", "\x7f",
    "\x85", *DECEPTIVE,
]  # fmt: skip


def tricks_in(text: str) -> list[str]:
    """Characters that are not for a terminal."""
    text = re.sub("(?m)^\x1e(?={)", "", text)  # between the records of Twisted's log
    controls = [c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    return controls + [c for c in text if c in DECEPTIVE]


def is_clean(colony: Colony, *extra: str) -> None:
    """What people look at: the log, the tables, and the files that a shell would show."""
    shown = [colony.log(), *extra]
    for words in (["status"], ["status", "--long"], ["why"], ["events"], ["check"]):
        where = ["--state", str(colony.state)] if words != ["check"] else []
        shown.append(colony.ctl(*where, *words, check=False))
    shown += [(colony.state / name).read_text() for name in ("events", "supervisor.json")]
    for directory in ("status", "answers", "history", "rejected"):
        shown += [path.read_text(errors="replace") for path in (colony.state / directory).iterdir()
                  if directory != "rejected" or path.name.endswith(".reason")]  # fmt: skip
    for text in shown:
        assert tricks_in(text) == [], text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_output(colony: Colony, log_format: str) -> None:
    """What a process prints is shown escaped in the log, the history and the tables; in `logs` it is as it came."""
    text = "".join(f"a{trick}b\n" for trick in TRICKS) + "\udcff\udcfe invalid\n"
    printed = text.encode("utf-8", "surrogateescape")
    script = f"import os, sys; os.write(1, {printed!r}); sys.exit(3)"
    colony.put("web", {"args": [sys.executable, "-I", "-S", "-c", script], "restart": "never"})
    colony.start(log_format=log_format)
    colony.wait_for_status("web", state="EXITED")
    colony.wait_for(lambda: "xfe invalid" in colony.log(), "everything is forwarded")
    colony.wait_for(lambda: (colony.state / "history" / "web").exists(), "the end is recorded")
    is_clean(colony, colony.ctl("--state", str(colony.state), "history", "web", "--lines"))
    assert colony.output("web") == printed
    if log_format == "json":
        lines = [json.loads(line[1:]).get("line") for line in colony.log().split("\n") if line]
        assert "a\x1b[2Jb" in lines


def test_kept_output_on_a_terminal(colony: Colony) -> None:
    """`ctl logs` shows kept output escaped where it writes to a terminal, and as it came where it does not."""
    printed = "".join(f"a{trick}b\n" for trick in TRICKS).encode()
    script = f"import os, signal; os.write(1, {printed!r}); signal.pause()"
    colony.put("web", {"args": [sys.executable, "-I", "-S", "-c", script]})
    colony.start()
    colony.wait_for(lambda: colony.output("web") == printed, "everything is kept")
    command = [
        sys.executable,
        "-m",
        "ncolony",
        "ctl",
        *colony.ctl_places(),
        "--state",
        str(colony.state),
        "logs",
        "web",
    ]
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs) as shower:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # that is how a terminal ends
                while part := os.read(ours, 1 << 16):
                    shown += part
        assert shower.returncode == 0
    finally:
        os.close(ours)
    text = shown.decode().replace("\r\n", "\n")
    assert "a\\x1b[2Jb" in text
    assert tricks_in(text) == []
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert done.stdout == printed


def test_a_line_cannot_pass_for_anothers(colony: Colony) -> None:
    """A printed line bears the name of its process in front, whatever it says and however long it is."""
    fake = "2026-01-01T00:00:00+0000 [ncolony#info] db: running, pid 1"
    script = f"""
import os
for text in ("[db] hello", "{fake}", "a\\r[db] hello", "a\\n[db] hello", "x" * 70000 + "[db] hello"):
    os.write(1, text.encode() + b"\\n")
os.write(1, b"done\\n")
import signal; signal.pause()
"""
    colony.put("web", {"args": [sys.executable, "-I", "-S", "-c", script]})
    colony.start()
    colony.wait_for(lambda: "done" in colony.lines("web"), "everything is forwarded")
    for line in colony.log().splitlines():
        if "[db] hello" in line or "db: running" in line:
            assert re.match(r"\S+ \[ncolony\.output#info\] \[web\] ", line), line


def test_reasons_and_problems(colony: Colony) -> None:
    """Nothing in a config file reaches a terminal as anything but text, by way of a problem, a warning or a reason."""
    trick = "".join(TRICKS)
    values = {
        "args": [["/no/such" + trick], ["no-such" + trick], [5, trick]],
        "cwd": ["/no/such" + trick],
        "uid": ["user" + trick],
        "gid": ["group" + trick],
        "env_file": ["/no/such" + trick],
        "env_secret": [{"A" + trick: "/no/such" + trick}],
        "env": [{"A" + trick: 5}, {"A=" + trick: "x"}],
        "limits": [{trick: 1}],
        "log": [{trick: 1}, {"stdout": "/no/such" + trick + "/x"}],
        "stop": [[[trick, 1]]],
        "restart": [trick],
        "group": [trick],
        "nice" + trick: [1],
    }
    for key, tried in values.items():
        for number, value in enumerate(tried):
            shown = "".join(filter(str.isalpha, key))
            colony.put(f"{shown}-{number}", {"args": [SLEEP, "100000"], key: value})
    colony.put("torn", b'{"args": ["' + trick.encode())
    colony.start()
    for name in (name for name in os.listdir(colony.config) if not name.startswith(("log-", "group-", "nice"))):
        colony.wait_for(
            lambda name=name: (one := colony.status(name)) and (one["problem"] or one["state"] == "BACKOFF"), name
        )
    for message in ({"type": "RESTART-GROUP", "group": "x" + trick}, {"type": "RESTART-GROUP", "group": trick}):
        colony.send(message)
    status = [path.read_text() for path in (colony.state / "status").iterdir() if not path.name.startswith("group-")]
    colony.remove("group-0")
    colony.wait_until_forgotten("group-0")
    is_clean(colony, *status)


@pytest.mark.parametrize("trick", ["\n2026-01-01T00:00:00+0000 [ncolony#info] fake", *TRICKS])
def test_names_of_files(colony: Colony, trick: str) -> None:
    """A file's name with such characters, of a config file or a message, is shown escaped, and is no process."""
    name = f"a{trick}b"
    colony.put(name, {"args": [SLEEP, "100000"]})
    colony.start()
    colony.post({"type": "RESTART", "name": "nobody"}, name)
    colony.post({"type": "RESTART", "name": name}, "about" + name)
    colony.post(b"nonsense", f"c{trick}d")
    for message in (name, "about" + name, f"c{trick}d"):
        assert colony.wait_for_answer(message)["state"] == "failed"
    status = colony.wait_for(lambda: colony.status(name), "the file has a status")
    assert (status["state"], status["instance"]) == ("FATAL", 0)
    is_clean(colony)
    assert not any(line.startswith("2026-01-01") for line in colony.log().splitlines())


def test_messages(colony: Colony) -> None:
    """What a message says is shown escaped, in its answer, in the reason of a rejection and in the log."""
    trick = "".join(TRICKS)
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    colony.wait_until_running("web")
    messages = [
        {"type": trick}, {"type": "RESTART", "name": trick}, {"type": "SIGNAL", "name": "web", "signal": trick},
        {"type": "RESTART-GROUP", "group": trick}, {"type": "RESTART", "name": "web", "rolling": trick}, {trick: trick},
    ]  # fmt: skip
    for message in messages:
        assert colony.send(message)["state"] == "failed"
    is_clean(colony)


def test_what_a_process_calls_itself(colony: Colony) -> None:
    """The name that a process gives itself is shown escaped where a stop waits for it."""
    name = "\x1b[2J\n\u202e"
    script = f"""
import ctypes, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0)
print("ready", flush=True)
while True:
    signal.pause()
"""
    colony.put("web", {"args": [sys.executable, "-I", "-c", script], "kill_time": 60})
    colony.start()
    colony.wait_for(lambda: colony.lines("web"), "it has its name")
    colony.post({"type": "STOP", "name": "web"})
    status = colony.wait_for(lambda: (one := colony.status("web")) and one["holding"] and one, "the status says so")
    assert status["holding"] == [f"pid {status['pid']} (\\x1b[2J\\n\\u202e)"]
    is_clean(colony)
    os.kill(status["pid"], signal.SIGKILL)


@pytest.mark.parametrize("character", list(DECEPTIVE))
def test_names_that_deceive(character: str, tmp_path: Path) -> None:
    """The command line refuses names that are shown as something else; letters of every language are fine."""
    from ncolony import ctllib

    places = ctllib.Places(tmp_path, tmp_path)
    with pytest.raises(ctllib.BadValue, match="control character"):
        ctllib.add(places, f"web{character}", "sleep", [])
    for name in ("wéb", "веб", "网", "وب", "רשת", "web 🦄‍🔥"):
        ctllib.add(places, name, "sleep", [])
