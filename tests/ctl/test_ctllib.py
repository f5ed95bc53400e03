"""The functions that programs call, and upstream's API."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import Colony
from hypothesis import given
from hypothesis import strategies as st

from ncolony import ctllib
from ncolony.model.names import problem_with_name

# What JSON and a process's arguments can carry: any text but NUL and lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.text(max_size=12)


def test_add_writes_only_what_was_given_and_remove_removes_it(colony: Colony) -> None:
    """A definition holds the program, its arguments and nothing else; removing it removes the file."""
    assert ctllib.add(colony.places, "hello", cmd="/bin/echo", args=["hi"]) is True
    assert colony.definition("hello") == {"args": ["/bin/echo", "hi"]}
    ctllib.remove(colony.places, "hello")
    assert os.listdir(colony.config) == []


def test_add_takes_everything_by_upstreams_positions(colony: Colony) -> None:
    """The arguments after `args` are env, uid, gid, extras and env_inherit, in this order."""
    ctllib.add(colony.places, "x", "/bin/echo", None, ["a=b=c", "d="], 5, 6, {"mycorp.owner": [1]}, ["PATH"])
    assert colony.definition("x") == {
        "args": ["/bin/echo"],
        "env": {"a": "b=c", "d": ""},
        "env_inherit": ["PATH"],
        "uid": 5,
        "gid": 6,
        "mycorp.owner": [1],
    }


def test_add_takes_the_newer_keys(colony: Colony) -> None:
    """env may be a mapping, a path may be a Path, group may be one text; enabled and umask are written as given."""
    ctllib.add(
        colony.places,
        "x",
        Path("/bin/echo"),
        [],
        env={"A": "1"},
        group="web",
        cwd=Path("/tmp"),
        umask="022",
        enabled=False,
        extras={"restart": "never"},
    )
    assert colony.definition("x") == {
        "args": ["/bin/echo"],
        "env": {"A": "1"},
        "group": ["web"],
        "cwd": "/tmp",
        "umask": "022",
        "enabled": False,
        "restart": "never",
    }


def test_add_of_the_same_content_does_not_touch_the_file(colony: Colony) -> None:
    """Equal values in other white space and key order are left alone, and add says so."""
    path = colony.config / "x"
    path.write_text('{"env":  {"A": "1"},\n "args":["a", "b"]}')
    before = path.stat()
    assert ctllib.add(colony.places, "x", "a", ["b"], env=["A=1"]) is False
    assert path.stat().st_ino == before.st_ino
    assert ctllib.add(colony.places, "x", "a", ["b", "c"], env=["A=1"]) is True
    assert colony.definition("x")["args"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"args": ["a"], "n": 1.0}', b'{"args":["a"],"n":true}']
)
def test_add_replaces_what_says_something_else(colony: Colony, content: bytes) -> None:
    """A broken file is replaced, and 1, 1.0 and true are three values."""
    (colony.config / "x").write_bytes(content)
    assert ctllib.add(colony.places, "x", "a", [], extras={"corp.n": 1}) is True
    assert ctllib.add(colony.places, "x", "a", [], extras={"n": 1}) is True
    assert colony.definition("x") == {"args": ["a"], "n": 1}


def test_add_keeps_a_private_file_private(colony: Colony) -> None:
    """Rewriting a file that others may not read does not let them read it."""
    ctllib.add(colony.places, "x", "a", [])
    (colony.config / "x").chmod(0o600)
    ctllib.add(colony.places, "x", "b", [])
    ctllib.disable(colony.places, "x")
    assert stat.S_IMODE((colony.config / "x").stat().st_mode) == 0o600


BAD: list[tuple[str, dict[str, Any]]] = [
    ("NUL", {"args": ["a\0b"]}),
    ("list of texts", {"args": "letters"}),
    ("expected text, found 8080", {"args": [8080]}),
    ("UTF-8", {"args": ["\udcff"]}),
    ("is empty", {"cmd": ""}),
    ("NAME=VALUE", {"env": ["FOO"]}),
    ("variable", {"env": ["=x"]}),
    ("NUL", {"env": {"A": "\0"}}),
    ("list of texts", {"env": "A=1"}),
    ("no user 'no such user'", {"uid": "no such user"}),
    ("no group 'no such group'", {"gid": "no such group"}),
    ("0 to", {"uid": -1}),
    ("0 to", {"gid": 2**32 - 1}),
    ("expected text", {"uid": True}),
    ("no user 'nobody here'", {"extras": {"uid": "nobody here"}}),
    ("group: is empty", {"group": [""]}),
    ("cwd: is empty", {"cwd": ""}),
    ("umask", {"umask": "999"}),
    ("restart", {"extras": {"restart": "sometimes"}}),
    ("args", {"extras": {"args": 5}}),
    ("object", {"extras": [1]}),
    ("as keys", {"extras": {1: 2}}),
    ("JSON", {"extras": {"corp.x": {1, 2}}}),
    ("float", {"extras": {"corp.x": float("nan")}}),
    ("UTF-8", {"extras": {"corp.x": ["\ud800"]}}),
    ("bytes", {"extras": {"corp.x": "x" * 2**20}}),
]


@pytest.mark.parametrize(("why", "keywords"), BAD, ids=[f"{why}-{next(iter(k))}" for why, k in BAD])
def test_bad_values_are_refused_and_nothing_is_written(colony: Colony, why: str, keywords: dict[str, Any]) -> None:
    """A value that no definition may have raises one line saying which and why; no file appears."""
    with pytest.raises(ctllib.BadValue) as caught:
        ctllib.add(colony.places, "x", **{"cmd": "a", "args": [], **keywords})
    assert str(caught.value).startswith("cannot add 'x': ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert os.listdir(colony.config) == []


def test_deep_nesting_is_refused(colony: Colony) -> None:
    """A value nested beyond what can be written raises a clear error, not a RecursionError."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ctllib.BadValue, match="nested too deeply"):
        ctllib.add(colony.places, "x", "a", [], extras={"corp.x": deep})


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "x.new", ".x", "x~", "#x#", "a\nb", "\x7f", "\udcff", "x" * 300, ".."]
)
def test_bad_names_are_refused_by_every_function(colony: Colony, name: str) -> None:
    """No function writes or sends anything for a name that no process can have."""
    (colony.root / "x").write_text("untouched")
    with pytest.raises(ctllib.BadValue, match="cannot add"):
        ctllib.add(colony.places, name, "a", [])
    for func in (ctllib.remove, ctllib.enable, ctllib.disable, ctllib.restart, ctllib.start, ctllib.stop):
        with pytest.raises(ctllib.BadValue):
            func(colony.places, name)
    with pytest.raises(ctllib.BadValue, match="cannot signal"):
        ctllib.signal(colony.places, name, "HUP")
    assert os.listdir(colony.config) == os.listdir(colony.messages) == []
    assert (colony.root / "x").read_text() == "untouched"


