"""The bytes of one config file become a definition or a Problem that says what is wrong."""

from __future__ import annotations

import json
import random
import re
import signal
import string
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ncolony.model.config as config_module
from ncolony.model.conditions import After, Check, Ready, Schedule, Socket
from ncolony.model.config import (
    KNOWN_KEYS,
    LIVE_KEYS,
    Definition,
    GiveUp,
    LogConfig,
    Problem,
    ProcessConfig,
    decode,
    define,
    directory_generation,
    signal_name,
    signal_number,
)


def written(**keys: Any) -> bytes:
    """A config file with these keys, and a program unless `args` is among them."""
    return json.dumps({"args": ["sleep", "9"]} | keys).encode()


def defined(data: bytes) -> Definition:
    found = define("web", data)
    assert isinstance(found, Definition), str(found)
    return found


def problem(data: bytes) -> Problem:
    found = define("web", data)
    assert isinstance(found, Problem)
    assert found.name == "web"
    assert "\n" not in str(found)
    return found


# Every key with good values: (key, as written, as decoded).
GOOD: list[tuple[str, Any, Any]] = [
    ("ready", {"notify": True}, Ready(notify=True)),
    ("ready", {"fd": 3, "timeout": 5}, Ready(fd=3, timeout=5)),
    ("ready", {"tcp": "127.0.0.1:80"}, Ready(tcp="127.0.0.1:80")),
    ("ready", {"tcp": "80", "period": 1}, Ready(tcp="80", period=1)),
    ("ready", {"http": "http://[::1]:80/x?y"}, Ready(http="http://[::1]:80/x?y")),
    ("ready", {"http": "https://x/", "insecure": True}, Ready(http="https://x/", insecure=True)),
    ("ready", {"exec": ["a", ""]}, Ready(exec=("a", ""))),
    ("ready", {"log": "^ready"}, Ready(log="^ready")),
    ("after", {}, {}),
    (
        "after",
        {"db": "ready", "a": "started", "b": "completed", "c": "healthy"},
        {"db": "ready", "a": "started", "b": "completed", "c": "healthy"},
    ),
    ("after", {"db": {"when": "ready", "bind": True}}, {"db": After("ready", True)}),
    ("check", [], ()),
    (
        "check",
        [{"http": "https://a/"}, {"tcp": "a:1", "grace": 5}, {"exec": ["x"], "action": "report"}],
        (Check(http="https://a/"), Check(tcp="a:1", grace=5), Check(exec=("x",), action="report")),
    ),
    ("check", [{"heartbeat": "/x", "failure_threshold": 2}], (Check(heartbeat="/x", failure_threshold=2),)),
    ("watchdog", 0.05, 0.05),
    ("sockets", {"http": "tcp:0.0.0.0:8080"}, {"http": "tcp:0.0.0.0:8080"}),
    (
        "sockets",
        {"a": "udp:[::]:0", "b": {"address": "unix:/run/x", "mode": "600"}},
        {"a": "udp:[::]:0", "b": Socket("unix:/run/x", mode="600")},
    ),
    ("schedule", {"every": 0.05}, Schedule(every=0.05)),
    ("schedule", {"cron": "* * * * *", "retries": 2}, Schedule(cron="* * * * *", retries=2)),
    (
        "schedule",
        {"cron": "30 0 2 * * MON#1", "timezone": "Europe/Berlin"},
        Schedule(cron="30 0 2 * * MON#1", timezone="Europe/Berlin"),
    ),
    ("args", ["a"], ("a",)),
    ("args", ["a", "", "b c", "é"], ("a", "", "b c", "é")),
    ("env", {}, {}),
    ("env", {"A": "", "b.c": "x=y", "É": "ö"}, {"A": "", "b.c": "x=y", "É": "ö"}),
    ("env_inherit", ["PATH", "LC_*", "*"], ("PATH", "LC_*", "*")),
    ("uid", 0, 0),
    ("uid", 2**32 - 2, 2**32 - 2),
    ("uid", "root", "root"),
    ("gid", 1000, 1000),
    ("gid", "adm", "adm"),
    ("group", "shop", "shop"),
    ("group", ["shop", "eu"], ("shop", "eu")),
    ("group", [], ()),
    ("cwd", "/", "/"),
    ("umask", 18, 18),
    ("umask", 0o777, 0o777),
    ("umask", "022", "022"),
    ("umask", "0o77", "0o77"),
    ("enabled", False, False),
    ("restart", "always", "always"),
    ("restart", "on-failure", "on-failure"),
    ("restart", "never", "never"),
    ("success_codes", [], ()),
    ("success_codes", [0, 3, 255], (0, 3, 255)),
    ("threshold", 0, 0.0),
    ("threshold", 2.5, 2.5),
    ("kill_time", 1e10, 1e10),
    ("min_restart_delay", 0.01, 0.01),
    ("max_restart_delay", 86400, 86400.0),
    ("jitter", 0, 0.0),
    ("jitter", 1, 1.0),
    ("stop", [], ()),
    ("stop", [["INT", 1], ["sigterm", 2.5], [9, 0]], (("INT", 1.0), ("sigterm", 2.5), (9, 0.0))),
    ("stop_scope", "tree", "tree"),
    ("stop_scope", "process", "process"),
    ("log", {}, LogConfig()),
    ("log", {"forward": False, "max_bytes": 4096, "keep": 0}, LogConfig(False, 4096, 0)),
    ("log", {"max_bytes": "1M", "stdout": "/a", "stderr": "b"}, LogConfig(max_bytes="1M", stdout="/a", stderr="b")),
    ("log", {"stderr": True, "overflow": "drop"}, LogConfig(stderr=True, overflow="drop")),
    ("log", {"stdout": "a", "format": "json", "compress": True}, LogConfig(stdout="a", format="json", compress=True)),
    ("nice", -20, -20),
    ("nice", 19, 19),
    ("oom_score_adj", -1000, -1000),
    ("oom_score_adj", 1000, 1000),
    ("limits", {"nofile": 64, "RLIMIT_CORE": [0, "unlimited"]}, {"nofile": 64, "RLIMIT_CORE": (0, "unlimited")}),
    ("limits", {"stack": "unlimited"}, {"stack": "unlimited"}),
    ("give_up", {"failures": 1, "within": 0.5}, GiveUp(1, 0.5)),
    ("give_up", {"failures": 1000, "within": 60, "retry_after": 0}, GiveUp(1000, 60.0, 0.0)),
    ("instances", 0, 0),
    ("instances", 10_000, 10_000),
    ("memory_max", 1, 1),
    ("memory_max", "512M", "512M"),
    ("memory_max", "1 gib", "1 gib"),
    ("on_exit", "shutdown", "shutdown"),
    ("on_give_up", "shutdown", "shutdown"),
    ("env_file", "/etc/default/web", "/etc/default/web"),
    ("env_file", ["a", "b"], ("a", "b")),
    ("env_secret", {"KEY": "/run/secrets/key"}, {"KEY": "/run/secrets/key"}),
    ("rollback_if_not_ready", 30, 30.0),
    *((key, None, None) for key in ("nice", "oom_score_adj", "give_up", "instances", "memory_max")),
    *((key, None, None) for key in ("uid", "gid", "cwd", "umask", "threshold", "kill_time", "stop")),
    *((key, None, None) for key in ("min_restart_delay", "max_restart_delay")),
]


