"""What a keeper reports is checked before anybody acts upon it."""

from __future__ import annotations

from typing import Any

import pytest

from ncolony.system.reports import checked

END = {"code": 0, "lived": 1.5, "at": 1.7e9}
HELD = {
    "id": "00aa", "name": "web", "number": 3, "memo": None, "pid": 4321, "started": 5.5, "alive": True, "empty": False,
    "end": None, "since": 0, "began": 99,
}  # fmt: skip
WELCOME = {"is": "welcome", "protocol": 2, "pid": 7, "code": "c", "vanished": [["00bb", 3.5]], "held": [HELD]}
GOOD: list[dict[str, Any]] = [
    WELCOME,
    {"is": "started", "id": "00aa", "pid": 4321, "at": 5.5, "began": 99},
    {"is": "refused", "id": "00aa", "why": "cannot run it"},
    {"is": "exited", "id": "00aa", "end": END, "empty": True, "since": 0},
    {"is": "exited", "id": "00aa", "end": {"unknown": True, "lived": 1, "at": 1, "was": [0, None]}, "empty": True},
    {"is": "emptied", "id": "00aa"},
    {"is": "signalled", "ack": "m1", "done": True},
    {"is": "tree", "id": "00aa", "members": ["pid 5 (sleep)"]},
    {"is": "memory", "sizes": {"00aa": 5}},
    {"is": "notify", "id": "00aa", "said": {"READY": "1", "STATUS": "serves"}},
    {"is": "kept", "key": "listen/web/tcp::80"},
    {**WELCOME, "held": [{**HELD, "said": {"READY": "1"}, "given": [["listen/web/tcp::80", 3, "('::', 80)"]]}]},
    {"is": "trouble", "name": "web", "why": "", "dropped": 0},
    {"is": "output", "name": "web", "from": 0, "to": 5, "last": False},
    {"is": "output", "name": "web/stderr", "from": 0, "to": 5, "last": False},
    {"is": "lost", "why": ""},
    {"is": "something of a later version", "x": 5},
]


@pytest.mark.parametrize("report", GOOD, ids=lambda report: report["is"])
def test_a_good_report_passes_as_it_is(report: dict[str, Any]) -> None:
    """Reports of every kind pass, and kinds that nobody knows yet."""
    assert checked(report) == report


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"is": 5},
        {"is": "started", "id": "00aa"},
        {"is": "started", "id": "00aa", "pid": "x", "at": 5.5},
        {"is": "started", "id": "00aa", "pid": 5, "at": float("inf")},
        {"is": "started", "id": "../../etc/passwd", "pid": 5, "at": 5.5},
        {"is": "exited", "id": "00aa", "end": {**END, "lived": float("nan")}, "empty": True},
        {"is": "exited", "id": "00aa", "end": {**END, "code": "x"}, "empty": True},
        {"is": "memory", "sizes": {"00aa": -1}},
        {"is": "notify", "id": "00aa", "said": {"READY": 1}},
        {"is": "notify", "id": "00aa", "said": []},
        {"is": "notify", "id": "..", "said": {}},
        {"is": "kept", "key": 5},
        {"is": "output", "name": "web/x", "from": 0, "to": 5, "last": False},
        {"is": "output", "name": "../x", "from": 0, "to": 5, "last": False},
        {"is": "output", "name": "web", "from": 0, "to": 1 << 63, "last": False},
        {**WELCOME, "vanished": [[5, 5]]},
        {**WELCOME, "held": 5},
    ],
)
def test_a_report_that_makes_no_sense_is_refused(report: dict[str, Any]) -> None:
    """A value of a wrong type or out of range is an error, and so is a name that leads out of its directory."""
    with pytest.raises(ValueError):
        checked(report)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 5},
        {"name": "../x"},
        {"number": -1},
        {"alive": False},
        {"alive": False, "end": {"lived": "x"}},
        {"said": []},
        {"said": {"STATUS": None}},
        {"given": [["k", 3]]},
        {"given": [["k", "3", ""]]},
    ],
)
def test_an_instance_that_makes_no_sense_is_left_alone(wrong: dict[str, Any]) -> None:
    """Of a welcome only what makes sense is taken up; one bad instance does not keep the others from being adopted."""
    found = checked({**WELCOME, "held": [{**HELD, **wrong}, HELD]})
    assert found["held"] == [HELD]


def test_texts_are_made_printable() -> None:
    """Paths in a report may hold any bytes; where they are shown they harm nobody."""
    assert (
        checked({"is": "refused", "id": "00aa", "why": "cannot run \udcff\x1b[31m"})["why"]
        == r"cannot run \xff\x1b[31m"
    )
    said = {"STATUS": "\x1b[31m"}
    assert checked({"is": "notify", "id": "00aa", "said": said})["said"] == {"STATUS": r"\x1b[31m"}
    welcome = checked({**WELCOME, "held": [{**HELD, "said": said}]})
    assert welcome["held"][0]["said"] == {"STATUS": r"\x1b[31m"}
    assert checked({"is": "tree", "id": "00aa", "members": ["a\nb"]})["members"] == [r"a\nb"]