@given(name=NAMES, args=st.lists(TEXTS, max_size=3), env=st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_what_is_added_is_what_is_read(name: str, args: list[str], env: dict[str, str]) -> None:
    """Any usable name and text comes back from the file as it was given; any other leaves no file."""
    usable = problem_with_name(name) is None and all(key and "=" not in key for key in env)
    with tempfile.TemporaryDirectory() as directory:
        places = ctllib.Places(directory, directory)
        if not usable:
            with pytest.raises(ctllib.BadValue):
                ctllib.add(places, name, "cmd", args, env=env)
            assert os.listdir(directory) == []
            return
        assert ctllib.add(places, name, "cmd", args, env=env)
        assert os.listdir(directory) == [name]
        content = Path(directory, name).read_bytes()
        assert json.loads(content.decode()) == {"args": ["cmd", *args], "env": env}
        assert not ctllib.add(places, name, "cmd", args, env=[f"{key}={value}" for key, value in env.items()])


def test_what_is_not_there_cannot_be_removed_or_switched(colony: Colony) -> None:
    """remove, enable and disable of an unknown process raise a FileNotFoundError that reads well."""
    for func in (ctllib.remove, ctllib.enable, ctllib.disable):
        with pytest.raises(FileNotFoundError) as caught:
            func(colony.places, "nosuch")
        assert isinstance(caught.value, ctllib.NotThere)
        assert str(caught.value) == f"cannot {func.__name__} 'nosuch': there is no such process in '{colony.config}'"


def test_directories_that_cannot_be_written_are_named(colony: Colony) -> None:
    """A directory that is missing, or that is none, is named in the error; no `.new` file stays behind."""
    missing = ctllib.Places(colony.root / "nowhere", colony.root / "nowhere")
    with pytest.raises(ctllib.NotThere, match=re.escape(f"there is no directory '{colony.root}/nowhere'")):
        ctllib.add(missing, "x", "a", [])
    with pytest.raises(ctllib.NotThere, match="cannot restart 'x': there is no directory"):
        ctllib.restart(missing, "x")
    (colony.config / "x").mkdir()
    with pytest.raises(ctllib.CannotAccess, match=r"cannot add 'x': .*directory"):
        ctllib.add(colony.places, "x", "a", [])
    with pytest.raises(OSError, match="cannot remove 'x': "):
        ctllib.remove(colony.places, "x")
    assert os.listdir(colony.config) == ["x"]


def test_relative_places_and_path_likes_will_do(colony: Colony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places may be relative to the current directory, texts or Paths, or a bare pair in the order config, messages."""
    monkeypatch.chdir(colony.root)
    ctllib.add(ctllib.Places("conf", "messages"), "x", "a", [])
    ctllib.restart(ctllib.Places(config=Path("conf"), messages=Path("messages")), "x")
    assert colony.definition("x") == {"args": ["a"]}
    assert colony.only_message() == {"type": "RESTART", "name": "x"}
    assert tuple(ctllib.Places("c", "m")) == ("c", "m")


def test_enable_and_disable_change_one_key(colony: Colony) -> None:
    """Only `enabled` changes, keys keep their order, and nothing is written where nothing changes."""
    path = colony.config / "x"
    path.write_text('{"zz": 0.5, "args": ["é"], "corp.a": null}')
    assert ctllib.enable(colony.places, "x") is False
    assert path.read_text() == '{"zz": 0.5, "args": ["é"], "corp.a": null}'
    assert ctllib.disable(colony.places, "x") is True
    assert list(colony.definition("x").items()) == [("zz", 0.5), ("args", ["é"]), ("corp.a", None), ("enabled", False)]
    assert ctllib.disable(colony.places, "x") is False
    assert ctllib.enable(colony.places, "x") is True
    assert colony.definition("x")["enabled"] is True


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"args"', b"[" * 100_000])
def test_a_broken_definition_is_not_switched(colony: Colony, content: bytes) -> None:
    """disable says what is wrong with a file that holds no object, and leaves it as it is."""
    (colony.config / "x").write_bytes(content)
    with pytest.raises(ctllib.BadValue, match="cannot disable 'x': "):
        ctllib.disable(colony.places, "x")
    assert (colony.config / "x").read_bytes() == content


def test_a_fifo_in_the_config_directory_blocks_nobody(colony: Colony) -> None:
    """add replaces a FIFO of the same name and disable refuses it, without waiting for a writer."""
    os.mkfifo(colony.config / "x")
    with pytest.raises(ctllib.CannotAccess, match="not a regular file"):
        ctllib.disable(colony.places, "x")
    assert ctllib.add(colony.places, "x", "a", []) is True


@pytest.mark.parametrize(
    ("send", "content"),
    [
        (lambda places: ctllib.restart(places, "é"), {"type": "RESTART", "name": "é"}),
        (ctllib.restartAll, {"type": "RESTART-ALL"}),
        (ctllib.restart_all, {"type": "RESTART-ALL"}),
        (lambda places: ctllib.restart_group(places, "web"), {"type": "RESTART-GROUP", "group": "web"}),
        (lambda places: ctllib.start(places, "x"), {"type": "START", "name": "x"}),
        (lambda places: ctllib.stop(places, "x"), {"type": "STOP", "name": "x"}),
        (
            lambda places: ctllib.signal(places, "x", "sighup"),
            {"type": "SIGNAL", "name": "x", "signal": "sighup", "scope": "process"},
        ),
        (
            lambda places: ctllib.signal(places, "x", 9, scope="tree"),
            {"type": "SIGNAL", "name": "x", "signal": 9, "scope": "tree"},
        ),
        (
            lambda places: ctllib.report(places, "x", "unhealthy", 3, "no answer"),
            {"type": "REPORT", "name": "x", "what": "unhealthy", "instance": 3, "why": "no answer"},
        ),
        (ctllib.scan, {"type": "SCAN"}),
        (ctllib.upgrade, {"type": "UPGRADE"}),
    ],
)
def test_messages_have_upstreams_content_and_their_id_is_their_name(colony: Colony, send: Any, content: Any) -> None:
    """A message is one JSON object with exactly these keys, in the file whose name is returned."""
    message_id = send(colony.places)
    assert colony.only_message() == content
    assert os.listdir(colony.messages) == [message_id]
    assert message_id.split("-")[1] == str(os.getpid())


def test_messages_are_unique_and_sort_by_time(colony: Colony) -> None:
    """Messages of one thread sort in the order sent, and those of many threads never share a name."""
    ids = [ctllib.scan(colony.places) for _ in range(50)]
    assert ids == sorted(ids)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        more = list(threads.map(lambda _: ctllib.scan(colony.places), range(200)))
    assert len({*ids, *more}) == len(os.listdir(colony.messages)) == 250


def test_an_empty_group_is_refused(colony: Colony) -> None:
    """A restart of the group without a name sends nothing."""
    with pytest.raises(ctllib.BadValue, match="empty"):
        ctllib.restart_group(colony.places, "")
    assert os.listdir(colony.messages) == []


@pytest.mark.parametrize("signal", ["", "NOSUCH", "HUP ", "9", 0, -1, 4711, True, 1.0, None, "\udcff"])
def test_a_signal_that_is_none_is_refused(colony: Colony, signal: Any) -> None:
    """What is no signal here raises before anything is sent."""
    with pytest.raises(ctllib.BadValue, match="cannot signal 'x': there is no signal "):
        ctllib.signal(colony.places, "x", signal)
    with pytest.raises(ctllib.BadValue, match="scope: expected one of process, tree, found 'group'"):
        ctllib.signal(colony.places, "x", "HUP", "group")
    assert os.listdir(colony.messages) == []


def test_call_hands_everything_else_to_the_function() -> None:
    """call makes Places of config and messages and passes every other attribute on; the namespace stays whole."""
    seen: list[tuple[Any, dict[str, Any]]] = []
    namespace = argparse.Namespace(
        func=lambda places, **rest: seen.append((places, rest)), config="c", messages="m", foo="bar", baz=1
    )
    ctllib.call(namespace)
    ctllib.call(namespace)
    assert seen == [(ctllib.Places(config="c", messages="m"), {"foo": "bar", "baz": 1})] * 2


def test_main_takes_a_leading_ctl_or_not(colony: Colony) -> None:
    """main does what the command line does and returns None; an error ends in SystemExit with its status."""
    for words in (["ctl", *colony.options], colony.options):
        assert ctllib.main([*words, "restart-all"]) is None  # type: ignore[func-returns-value]
        assert colony.only_message() == {"type": "RESTART-ALL"}
        os.unlink(next(colony.messages.iterdir()))
    for words in ([*colony.options], [*colony.options, "remove", "nosuch"]):
        with pytest.raises(SystemExit) as caught:
            ctllib.main(words)
        assert caught.value.code


BASE = ["--messages", "messages", "--config", "config"]


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "config", "restart-all"],
        ["--messages", "messages", "restart-all"],
        [*BASE],
        [*BASE, "add", "hello"],
        [*BASE, "add", "--cmd", "x"],
        [*BASE, "restart"],
        [*BASE, "remove", "a", "b"],
        [*BASE, "nosuchverb"],
    ],
)
def test_the_parser_refuses_what_is_incomplete(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing directory, verb, name or command is a usage error."""
    for variable in (ctllib.CONFIG_VARIABLE, ctllib.MESSAGES_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SystemExit) as caught:
        ctllib.PARSER.parse_args(words)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_parser_yields_upstreams_namespaces(tmp_path: Path) -> None:
    """PARSER gives the functions and values that upstream's did, and they can be handed to call."""
    extras = tmp_path / "extras.json"
    extras.write_text('{"ncolony.beatcheck": {"period": 10}}')
    found = ctllib.PARSER.parse_args([*BASE, "restart-all"])
    assert (found.messages, found.config, found.func) == ("messages", "config", ctllib.restartAll)
    found = ctllib.PARSER.parse_args([*BASE, "restart", "hello"])
    assert (found.name, found.func) == ("hello", ctllib.restart)
    found = ctllib.PARSER.parse_args([*BASE, "remove", "hello"])
    assert (found.name, found.func) == ("hello", ctllib.remove)
    words = "add hello --cmd /bin/echo --arg a --arg b --env w=6 --env s=g --uid 5 --gid 6 --env-inherit P".split()
    found = ctllib.PARSER.parse_args([*BASE, *words, "--extra", str(extras)])
    assert found.func is ctllib.add
    assert (found.name, found.cmd, found.args, found.env) == ("hello", "/bin/echo", ["a", "b"], ["w=6", "s=g"])
    assert (found.uid, found.gid, found.env_inherit) == (5, 6, ["P"])
    assert found.extras == {"ncolony.beatcheck": {"period": 10}}
    found.config = str(tmp_path)
    assert ctllib.call(found) is True
    assert json.loads((tmp_path / "hello").read_text())["args"] == ["/bin/echo", "a", "b"]


def test_there_is_nothing_else_in_the_module() -> None:
    """A misspelt function is an AttributeError like anywhere else."""
    with pytest.raises(AttributeError, match="reboot"):
        ctllib.reboot  # type: ignore[attr-defined]  # noqa: B018


def test_importing_is_cheap(colony: Colony) -> None:
    """Neither Twisted, msgspec, argparse nor typing comes with the functions; writing needs none of them."""
    program = (
        "import sys; from ncolony import ctllib\n"
        "ctllib.add(ctllib.Places(*sys.argv[1:]), 'x', 'a', []); ctllib.restart(ctllib.Places(*sys.argv[1:]), 'x')\n"
        "print(*set('twisted msgspec argparse typing subprocess inspect dataclasses'.split()) & set(sys.modules))"
    )
    argv = [sys.executable, "-S", "-c", program, str(colony.config), str(colony.messages)]
    ran = subprocess.run(argv, env=colony.environment(), capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("\n", "")


def test_places_come_from_the_environment() -> None:
    """The two variables make Places; the missing one is named."""
    environ = {"NCOLONY_CTL_CONFIG": "c", "NCOLONY_CTL_MESSAGES": "m"}
    assert ctllib.places_from_env(environ) == ctllib.Places("c", "m")
    for variable in environ:
        with pytest.raises(ctllib.BadValue, match=variable):
            ctllib.places_from_env({**environ, variable: ""})


def test_status_is_what_the_supervisor_wrote_and_what_it_has_not_seen(colony: Colony) -> None:
    """Reports are typed records sorted by name; a definition without one is STOPPED and says why."""
    ended = {"code": 3, "signal": None, "at": 1.0, "lived": 0.2, "text": "exit code 3"}
    colony.report("web", restarts=2, last_exit=ended, from_the_future=1)
    colony.report("many:0")
    (colony.state / "status" / "torn").write_text("{")
    (colony.state / "status" / "web.new").write_text("{")
    for name in ("web", "many", "new", ".hidden"):
        (colony.config / name).write_text('{"args": ["a"]}')
    (colony.config / "off").write_text('{"args": ["a"], "enabled": false}')
    (colony.config / "directory").mkdir()
    found = {one.name: one for one in ctllib.status(colony.places, state=colony.state)}
    assert list(found) == ["many:0", "new", "off", "torn", "web"]
    web = found["web"]
    assert (web.state, web.pid, web.restarts, web.record["from_the_future"]) == ("RUNNING", 4321, 2, 1)
    assert web.last_exit is not None
    assert (web.last_exit.code, web.last_exit.text) == (3, "exit code 3")
    assert (found["new"].state, found["new"].wanted, found["new"].reason) == ("STOPPED", "up", ctllib.NOT_SEEN)
    assert (found["off"].wanted, found["off"].enabled) == ("down", False)
    assert found["torn"].state == "UNKNOWN"
    assert "not JSON" in str(found["torn"].problem)
    one = ctllib.status_of(colony.places, "web", state=colony.state)
    assert one is not None
    assert one.record == web.record
    assert ctllib.status_of(colony.places, "new", state=colony.state) is None


def test_status_has_the_costs_of_the_last_exit(colony: Colony) -> None:
    """What an exit cost and what a stop waits for are read where they are told, and unknown where they are not."""
    ended = {"code": None, "signal": "SEGV", "at": 1.0, "lived": 0.2, "text": "signal SEGV"}
    colony.report("old", last_exit=ended)
    colony.report(
        "new", last_exit={**ended, "core": True, "oom": True, "cpu": 0.5, "rss_kb": 900}, holding=["pid 1 (sleep)"]
    )
    colony.report("odd", last_exit={**ended, "at": "noon", "cpu": [], "rss_kb": float("inf"), "lived": float("nan")})
    found = {one.name: one for one in ctllib.status(colony.places, state=colony.state)}
    figures = {
        name: (one.last_exit.core, one.last_exit.oom, one.last_exit.cpu, one.last_exit.rss_kb)
        for name, one in found.items()
        if one.last_exit
    }
    assert figures["old"] == figures["odd"] == (False, False, None, None)
    assert figures["new"] == (True, True, 0.5, 900)
    assert (found["old"].holding, found["new"].holding) == ([], ["pid 1 (sleep)"])


def test_history_tells_of_every_instance_in_order(colony: Colony) -> None:
    """Each line of the history is one record with its types; the newest is the last."""
    colony.ended("web", 1, code=3, text="exit code 3", lines=["a", "é"])
    colony.ended("web", 2, code=None, signal="KILL", oom=True, text="signal KILL", pid=None, started=None)
    first, second = ctllib.history(colony.places, "web", state=colony.state)
    assert (first.id, first.instance, first.pid, first.code, first.lines) == ("id-1", 1, 4321, 3, ["a", "é"])
    assert (second.signal, second.oom, second.pid, second.started, second.lines) == ("KILL", True, None, None, [])
    assert (second.cpu, second.rss_kb, second.reason, second.lived) == (0.25, 9000, "", 1.5)
    assert second.record["text"] == second.text == "signal KILL"


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "x", "instance": 1, "at"',
        b"\xff\x00",
        b"[1, 2]",
        b"null",
        b"{}",
        b'{"id": 1, "instance": 1, "at": 1, "text": ""}',
        b'{"id": "x", "instance": 1, "at": "noon", "text": ""}',
        b'{"id": "x", "instance": 1, "at": 1, "text": null}',
        b'{"id": "x", "instance": 1, "at": 1, "text": "", "lines": "abc"}',
        b'{"id": "x", "instance": 1, "at": 1, "text": "", "lines": [1]}',
        b"[" * 100_000,
    ],
)
def test_history_leaves_out_what_is_no_record(colony: Colony, line: bytes) -> None:
    """A torn line, or one that somebody else wrote, costs no other line."""
    colony.ended("web", 1)
    with (colony.state / "history" / "web").open("ab") as file:
        file.write(line + b"\n\n")
    colony.ended("web", 2)
    assert [one.instance for one in ctllib.history(colony.places, "web", state=colony.state)] == [1, 2]


def test_history_of_whom(colony: Colony) -> None:
    """What was removed still has its history, what has not ended has none, and what never was is not there."""
    colony.ended("removed", 1)
    colony.report("running")
    (colony.config / "new").write_text('{"args": ["a"]}')
    assert [len(ctllib.history(colony.places, n, state=colony.state)) for n in ("removed", "running", "new")] == [
        1,
        0,
        0,
    ]
    with pytest.raises(ctllib.NotThere, match="cannot show the history of 'nosuch': there is no such process"):
        ctllib.history(colony.places, "nosuch", state=colony.state)
    with pytest.raises(ctllib.BadValue, match=r"cannot show the history of '\.\./x'"):
        ctllib.history(colony.places, "../x", state=colony.state)
    (colony.state / "history" / "folder").mkdir()
    with pytest.raises(ctllib.CannotAccess, match="cannot show the history of 'folder'"):
        ctllib.history(colony.places, "folder", state=colony.state)


def test_a_supervisor_is_known_by_its_lock(colony: Colony) -> None:
    """Only a held lock means a supervisor, whatever supervisor.json says; asking does not take the lock."""
    assert ctllib.supervisor(colony.places, state=colony.state) is None
    with colony.supervised(problems=["config: gone"]):
        found = ctllib.supervisor(colony.places, state=colony.state)
        assert found is not None
        assert (found.pid, found.version, found.problems) == (os.getpid(), "1", ["config: gone"])
        (colony.state / "supervisor.json").unlink()
        found = ctllib.supervisor(colony.places, state=colony.state)
        assert found is not None
        assert found.pid is None
    assert ctllib.supervisor(colony.places, state=colony.state) is None
    with colony.supervised():
        assert ctllib.supervisor(colony.places, state=colony.state)


def test_wait_for_answer_waits_for_the_end(colony: Colony) -> None:
    """An answer that only says accepted is not the end; one that says done or failed is."""
    with colony.answering(state="failed", why="it would not", names=["x"], generation="g"):
        message_id = ctllib.restart(colony.places, "x")
        answer = ctllib.wait_for_answer(colony.places, message_id, 60, state=colony.state)
    assert (answer.state, answer.why, answer.names, answer.generation) == ("failed", "it would not", ["x"], "g")
    colony.answer("5-5-5", accepted=False, state="failed", why="no such type")
    assert ctllib.wait_for_answer(colony.places, "5-5-5", 0, state=colony.state).accepted is False


def test_wait_for_answer_says_how_far_it_came(colony: Colony) -> None:
    """A time-out tells an unheard message from an unfinished one, and whether anybody is there to hear it."""
    with pytest.raises(TimeoutError, match=r"no supervisor answered within 0\.02 s; no supervisor is running"):
        ctllib.wait_for_answer(colony.places, "1-1-1", 0.02, state=colony.state)
    colony.answer("1-1-1", state="accepted")
    with colony.supervised(), pytest.raises(ctllib.TimedOut, match=r"took it but has not finished within 0 s$"):
        ctllib.wait_for_answer(colony.places, "1-1-1", 0, state=colony.state)


def test_wait_for_applied_waits_for_the_present_definition(colony: Colony) -> None:
    """RUNNING under an older definition is not applied; RUNNING under the present one is."""
    ctllib.add(colony.places, "x", "a", [])
    colony.report("x", digest=colony.digest("x"))
    found = ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
    assert found is not None
    assert found.state == "RUNNING"
    ctllib.add(colony.places, "x", "b", [])
    with pytest.raises(ctllib.TimedOut, match="cannot see 'x' applied: after 0 s it is RUNNING"):
        ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)

    def apply() -> None:
        colony.report("x", digest=colony.digest("x"), state="STARTING")
        colony.report("x", digest=colony.digest("x"), pid=99)

    with colony.meanwhile(apply):
        found = ctllib.wait_for_applied(colony.places, "x", 60, state=colony.state)
    assert found is not None
    assert found.pid == 99


