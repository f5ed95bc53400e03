"""What a supervisor writes, as the command line and ctllib read it: status, history, answers, supervisor.json, lock."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from fuzzing import Scratch, files_in, import_all, is_one_line, is_plain, lay_out

from ncolony import cli, ctllib
from ncolony.cli.parser import build

# The only escape sequences that are ever written: colours of the table, and their end.
_COLOUR = re.compile("\x1b\\[[0-9]{0,2}m")
_WORDS = (
    ("status",), ("status", "--long"), ("status", "--json"), ("status", "web", "w*", "[", "-l"),
    ("history", "web"), ("history", "web", "--lines"), ("history", "web", "--json", "-n", "2"),
    ("health",), ("health", "web", "w*", "--json"),
    ("why", "web"), ("why", "web", "worker", "--json"),
    ("events",), ("events", "web", "-n", "3", "--since", "5"), ("events", "--json"),
    ("logs",), ("logs", "web", "-n", "2", "-t", "--grep", "o"), ("logs", "--json", "--since", "1h", "--stderr"),
    ("wait", "web", "--for", "ready", "--timeout", "0"), ("wait", "--converged", "--timeout", "0"),
)  # fmt: skip
import_all(cli)
import_all(ctllib)
_PLACES = ["--config", "/", "--messages", "/"]
# Parsed once: building the parser takes longer than the rest.
_VIEWS = [vars(build().parse_args([*_PLACES, *words])) for words in _WORDS]
_LOGS = [view for view in _VIEWS if view["func"] is ctllib.read_logs]
_STATUSES = {0, 1, 3, 4}


class _Output(io.TextIOWrapper):
    """Standard output, of which `logs` takes the bytes."""

    def __init__(self, is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def getvalue(self) -> str:
        self.flush()
        raw: bytes = self.buffer.getvalue()  # type: ignore[attr-defined]
        return raw.decode("utf-8", "backslashreplace")


def one(data: bytes) -> None:
    """Every view of any files is printable text and an exit status; every function returns or raises its own error."""
    with Scratch() as root:
        for name in ("config", "messages", "state"):
            (root / name).mkdir()
        lay_out(root, files_in(data))
        places = {name: str(root / name) for name in ("config", "messages", "state")}
        with _hold_lock(root / "state" / "lock"):
            for view in _VIEWS:
                _check_view({**view, **places}, _Output())
            for view in (_VIEWS[1], *_LOGS):
                _check_view({**view, **places}, _Output(is_terminal=True))
            _check_functions(root)


def _hold_lock(path: Path) -> contextlib.AbstractContextManager[object]:
    """As if a supervisor lived, where there is such a file."""
    if not path.is_file():
        return contextlib.nullcontext()
    held = path.open()
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def _check_view(options: dict[str, Any], out: _Output) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        status = cli._guarded(lambda _: cli._run(options), [])
    assert status in _STATUSES, status
    text = out.getvalue()
    if out.isatty():
        text = _COLOUR.sub("", text)
    # What is printed goes into a pipe as it is.
    assert is_plain(text.replace("\t", "")) or (options["func"] is ctllib.read_logs and not out.isatty()), text
    assert is_plain(said.getvalue()), said.getvalue()
    if options.get("json") and status not in (1, 4):
        for document in text.splitlines() if options["func"] in (ctllib.events, ctllib.read_logs) else [text]:
            json.loads(document)


def _check_functions(root: Path) -> None:
    places = ctllib.Places(root / "config", root / "messages")
    state = root / "state"
    for name in os.listdir(state / "answers") if (state / "answers").is_dir() else ():
        with contextlib.suppress(ctllib.Error):
            answer = ctllib.wait_for_answer(places, name, 0, state=state)
            assert isinstance(answer.state, str) and isinstance(answer.why, str), answer.why
            assert all(isinstance(one, str) for one in answer.names), answer.names
        try:
            ctllib.wait_for_shutdown(places, name, 0, state=state)
        except ctllib.Error as error:
            assert is_one_line(str(error)), str(error)
    try:
        for one in ctllib.status(places, state=state):
            _check_status(one)
            ctllib.wait_for_applied(places, one.name, 0, state=state)
        for past in ctllib.history(places, "web", state=state):
            _check_exit(past)
            assert isinstance(past.id, str) and isinstance(past.instance, int) and isinstance(past.reason, str)
            assert all(isinstance(line, str) for line in past.lines)
        for event in ctllib.events(places, state=state):
            texts = (event.event, event.name, event.state, event.reason)
            assert all(isinstance(text, str) for text in texts), texts
            assert isinstance(event.at, float)
            assert all(number is None or isinstance(number, int) for number in (event.instance, event.pid))
        applied = ctllib.applied(places, state=state)
        assert applied is None or isinstance(applied.generation, str)
        supervisor = ctllib.supervisor(places, state=state)
        assert supervisor is None or isinstance(supervisor.problems, list)
        assert supervisor is None or supervisor.pid is None or isinstance(supervisor.pid, int)
    except ctllib.Error as error:
        assert is_one_line(str(error)), str(error)


def _check_status(one: ctllib.Status) -> None:
    """Every attribute has the type that it is said to have, whatever the record holds."""
    texts = (one.name, one.state, one.wanted, one.reason, one.generation, one.digest)
    assert all(isinstance(text, str) for text in texts), texts
    assert one.problem is None or isinstance(one.problem, str)
    lists = (one.warnings, one.group, one.holding)
    assert all(isinstance(text, str) for each in lists for text in each), lists
    assert all(isinstance(each, list) for each in lists), lists
    assert one.pid is None or isinstance(one.pid, int)
    assert isinstance(one.instance, int) and isinstance(one.restarts, int) and isinstance(one.enabled, bool)
    assert isinstance(one.since, int | float)
    assert all(time is None or isinstance(time, int | float) for time in (one.started, one.next_try))
    if one.last_exit is not None:
        _check_exit(one.last_exit)


def _check_exit(one: ctllib.LastExit) -> None:
    assert one.code is None or isinstance(one.code, int), one.code
    assert one.signal is None or isinstance(one.signal, str), one.signal
    assert isinstance(one.text, str), one.text
    assert all(isinstance(number, int | float) for number in (one.at, one.lived))