@pytest.mark.parametrize(("key", "value", "decoded"), GOOD)
def test_a_good_value(key: str, value: Any, decoded: Any) -> None:
    """A value that makes sense is taken as it is, without a warning."""
    found = defined(written(**{key: value}))
    assert getattr(found.config, key) == decoded
    assert found.warnings == ()


def test_every_key_has_a_row() -> None:
    """The tables of good and of bad values leave no key out."""
    assert {key for key, _, _ in GOOD} == KNOWN_KEYS
    assert {key for key, _, _, _ in BAD} == KNOWN_KEYS


def test_only_args_is_required() -> None:
    """A file with nothing but a program is a process with the documented defaults."""
    assert defined(b'{"args": ["a"]}').config == ProcessConfig(args=("a",))
    config = ProcessConfig(args=("a",))
    assert (config.enabled, config.restart, config.success_codes) == (True, "always", (0,))
    assert (config.jitter, config.stop_scope, config.log.forward) == (0.1, "tree", True)


# Every key with bad values: (key, as written, the key that is named, what else is said).
BAD: list[tuple[str, Any, str, str]] = [
    ("ready", {}, "ready", "{}"),
    ("ready", {"notify": True, "fd": 3}, "ready", "exactly one"),
    ("ready", {"notify": False}, "ready", "exactly one"),
    ("ready", {"fd": 2}, "ready.fd", "2"),
    ("ready", {"tcp": "a:b"}, "ready.tcp", '"a:b"'),
    ("ready", {"tcp": "a:65536"}, "ready.tcp", '"a:65536"'),
    ("ready", {"http": "ftp://x/"}, "ready.http", '"ftp://x/"'),
    ("ready", {"http": "http:///x"}, "ready.http", '"http:///x"'),
    ("ready", {"http": "http://x/", "insecure": True}, "ready.insecure", "https alone"),
    ("ready", {"tcp": "80", "insecure": True}, "ready.insecure", "https alone"),
    ("ready", {"exec": []}, "ready.exec", "[]"),
    ("ready", {"log": "("}, "ready.log", '"("'),
    ("ready", {"notify": True, "timeout": 0}, "ready.timeout", "0"),
    ("ready", {"notify": True, "more": 0}, "ready", "more"),
    ("after", {"web": "ready"}, "after", "the process itself"),
    ("after", {"": "ready"}, "after", "not empty"),
    ("after", {"db": "soon"}, "after", "soon"),
    ("after", {"db": {"bind": True}}, "after.when", "missing"),
    ("after", ["db"], "after", '["db"]'),
    ("check", {"tcp": "a:1"}, "check", "array"),
    ("check", [{}], "check", "exactly one"),
    ("check", [{"tcp": "a:1", "http": "http://a/"}], "check", "exactly one"),
    ("check", [{"tcp": "a:1", "period": 0}], "check.period", "found"),
    ("check", [{"tcp": "a:1", "failure_threshold": 0}], "check.failure_threshold", "found"),
    ("check", [{"heartbeat": ""}], "check.heartbeat", "path"),
    ("check", [{"http": "http://x/", "insecure": True}], "check.insecure", "https alone"),
    ("watchdog", 0, "watchdog", "0"),
    ("sockets", {"a:b": "tcp::1"}, "sockets", "a:b"),
    ("sockets", {"a": "8080"}, "sockets", "8080"),
    ("sockets", {"a": "unix:x"}, "sockets", "unix:x"),
    ("sockets", {"a": {"address": "tcp::1", "backlog": 0}}, "sockets", "backlog"),
    ("sockets", {"a": {"address": "unix:/x", "mode": "9"}}, "sockets", "mode"),
    ("sockets", {"a": "unix:/" + "x" * 107}, "sockets", "107 bytes"),
    ("schedule", {}, "schedule", "exactly one"),
    ("schedule", {"every": 1, "cron": "* * * * *"}, "schedule", "exactly one"),
    ("schedule", {"every": 0}, "schedule.every", "0"),
    ("schedule", {"every": 1, "overlap": "allow"}, "schedule.overlap", "allow"),
    ("schedule", {"every": 1, "retries": -1}, "schedule.retries", "-1"),
    ("schedule", {"cron": "0 61 * * * *"}, "schedule.cron", "its minute makes no sense"),
    ("schedule", {"cron": "0 0 30 2 *"}, "schedule.cron", "found"),
    ("schedule", {"cron": "@daily", "timezone": "Mars"}, "schedule.timezone", '"Mars"'),
    ("schedule", {"every": 1, "timezone": "UTC"}, "schedule.timezone", "cron alone"),
    ("args", [], "args", "[]"),
    ("args", [""], "args", '[""]'),
    ("args", "sleep 9", "args", '"sleep 9"'),
    ("args", None, "args", "null"),
    ("args", {"0": "a"}, "args", '{"0":"a"}'),
    ("args", ["a", 1], "args[1]", "1"),
    ("args", ["a", ["b"]], "args[1]", '["b"]'),
    ("args", ["a", "b\0"], "args", "NUL"),
    ("env", [], "env", "an array"),
    ("env", {"A": 18}, "env", "a number"),
    ("env", {"A": None}, "env", "null"),
    ("env", {"": "x"}, "env", "an object"),
    ("env", {"A=B": "x"}, "env", "A=B"),
    ("env", {"A\0": "x"}, "env", "NUL"),
    ("env", {"A": "\0"}, "env", "NUL"),
    ("env_inherit", "*", "env_inherit", '"*"'),
    ("env_inherit", [""], "env_inherit", '[""]'),
    ("env_inherit", ["A", None], "env_inherit[1]", "null"),
    ("env_inherit", ["A\0"], "env_inherit", "NUL"),
    *(
        (key, value, key, shown)
        for key in ("uid", "gid")
        for value, shown in [
            (-1, "-1"),
            (2**32 - 1, "4294967295"),
            (10**40, str(10**40)),
            (1.5, "1.5"),
            (True, "true"),
            ("", '""'),
            ("ro\0ot", "NUL"),
            ([0], "[0]"),
        ]
    ),
    ("group", "", "group", '""'),
    ("group", ["a", ""], "group", '["a",""]'),
    ("group", [1], "group[0]", "1"),
    ("group", {"a": 1}, "group", '{"a":1}'),
    ("group", None, "group", "null"),
    ("cwd", "", "cwd", '""'),
    ("cwd", 5, "cwd", "5"),
    ("cwd", "/x\0", "cwd", "NUL"),
    ("umask", -1, "umask", "-1"),
    ("umask", 0o1000, "umask", "512"),
    ("umask", "1000", "umask", '"1000"'),
    ("umask", "089", "umask", '"089"'),
    ("umask", "-1", "umask", '"-1"'),
    ("umask", "22\n", "umask", '"22\\n"'),
    ("umask", "٢٢", "umask", '"٢٢"'),
    ("umask", "", "umask", '""'),
    ("umask", False, "umask", "false"),
    ("enabled", 1, "enabled", "1"),
    ("enabled", "no", "enabled", '"no"'),
    ("enabled", None, "enabled", "null"),
    ("restart", "sometimes", "restart", '"sometimes"'),
    ("restart", "ALWAYS", "restart", '"ALWAYS"'),
    ("restart", True, "restart", "true"),
    ("success_codes", 0, "success_codes", "0"),
    ("success_codes", [256], "success_codes", "[256]"),
    ("success_codes", [-1], "success_codes", "[-1]"),
    ("success_codes", [10**40], "success_codes", str(10**40)),
    ("success_codes", ["0"], "success_codes[0]", '"0"'),
    *(
        (key, value, key, shown)
        for key in ("threshold", "kill_time", "min_restart_delay", "max_restart_delay")
        for value, shown in [(-0.1, "-0.1"), (1.1e10, "11000000000"), ("1", '"1"'), (True, "true"), ([1], "[1]")]
    ),
    ("jitter", 1.01, "jitter", "1.01"),
    ("jitter", -0.01, "jitter", "-0.01"),
    ("jitter", None, "jitter", "null"),
    ("stop", "TERM", "stop", '"TERM"'),
    ("stop", ["TERM", 5], "stop[0]", '"TERM"'),
    ("stop", [["TERM"]], "stop[0]", '["TERM"]'),
    ("stop", [["INT", 1], ["TERM", "5"]], "stop[1][1]", '"5"'),
    ("stop", [["NOPE", 5]], "stop", "NOPE"),
    ("stop", [["SIG_DFL", 5]], "stop", "SIG_DFL"),
    ("stop", [[0, 5]], "stop", "[[0,5]]"),
    ("stop", [[-9, 5]], "stop", "[[-9,5]]"),
    ("stop", [[65, 5]], "stop", "[[65,5]]"),
    ("stop", [[True, 5]], "stop[0][0]", "true"),
    ("stop", [["TERM", -1]], "stop", '[["TERM",-1]]'),
    ("stop_scope", "group", "stop_scope", '"group"'),
    ("log", [], "log", "[]"),
    ("log", None, "log", "null"),
    ("log", {"forward": 0}, "log.forward", "0"),
    ("log", {"max_bytes": 4095}, "log", "4095"),
    ("log", {"max_bytes": "1X"}, "log.max_bytes", '"1X"'),
    ("log", {"max_bytes": "1K"}, "log.max_bytes", '"1K"'),
    ("log", {"keep": -1}, "log", "-1"),
    ("log", {"keep": 100_001}, "log", "100001"),
    ("log", {"stdout": True}, "log.stdout", "true"),
    ("log", {"stdout": ""}, "log.stdout", '""'),
    ("log", {"stderr": "a\0"}, "log.stderr", "NUL"),
    ("log", {"stdout": "/tmp/"}, "log", "/tmp/"),
    ("log", {"format": "xml"}, "log.format", "xml"),
    ("log", {"overflow": "spill"}, "log.overflow", "spill"),
    ("log", {"stdin": "/tmp/x"}, "log", "stdin"),
    ("nice", 20, "nice", "20"),
    ("nice", -21, "nice", "-21"),
    ("nice", "5", "nice", '"5"'),
    ("oom_score_adj", 1001, "oom_score_adj", "1001"),
    ("limits", {"nofiles": 5}, "limits", "nofiles"),
    ("limits", {"nofile": "5"}, "limits", "5"),
    ("limits", {"nofile": [5]}, "limits", "[5]"),
    ("limits", {"nofile": [6, 5]}, "limits", "[6,5]"),
    ("limits", {"nofile": ["unlimited", 5]}, "limits", "unlimited"),
    ("limits", {"nofile": -1}, "limits", "-1"),
    ("limits", {"nofile": 2**63}, "limits", str(2**63)),
    ("give_up", {"failures": 3}, "give_up.within", "missing"),
    ("give_up", {"failures": 0, "within": 5}, "give_up", '"failures":0'),
    ("give_up", {"failures": 3, "within": 0}, "give_up", '"within":0'),
    ("give_up", {"failures": 3, "within": 5, "retry": 1}, "give_up", "retry"),
    ("give_up", {"failures": 3, "within": 5, "retry_after": -1}, "give_up", "-1"),
    ("instances", -1, "instances", "-1"),
    ("instances", 10_001, "instances", "10001"),
    ("instances", "2", "instances", '"2"'),
    ("memory_max", 0, "memory_max", "0"),
    ("memory_max", "lots", "memory_max", "lots"),
    ("memory_max", "-1M", "memory_max", "-1M"),
    ("memory_max", "1.5G", "memory_max", "1.5G"),
    ("memory_max", "9999999999999999999T", "memory_max", "T"),
    ("on_exit", "stop", "on_exit", "stop"),
    ("on_give_up", "stop", "on_give_up", "stop"),
    ("env_file", "", "env_file", '""'),
    ("env_file", [5], "env_file[0]", "5"),
    ("env_secret", ["/x"], "env_secret", "an array"),
    ("env_secret", {"A": 5}, "env_secret.A", "a number"),
    ("env_secret", {"A=": "/x"}, "env_secret", "A="),
    ("env_secret", {"A": ""}, "env_secret", "not empty"),
    ("rollback_if_not_ready", -1, "rollback_if_not_ready", "-1"),
]