ENDED = {"code": 0, "signal": None, "at": 1.0, "lived": 0.2, "text": "exit code 0"}


@pytest.mark.parametrize(
    ("extras", "record", "outcome"),
    [
        ({}, {"state": "BACKOFF", "reason": "exit code 3"}, "after 0 s it is BACKOFF: exit code 3"),
        ({}, {"state": "FATAL", "reason": "gave up"}, "cannot see 'x' running: it is FATAL: gave up"),
        ({"restart": "never"}, {"state": "EXITED", "last_exit": ENDED}, None),
        ({"restart": "never"}, {"state": "EXITED", "last_exit": {**ENDED, "code": 3}, "reason": "code 3"}, "code 3"),
        ({"restart": "never", "success_codes": [3]}, {"state": "EXITED", "last_exit": {**ENDED, "code": 3}}, None),
        ({"enabled": False}, {"state": "STOPPED", "wanted": "down"}, None),
        ({"enabled": False}, {"state": "STOPPING", "wanted": "down"}, "it is STOPPING"),
        ({}, {"state": "STOPPED", "wanted": "down"}, None),
        ({}, {"state": "RUNNING", "digest": "old", "problem": "cannot use x: unsafe"}, "cannot use x: unsafe"),
    ],
)
def test_wait_for_applied_knows_what_settled_means(
    colony: Colony, extras: dict[str, Any], record: dict[str, Any], outcome: str | None
) -> None:
    """What should run must run or have ended well, what should not must have stopped; anything else is told."""
    ctllib.add(colony.places, "x", "a", [], extras=extras)
    # What is reported was written after the definition, also where both fall into one tick of the file system's clock.
    os.utime(colony.config / "x", (1, 1))
    colony.report("x", **{"digest": colony.digest("x"), **record})
    if outcome is None:
        found = ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
        assert found is not None
        assert found.state == record["state"]
    else:
        with pytest.raises(ctllib.Error) as caught:
            ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
        assert outcome in str(caught.value)


