"""The bytes of a message file become a request or a Problem."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.model.config import Problem
from ncolony.model.message import (
    TYPES,
    Answer,
    Message,
    Report,
    Restart,
    RestartAll,
    RestartGroup,
    Scan,
    Shutdown,
    Signal,
    Start,
    Stop,
    Upgrade,
    decode,
    decode_answer,
)

GOOD: list[tuple[str, Message]] = [
    ('{"type": "RESTART", "name": "web"}', Restart("web")),
    ('{"name": "web", "type": "RESTART"}', Restart("web")),
    ('{"type": "RESTART", "name": "web", "instance": 3, "why": "ill"}', Restart("web", None, 3, "ill")),
    ('{"type": "RESTART-ALL"}', RestartAll()),
    ('{"type": "RESTART-GROUP", "group": "shop"}', RestartGroup("shop")),
    ('{"type": "STOP", "name": "web"}', Stop("web")),
    ('{"type": "STOP", "name": "web", "instance": 3, "why": "too slow"}', Stop("web", 3, "too slow")),
    ('{"type": "RESTART", "name": "web", "why": "stale"}', Restart("web", why="stale")),
    ('{"type": "REPORT", "name": "job", "what": "skipped", "why": "busy"}', Report("job", "skipped", None, "busy")),
    ('{"type": "START", "name": "web"}', Start("web")),
    ('{"type": "SCAN"}', Scan()),
    (' {"type": "SCAN"}\n', Scan()),
    ('{"type": "SIGNAL", "name": "web", "signal": "HUP"}', Signal("web", "HUP", "process")),
    ('{"type": "SIGNAL", "name": "web", "signal": "SIGRTMIN", "scope": "process"}', Signal("web", "SIGRTMIN")),
    ('{"type": "SIGNAL", "name": "web", "signal": 9, "scope": "tree"}', Signal("web", 9, "tree")),
    ('{"type": "REPORT", "name": "web", "what": "ready", "instance": 3}', Report("web", "ready", 3)),
    (
        '{"type": "REPORT", "name": "web", "what": "unhealthy", "why": "no answer"}',
        Report("web", "unhealthy", None, "no answer"),
    ),
    ('{"type": "UPGRADE"}', Upgrade()),
    ('{"type": "SHUTDOWN"}', Shutdown()),
    ('{"type": "STOP", "name": "naïve", "asked_by": {"who": "me"}}', Stop("naïve")),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_a_good_message(text: str, expected: Message) -> None:
    """Each type decodes to its request; the order of keys and further keys do not matter."""
    assert decode("m1", text.encode()) == expected


def test_every_type_has_a_row() -> None:
    """The table above leaves no type of message out."""
    assert {json.loads(text)["type"] for text, _ in GOOD} == set(TYPES)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ["truncated"]),
        (b"{", ["truncated"]),
        (b"null", ["object", "null"]),
        (b"[]", ["object", "array"]),
        (b"{}", ["type"]),
        (b'{"type": 5}', ["type"]),
        (b'{"type": "RESTRAT", "name": "web"}', ["type", "RESTRAT"]),
        (b'{"type": "restart", "name": "web"}', ["type", "restart"]),
        (b'{"type": "RESTART"}', ["name"]),
        (b'{"type": "RESTART", "name": 5}', ["name", "int"]),
        (b'{"type": "RESTART", "name": null}', ["name", "null"]),
        (b'{"type": "RESTART-GROUP", "name": "web"}', ["group"]),
        (b'{"type": "STOP"}', ["name"]),
        (b'{"type": "STOP", "name": "web", "instance": "3"}', ["instance", "str"]),
        (b'{"type": "START", "name": ["web"]}', ["name", "array"]),
        (b'{"type": "SIGNAL", "name": "web"}', ["signal"]),
        (b'{"type": "SIGNAL", "signal": "HUP"}', ["name"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": "NOSUCH"}', ["signal:", "no signal 'NOSUCH'"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": "_DFL"}', ["signal:", "'_DFL'"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": ""}', ["signal:", "''"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": 0}', ["signal:", "no signal 0"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": -9}', ["signal:", "-9"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": 4711}', ["signal:", "4711"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": true}', ["signal", "bool"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": 1.5}', ["signal", "float"]),
        (b'{"type": "SIGNAL", "name": "web", "signal": "HUP", "scope": "group"}', ["scope", "group"]),
        (b'{"type": "REPORT", "name": "web"}', ["what"]),
        (b'{"type": "REPORT", "name": "web", "what": "dead"}', ["what", "dead"]),
        (b'{"type": "REPORT", "name": "web", "what": "ready", "instance": "3"}', ["instance", "str"]),
        (b'{"type": "SCAN"} {"type": "SCAN"}', ["trailing"]),
        (b'{"type": "STOP", "name": "\xff"}', ["UTF-8"]),
        (b"\xff\xfe", ["JSON"]),
    ],
)
def test_a_bad_message(data: bytes, said: list[str]) -> None:
    """What makes no sense is a Problem that names the file and says what is wrong."""
    found = decode("m1", data)
    assert isinstance(found, Problem)
    assert found.name == "m1"
    text = str(found)
    assert text.startswith("cannot use m1: ")
    for word in said:
        assert word.lower() in text.lower()
    assert "\n" not in text


@pytest.mark.parametrize("data", [b"\xff", b"nonsense", b'{"type": "SCAN"} x'])
def test_json_is_spelled_json(data: bytes) -> None:
    """A message that is not JSON is called just that."""
    assert "not JSON" in str(decode("m1", data))


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"type": "SCAN", "x": ' + b"[" * 100_000])
def test_deep_nesting_is_a_problem(data: bytes) -> None:
    """A message nested without end is refused like any other."""
    assert isinstance(decode("m1", data), Problem)


def test_what_is_wrong_is_told_in_one_line() -> None:
    """A message's own words, quoted in what is wrong with it, harm no terminal and are not repeated at any length."""
    found = decode("m1", b'{"type": "\\u001b[31m\\n' + b"x" * 1000 + b'"}')
    assert isinstance(found, Problem)
    assert found.why.isprintable()
    assert "\\x1b[31m" in found.why
    assert len(found.why) < 300