@pytest.mark.parametrize(("key", "value", "named", "said"), BAD)
def test_a_bad_value(key: str, value: Any, named: str, said: str) -> None:
    """A value of the wrong type or range is a Problem that names file, key and value."""
    found = problem(written(**{key: value}))
    # Of what is wrong inside `env` or `log`, the key may say more.
    assert found.key == named or (named in ("env", "log") and found.key.startswith(named))
    assert said in found.why
    assert str(found).startswith(f"cannot use web: {found.key}: ")


@pytest.mark.parametrize("restart", ["x - at `$.args`", "x - at `$.args[0]`"])
def test_a_value_cannot_pass_for_another_key(restart: str) -> None:
    """A text that looks like part of an error message does not change which key is blamed."""
    assert problem(written(restart=restart)).key == "restart"


def test_the_bad_one_of_many_variables_is_named() -> None:
    """In a long `env`, the Problem names the variable that is wrong."""
    env: dict[str, Any] = {f"VARIABLE_{number}": "some value" for number in range(20)}
    assert "PORT" in str(problem(written(env=env | {"PORT": 8080})))
    assert "SECRET" in str(problem(written(env=env | {"SECRET": "\0"})))


@pytest.mark.parametrize("odd", ["\n", "\x1b", "\x7f", "\x9b", "\u2028"])
def test_a_problem_is_one_line_that_can_be_shown(odd: str) -> None:
    """Control characters of a value are escaped in its Problem, and those of a key in its warning."""
    mid = f"a{odd}b"
    contents: list[dict[str, Any]] = [{"restart": mid}, {"stop": [[mid, 1]]}, {"cwd": [mid]}, {"log": {mid: 1}}]
    texts = [str(define("web", written(**content))) for content in contents]
    texts += defined(written(**{f"args{odd}": 1})).warnings
    assert [text for text in texts if not text.isprintable()] == []