def test_wait_for_applied_does_not_wait_for_a_bad_definition(colony: Colony) -> None:
    """A file that no supervisor could use fails at once, with the reason."""
    (colony.config / "x").write_text('{"args": []}')
    with pytest.raises(ctllib.Failed, match="args"):
        ctllib.wait_for_applied(colony.places, "x", 60, state=colony.state)


def test_wait_for_applied_of_what_was_removed_waits_until_it_is_gone(colony: Colony) -> None:
    """Without a definition the process itself has to go."""
    colony.report("x", state="STOPPING", wanted="gone")
    with pytest.raises(ctllib.TimedOut, match="cannot see 'x' gone: after 0 s it is STOPPING"):
        ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
    with colony.meanwhile((colony.state / "status" / "x").unlink):
        assert ctllib.wait_for_applied(colony.places, "x", 60, state=colony.state) is None


@pytest.mark.parametrize("wrong", [5, 1.5, True, "\x1b[31m\ud800", [5], {"x": 1}, None, float("nan"), 1e300])
def test_a_report_with_wrong_types_reads_like_one_without(colony: Colony, wrong: object) -> None:
    """A value of a wrong type in a status is as if it were not there; nobody who reads it has to look twice."""
    colony.report("web", **dict.fromkeys(("since", "started", "next_try", "restarts", "instance", "pid"), wrong))
    colony.report("b", **dict.fromkeys(("state", "wanted", "reason", "problem", "warnings", "group", "holding"), wrong))
    b, web = ctllib.status(colony.places, state=colony.state)
    assert all(isinstance(value, str) for value in (b.state, b.wanted, b.reason))
    assert all(isinstance(value, list) for value in (b.warnings, b.group, b.holding))
    assert all(isinstance(value, int) for value in (web.restarts, web.instance))
    assert web.pid is None or isinstance(web.pid, int)
    assert isinstance(web.since, int | float) and web.since < 1e12
    ran = colony.run("status", "--long")
    assert ran.returncode == 3
    assert "Traceback" not in ran.stderr
    assert all(line.isprintable() for line in [*ran.stdout.split("\n"), *ran.stderr.split("\n")])


def test_errors_are_one_printable_line(colony: Colony) -> None:
    """What a supervisor gives as its reason is quoted in one line, whatever it holds."""
    colony.answer("m1", accepted=False, state="failed", why="no\n\x1b[31m")
    with pytest.raises(ctllib.Failed) as caught:
        ctllib.wait_for_shutdown(colony.places, "m1", 5, state=colony.state)
    assert str(caught.value) == r"cannot shut down: no\n\x1b[31m"
