"""Files that are made to hurt whoever reads them: depth, size, numbers, names, many at once.

`test_files_that_are_bombs` (config and messages), `test_very_long_names`, `test_many_files` (config and messages),
`test_large_messages_are_read_one_at_a_time`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from colony import SLEEP, Colony, environment_of

BOMBS = {
    "deep-array": b"[" * 1_000_000,
    "deep-object": b'{"a":' * 200_000,
    "closed": b'{"args": ["x"], "a": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
    "digits": b'{"type": "SIGNAL", "name": "web", "signal": ' + b"9" * 1_000_000 + b"}",
    "digits-of-a-key": b'{"args": ["x"], "nice": ' + b"9" * 1_000_000 + b"}",
    "exponent": b'{"args": ["x"], "threshold": 1e999999999}',
    "nothing": b"\0" * 1_000_000,
    "not-utf-8": b'{"args": ["' + b"\xff" * 1_000_000 + b'"]}',
    "too-large": b" " * 2_000_000,
    "half-a-character": b'{"args": ["\\ud800"], "a": "\\udfff"}',
    "empty": b"",
    "no-object": b'"x"',
}


@pytest.fixture
def running(colony: Colony) -> Colony:
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    colony.wait_until_running("web")
    return colony


@pytest.mark.parametrize("where", ["config", "messages"])
def test_files_that_are_bombs(running: Colony, where: str) -> None:
    """Each is one problem or one refusal in a second or so; the supervisor and what runs go on."""
    pid = running.wait_until_running("web")
    for name, data in BOMBS.items():
        if where == "config":
            running.put(name, data)
            running.wait_for_problem(name)
        else:
            running.post(data, name)
    if where == "messages":
        for name in BOMBS:
            assert running.wait_for_answer(name)["state"] == "failed"
    assert running.wait_until_running("web", instance=1) == pid
    assert len(running.ctl("--state", str(running.state), "status", check=False)) < 20_000
    assert running.send({"type": "SCAN"})["state"] == "done"


def test_the_last_of_equal_keys_counts(colony: Colony) -> None:
    """Of a key that is there twice the last counts, for every reader alike: what is checked is what is run."""
    colony.put(
        "web",
        b'{"args": ["/no/such"], "uid": 12345, "args": ["%s", "100000"], "uid": %d}' % (SLEEP.encode(), os.getuid()),
    )
    colony.start()
    pid = colony.wait_until_running("web")
    assert json.loads(environment_of(pid)["NCOLONY_CONFIG"])["args"] == [SLEEP, "100000"]
    os.kill(pid, 9)
    colony.wait_until_running("web", instance=2)


def test_very_long_names(running: Colony) -> None:
    """Names of 250 bytes are processes; longer ones that the filesystem takes are problems; messages may have any."""
    longest, too_long = "é" * 125, "x" * 251
    running.put(longest, {"args": ["/bin/sh", "-c", "echo hello; exec sleep 100000"]})
    running.wait_until_running(longest)
    running.wait_for(lambda: running.lines(longest) == ["hello"], "its line is logged")
    running.put(too_long, {"args": [SLEEP, "100000"]})
    assert "longer than 250 bytes" in running.wait_for_problem(too_long)
    (running.messages / ("m" * 255)).write_text('{"type": "SCAN"}')
    assert running.wait_for_answer("m" * 255)["state"] == "done"
    (running.messages / ("n" * 255)).write_text("nonsense")
    assert running.wait_for_answer("n" * 255)["state"] == "failed"


def test_many_files(running: Colony) -> None:
    """Ten thousand messages that make no sense, and as many broken config files, are worked off; what runs goes on."""
    pid = running.wait_until_running("web")
    for number in range(5_000):
        (running.config / f"broken-{number}").write_text("{")
    for number in range(10_000):
        (running.messages / f"odd-{number}").write_text("{")
    running.wait_for(lambda: not os.listdir(running.messages), "every message is set aside", 120)
    assert running.send({"type": "SCAN"}, 60)["state"] == "done"
    assert running.wait_until_running("web", instance=1) == pid
    assert len(os.listdir(running.state / "rejected")) == 2000
    assert len(os.listdir(running.state / "answers")) <= 10_002
    for number in range(5_000):
        (running.config / f"broken-{number}").unlink()
    running.wait_for(lambda: running.known() == {"web"}, "what was removed is forgotten", 60)


def test_large_messages_are_read_one_at_a_time(running: Colony) -> None:
    """Thousands of messages of a mebibyte of nothing, which cost their sender nothing, do not fill the memory."""

    def peak() -> int:
        text = Path(f"/proc/{running.supervisor_pid}/status").read_text()
        return int(text.partition("VmHWM:")[2].split()[0]) << 10

    before = peak()
    aside = running.root / "aside"
    aside.mkdir()
    for number in range(1_000):
        with (aside / f"m{number}").open("wb") as file:
            file.truncate(1 << 20)
    began = time.monotonic()
    for path in aside.iterdir():
        path.rename(running.messages / path.name)
    running.wait_for(lambda: not os.listdir(running.messages), "every message is set aside", 120)
    assert peak() - before < 100 << 20, time.monotonic() - began