def test_least_delay_above_the_greatest_is_a_problem() -> None:
    """min_restart_delay may equal max_restart_delay and not exceed it."""
    assert defined(written(min_restart_delay=4, max_restart_delay=4))
    found = problem(written(min_restart_delay=5, max_restart_delay=4))
    assert found.key == "min_restart_delay"
    assert "5" in found.why
    assert "4" in found.why


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1" + "0" * 400])
@pytest.mark.parametrize("key", ["kill_time", "threshold"])
def test_a_number_beyond_all_bounds_is_blamed_on_its_key(key: str, text: str) -> None:
    """A number that no float can hold is out of range like any other: the Problem names its key."""
    assert problem(b'{"args": ["a"], "%s": %s}' % (key.encode(), text.encode())).key == key


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"{", "JSON"),
        (b'{"args": ["a"]', "JSON"),
        (b'{"args": ["a"],}', "JSON"),
        (b"{'args': ['a']}", "JSON"),
        (b'{"args": ["a"]} {}', "JSON"),
        (b'{"args": ["a"], "x": NaN}', "JSON"),
        (b'{"args": ["a"], "x": Infinity}', "JSON"),
        (b'{"args": ["a"], "x": 01}', "JSON"),
        (b"\xef\xbb\xbf" + b'{"args": ["a"]}', "JSON"),
        (b"\0" * 100, "JSON"),
        (b"\xff\xfe{\0}\0", "JSON"),
        (b'{"args": ["\xff"]}', "UTF-8"),
        (b'{"args": ["a"], "x": "\xc3"}', "UTF-8"),
        (b'{"args": ["a"], "\xff": 1}', "UTF-8"),
        (b"null", "null"),
        (b"[]", "array"),
        (b"5", "number"),
        (b"1.5", "number"),
        (b'"args"', "string"),
        (b"true", "true or false"),
    ],
)
def test_what_is_no_json_object(data: bytes, said: str) -> None:
    """A file that is no JSON object is a Problem of the whole file."""
    found = problem(data)
    assert found.key == ""
    assert said in found.why
    assert str(found).startswith("cannot use web: ")