@pytest.mark.parametrize("data", [b"", b"{}", b'"x"', b"\xff", b'{"accepted": true}', b'{"x": ' + b"[" * 100_000])
def test_what_is_no_answer_is_none(data: bytes) -> None:
    """A torn or foreign answer is no answer."""
    assert decode_answer(data) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(TYPES) | json_values,
            "name": json_values,
            "group": json_values,
            "signal": json_values,
        },
    ).map(lambda value: json.dumps(value).encode())
)
def test_decode_never_raises(data: bytes) -> None:
    """Whatever a message file holds, it is a request or a Problem."""
    assert isinstance(decode("m1", data), Problem | Message)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(["RESTART", "STOP", "START"]), st.text(st.characters(codec="utf-8")))
def test_any_name_comes_through(kind: str, name: str) -> None:
    """The name in a message arrives as it was written."""
    found = decode("m1", json.dumps({"type": kind, "name": name}).encode())
    assert isinstance(found, Restart | Stop | Start)
    assert found.name == name


def test_an_answer_has_room_for_what_it_need_not_say() -> None:
    """An answer without names, reason or generation holds empty ones."""
    assert Answer(accepted=False, state="failed") == Answer(False, "failed", "", (), "")


def test_a_long_signal_is_not_repeated_whole() -> None:
    """Of a signal that is none only the beginning is shown."""
    found = decode("m1", json.dumps({"type": "SIGNAL", "name": "web", "signal": "x" * 5000}).encode())
    assert "no signal 'xxx" in str(found)
    assert len(str(found)) < 120


def test_an_answer_always_has_what_readers_look_for() -> None:
    """Why, names and generation are written also when empty; what only a supervisor needs is left out."""
    assert json.loads(msgspec.json.encode(Answer(accepted=True, state="done"))) == {
        "accepted": True,
        "state": "done",
        "why": "",
        "names": [],
        "generation": "",
    }
    asked = Answer(accepted=True, state="accepted", goal="up", since={"web": 3})
    assert json.loads(msgspec.json.encode(asked)).items() >= {"goal": "up", "since": {"web": 3}}.items()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(accepted=True, state="done"),
        Answer(accepted=True, state="accepted", names=("a", "b"), goal="down", since={"a": 0, "b": 7}),
    ],
)
def test_an_answer_comes_back_as_it_was_written(answer: Answer) -> None:
    """What one supervisor writes is what the next one reads."""
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Answer) == answer