def test_a_missing_program_is_named() -> None:
    """A file without args says which key is missing."""
    assert problem(b"{}").key == "args"
    assert problem(b'{"arg": ["a"]}').key == "args"


@pytest.mark.parametrize("value", [b"[" * 10**6, b'{"a":' * 10**6, b"[" * 10**5 + b"]" * 10**5])
def test_nesting_without_end_is_a_problem(value: bytes) -> None:
    """A file nested a million deep is a Problem, wherever the nesting is."""
    problem(value)
    problem(b'{"args": ["a"], "x": ' + value)
    problem(b'{"args": ["a"], "x": ' + value + b"}")


@pytest.mark.parametrize(
    "around",
    [
        lambda value: b'{"args": ' + value + b"}",
        lambda value: b'{"args": ["a"], "x": ' + value + b"}",
        lambda value: b'{"args": ["a"], "log": ' + value + b"}",
        lambda value: b'{"args": ["a"], "stop": ' + value + b"}",
    ],
)
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_at_the_edge_is_a_problem_too(around: Callable[[bytes], bytes], opening: bytes, closing: bytes) -> None:
    """No depth of nesting, however near to what the interpreter bears, is more than a Problem."""
    kinds = {
        type(define("web", around(opening * depth + b"1" + closing * depth)))
        for depth in range(1, sys.getrecursionlimit())
    }
    assert kinds <= {Definition, Problem}
    assert Problem in kinds


def below(depth: int, call: Callable[[], Any]) -> Any:
    """What `call` returns when it is called from so many calls further down."""
    return below(depth - 1, call) if depth else call()


@pytest.mark.parametrize("number", [b"1", b"1" * 30], ids=["msgspec", "json"])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_what_was_good_once_is_so_wherever_it_is_asked_for(opening: bytes, closing: bytes, number: bytes) -> None:
    """However deeply a good file is nested, who asks what it says may have come any way to do so."""
    good = 0
    for depth in [*range(195, 205), *range(300, sys.getrecursionlimit(), 7)]:
        found = define("web", b'{"args": ["a"], "x": ' + opening * depth + number + closing * depth + b"}")
        if isinstance(found, Problem):
            assert found.why == "nested too deeply"
            continue
        good = depth
        forget_all()
        assert below(300, lambda found=found: found.config.args) == ("a",)  # type: ignore[misc]
    assert good == 199  # with the object around it two hundred
    wide = define("web", b'{"args": ["a"], "x": [' + b",".join([b"[{}]"] * 1000) + b"]}")
    assert isinstance(wide, Definition)


def test_huge_files_are_read() -> None:
    """Size alone is no problem: a long argument, and many variables, are kept whole."""
    args, env = ["x" * 900_000], {f"V{number}": "y" * 50 for number in range(10_000)}
    config = defined(written(args=args, env=env)).config
    assert config.args == tuple(args)
    assert config.env == env


def test_a_huge_value_is_not_repeated_in_its_problem() -> None:
    """The Problem with a value of a megabyte is one line that can be read."""
    assert len(str(problem(written(restart={"x": "y" * 10**6})))) < 200
    assert len(str(problem(written(args=["\0" * 10**6])))) < 200


def test_the_last_of_equal_keys_counts() -> None:
    """A key that is there twice has its last value, as in every other JSON reader."""
    found = defined(b'{"args": ["a"], "args": ["b"], "env": {"A": "1", "A": "2"}}')
    assert (found.config.args, found.config.env) == (("b",), {"A": "2"})
    assert problem(b'{"args": ["a"], "args": 5}').key == "args"


# What is not ours


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("arg", "args"),
        ("envs", "env"),
        ("unmask", "umask"),
        ("kil_time", "kill_time"),
        ("killtime", "kill_time"),
        ("groups", "group"),
        ("enable", "enabled"),
        ("min_restart_dealy", "min_restart_delay"),
        ("env_inherits", "env_inherit"),
        ("logs", "log"),
        ("restarts", "restart"),
    ],
)
def test_a_near_miss_is_warned_of(key: str, meant: str) -> None:
    """A key that is nearly one of ours is kept as an extra and warned of."""
    (warning,) = defined(written(**{key: 5})).warnings
    assert warning.startswith(f"{key}: ")
    assert meant in warning.split(" ")[-1]


@pytest.mark.parametrize("key", ["owner", "x", "", "version", "comment", "description", "a b", "\0", "__class__"])
def test_extras_are_the_users(key: str) -> None:
    """Any other key is the user's own, whatever it holds: no warning, no effect."""
    found = defined(written(**{key: {"any": ["thing", None]}}))
    assert found.warnings == ()
    assert found.config == defined(written()).config


@pytest.mark.parametrize("key", ["ncolony.beatcheck", "ncolony.httpcheck", "mycorp.owner", "my.args", "arg.s", "."])
def test_dotted_keys_are_other_programs(key: str) -> None:
    """A dotted key is never judged, however near to one of ours."""
    assert defined(written(**{key: "anything"})).warnings == ()


# What a change means


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"args":["a"],"env":{"A":"1","B":"2"}}', b' {\n"env" : {"B":"2", "A":"1"} , "args": [ "a" ]\t}\n'),
        (b'{"args":["a"],"x":{"p":{"q":1,"r":2}}}', b'{"x":{"p":{"r":2,"q":1}},"args":["a"]}'),
        (b'{"args":["\xc3\xa9"]}', b'{"args":["\\u00e9"]}'),
        (b'{"args":["a"],"args":["b"]}', b'{"args":["b"]}'),
        (b'{"args":["a"],"jitter":0.5}', b'{"args":["a"],"jitter":5e-1}'),
    ],
)
def test_equal_values_are_no_change(one: bytes, other: bytes) -> None:
    """White space, the order of keys and ways of writing the same value do not change what identifies a definition."""
    first, second = defined(one), defined(other)
    assert (first.digest, first.generation) == (second.digest, second.generation)


LIVE: dict[str, Any] = {
    "after": {"db": "ready"},
    "check": [{"tcp": "localhost:80"}],
    "watchdog": 5,
    "schedule": {"every": 5},
    "restart": "never",
    "success_codes": [0, 3],
    "threshold": 7,
    "kill_time": 7,
    "min_restart_delay": 0.5,
    "max_restart_delay": 7,
    "jitter": 0.7,
    "stop": [["INT", 7]],
    "stop_scope": "process",
    "give_up": {"failures": 2, "within": 9},
    "on_exit": "shutdown",
    "on_give_up": "shutdown",
    "memory_max": "1G",
    "instances": 2,
    "rollback_if_not_ready": 9,
}


@pytest.mark.parametrize("value", ["https://example.com/schema.json", 5, {"a": 1}])
def test_keys_of_editors_mean_nothing(value: Any) -> None:
    """A key that begins with "$" is for editors: no warning, and a change of it is no change."""
    plain, marked = defined(written()), defined(written(**{"$schema": value, "$comment": "x"}))
    assert marked.warnings == ()
    assert (plain.digest, plain.generation) == (marked.digest, marked.generation)
    assert plain.config == marked.config


@pytest.mark.parametrize("key", sorted(LIVE_KEYS))
def test_a_live_key_changes_the_digest_alone(key: str) -> None:
    """A live key is a change, and needs no restart."""
    before, after = defined(written()), defined(written(**{key: LIVE.get(key, "later")}))
    assert before.digest != after.digest
    assert before.generation == after.generation


@pytest.mark.parametrize("log", [{"max_bytes": 9999}, {"keep": 3}, {"max_bytes": 9999, "keep": 3}, {}])
def test_the_sizes_of_the_log_are_live(log: dict[str, Any]) -> None:
    """A change of the sizes in `log` needs no restart, whether or not `log` was there before."""
    before, after = defined(written()), defined(written(log=log))
    assert before.digest != after.digest
    assert before.generation == after.generation
    quiet, small = defined(written(log={"forward": False})), defined(written(log={"forward": False} | log))
    assert quiet.generation == small.generation


OTHER: list[tuple[str, Any]] = [
    ("args", ["sleep", "8"]),
    ("args", ["9", "sleep"]),
    ("env", {"A": "1"}),
    ("env_inherit", ["A"]),
    ("uid", 5),
    ("gid", 5),
    ("group", "g"),
    ("cwd", "/"),
    ("umask", 18),
    ("enabled", False),
    ("log", {"forward": False}),
    ("nice", 5),
    ("oom_score_adj", 5),
    ("limits", {"core": 0}),
    ("env_file", "/x"),
    ("env_secret", {"A": "/x"}),
    ("owner", "me"),
    ("mycorp.owner", "me"),
    ("ncolony.httpcheck", {"url": "http://x/"}),
    ("ready", {"notify": True}),
    ("sockets", {"http": "tcp::0"}),
]


@pytest.mark.parametrize(("key", "value"), OTHER)
def test_any_other_change_is_a_new_generation(key: str, value: Any) -> None:
    """Any other change needs a restart, dotted keys and extras included."""
    before, after = defined(written()), defined(written(**{key: value}))
    assert before.digest != after.digest
    assert before.generation != after.generation


def test_every_key_is_live_or_not() -> None:
    """The two tables of changes together leave no key out."""
    assert {*LIVE, *(key for key, _ in OTHER)} >= KNOWN_KEYS
    assert not {*LIVE} & {key for key, _ in OTHER}


def forget_all() -> None:
    """Have every text looked into anew."""
    for number in range(600):
        define("web", b'{"args": ["forget", "%d"]}' % number)


DOCS = Path(__file__).parent.parent.parent / "docs"
BLOCKS = [
    block.encode()
    for page in sorted(DOCS.rglob("*.md"))
    for block in re.findall(r"^```json\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
]
EXAMPLES = [block for block in BLOCKS if isinstance(define("web", block), Definition)]
ONLY_JSON = [
    b'{"args": ["a"], "x": 123456789012345678901234567890}',
    b'{"args": ["a"], "threshold": 3, "x": [1e400, -1e400, {"y": 1e999}]}',
    b'{"args": ["a"], "x": 1e400, "env": {"A": "1"}, "env": {"A": "2"}}',
]


@pytest.mark.parametrize("data", [*EXAMPLES, *ONLY_JSON])
def test_what_it_says_is_the_same_each_time(data: bytes) -> None:
    """What a definition says is made of its text when it is asked for, and equal to what it was when it was read."""
    found = define("web", data)
    assert isinstance(found, Definition)
    at_first = found.config
    assert found.config is at_first
    content = {key: value for key, value in json.loads(data).items() if key in KNOWN_KEYS}
    assert at_first == msgspec.convert(content, ProcessConfig)
    forget_all()
    assert found.config is not at_first
    assert found.config == at_first
    assert found.text == data


@pytest.mark.parametrize(("key", "value", "decoded"), GOOD)
def test_good_values_are_the_same_each_time(key: str, value: Any, decoded: Any) -> None:
    """That holds for each key."""
    found = defined(written(**{key: value}))
    config_module._recent.configs.clear()
    assert getattr(found.config, key) == decoded


def test_examples_are_there() -> None:
    """There are some in the documentation."""
    assert len(EXAMPLES) >= 5


def test_little_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked into lately is remembered, within bounds by number and by size, and each text once."""
    monkeypatch.setattr(config_module, "_recent", recent := config_module._Recent())
    for number in range(2000):
        define("web", written(x=number % 1500))
    assert len(recent.configs) == 512
    assert recent.size == sum(map(len, recent.configs))
    assert written(x=499) in recent.configs
    for _ in range(2):  # once known, again unknown, known
        define("web", written(x=499))
        define("web", written(x=-1))
    assert recent.size == sum(map(len, recent.configs))
    assert len(recent.configs) == 512
    newest = [defined(written(x=number, y="x" * 1_000_000)) for number in range(40)]
    assert 6_000_000 < recent.size <= 8 << 20
    assert recent.size == sum(map(len, recent.configs))
    assert newest[-1].config is newest[-1].config
    for _ in range(100):
        assert newest[-1].config == newest[0].config
    assert recent.size == sum(map(len, recent.configs)) <= 8 << 20


def test_the_text_is_kept_as_it_is() -> None:
    """A definition holds the file's own bytes: they are what the process is told."""
    data = b' {"args" : ["a"], "x": 1.50}\n'
    assert defined(data).text == data
    assert decode("web", data) == defined(data).config
    assert decode("web", b"{}") == problem(b"{}")


# Small words


def test_a_group_is_a_list_however_it_is_written() -> None:
    """One group may be written as a string."""
    assert defined(written(group="a")).config.groups == ("a",)
    assert defined(written(group=["a", "b"])).config.groups == ("a", "b")
    assert defined(written()).config.groups == ()


@pytest.mark.parametrize(
    ("umask", "bits"), [("022", 0o22), ("22", 0o22), ("0o22", 0o22), (18, 0o22), ("0", 0), (None, None)]
)
def test_a_umask_in_text_is_octal(umask: str | int | None, bits: int | None) -> None:
    """Text is octal, as in a shell; a number is itself."""
    assert defined(written(umask=umask)).config.umask_bits == bits


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("term", 15),
        ("sigterm", 15),
        (15, 15),
        (64, 64),
        (0, None),
        (65, None),
        (-1, None),
        ("", None),
        ("SIG", None),
        ("SIGSIGTERM", None),
        ("_DFL", None),
        ("_BLOCK", None),
        ("15", None),
    ],
)
def test_signals_by_name_and_number(name: str | int, number: int | None) -> None:
    """A signal is known with or without SIG, in any case, or by its number."""
    assert signal_number(name) == number


def test_signal_names_come_back() -> None:
    """The name that is shown for a signal is one that can be written."""
    assert all(signal_number(signal_name(number)) == number for number in signal.Signals)
    assert signal_name(40) == "signal 40"


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_json_stays_so_beside_large_numbers(word: str) -> None:
    """NaN and Infinity are no JSON, in a file with a number beyond all bounds too."""
    assert problem(b'{"args": ["a"], "x": %s}' % word.encode()).key == ""
    assert problem(b'{"args": ["a"], "y": 1e400, "x": %s}' % word.encode()).key == ""


def test_letters_that_only_look_like_others_name_nothing() -> None:
    """A long s is no S in the name of a signal, and the Kelvin sign no K in the name of a limit."""
    assert signal_number("\u017figterm") is None
    assert problem(written(limits={"memloc\u212a": 1})).key == "limits"


# Whatever a file holds

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=9)
    | st.sampled_from(["TERM", "always", "", "\0", 10**30, -1, 0]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["forward", "keep"]) | st.text(st.characters(codec="utf-8")), inner, max_size=3
        )
    ),
    max_leaves=6,
)
keys = st.sampled_from(sorted(KNOWN_KEYS)) | st.text(st.characters(codec="utf-8"), max_size=9)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=100) | st.text(string.printable, max_size=100).map(str.encode))
def test_any_bytes_are_a_definition_or_a_problem(data: bytes) -> None:
    """Whatever bytes a file holds, looking at them does not fail."""
    assert isinstance(define("web", data), Definition | Problem)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(keys, json_values, max_size=4), st.booleans())
def test_any_json_is_a_definition_or_a_problem(content: dict[str, Any], program: bool) -> None:
    """Whatever JSON a file holds, it is a definition, or a Problem with one of our keys."""
    found = define("web", json.dumps({"args": ["a"]} | content if program else content).encode())
    if isinstance(found, Problem):
        assert found.key.split("[")[0].split(".")[0] in {*content, "args"} & KNOWN_KEYS
        assert str(found).startswith("cannot use web: ")
    else:
        assert found.config.args[0]


seconds = st.floats(0, 1e10)
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9)
good_contents = st.fixed_dictionaries(
    {"args": st.lists(text, min_size=1, max_size=3)},
    optional={
        "env": st.dictionaries(text.map(lambda name: name.replace("=", "_")), text, max_size=3),
        "env_inherit": st.lists(text, max_size=3),
        "uid": st.integers(0, 2**32 - 2) | text,
        "gid": st.integers(0, 2**32 - 2) | text,
        "group": text | st.lists(text, max_size=3),
        "cwd": text,
        "umask": st.integers(0, 0o777) | st.integers(0, 0o777).map(lambda number: f"{number:03o}"),
        "enabled": st.booleans(),
        "restart": st.sampled_from(["always", "on-failure", "never"]),
        "success_codes": st.lists(st.integers(0, 255), max_size=3),
        "threshold": seconds,
        "kill_time": seconds,
        "max_restart_delay": seconds,
        "jitter": st.floats(0, 1),
        "stop": st.lists(st.tuples(st.sampled_from(["TERM", "sigint", 9, 40]), seconds), max_size=3),
        "stop_scope": st.sampled_from(["tree", "process"]),
        "log": st.fixed_dictionaries(
            {},
            optional={"forward": st.booleans(), "max_bytes": st.integers(4096, 2**63 - 1), "keep": st.integers(0, 9)},
        ),
    },
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(good_contents)
def test_round_trip(content: dict[str, Any]) -> None:
    """A good config is read, and what was read can be written and read again."""
    config = defined(json.dumps(content).encode()).config
    assert set(content) <= KNOWN_KEYS
    assert defined(msgspec.json.encode(config)).config == config
    content = json.loads(json.dumps(content))
    read = json.loads(msgspec.json.encode(config))
    assert {key: read[key] for key in content if key != "log"} == {k: v for k, v in content.items() if k != "log"}
    assert read["log"].items() >= content.get("log", {}).items()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(keys.filter(lambda key: key not in KNOWN_KEYS), json_values, max_size=4), st.integers())
def test_the_order_of_keys_never_matters(extras: dict[str, Any], seed: int) -> None:
    """Any shuffling and any indentation leaves digest and generation as they were."""
    content = extras | {"args": ["a"], "env": {"A": "1", "B": "2"}}
    shuffled = list(content.items())
    random.Random(seed).shuffle(shuffled)
    one, other = defined(json.dumps(content).encode()), defined(json.dumps(dict(shuffled), indent=seed % 5).encode())
    assert (one.digest, one.generation) == (other.digest, other.generation)


def test_the_generation_of_a_directory_is_that_of_its_files() -> None:
    """It depends on every name and content, not on their order; a name that is no text counts too."""
    contents = {"a": b"1", "b": b"2", "\udcff": b""}
    pairs = [(name, blake2b(data, digest_size=16).digest()) for name, data in contents.items()]
    found = directory_generation(pairs)
    assert found == directory_generation(reversed(pairs))
    assert re.fullmatch("[0-9a-f]{32}", found)
    assert directory_generation([]) == "0" * 32
    swapped = [(pairs[0][0], pairs[1][1]), (pairs[1][0], pairs[0][1]), pairs[2]]
    others = [directory_generation(some) for some in (pairs[:2], pairs[1:], swapped)]
    assert len({found, *others}) == 4
    one = int.from_bytes(blake2b(b"a\0" + pairs[0][1], digest_size=16).digest(), "big")
    assert directory_generation(pairs[:1]) == f"{one:032x}"
