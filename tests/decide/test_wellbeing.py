"""What is wrong with a process, from its record: by table, and rules that hold of every record."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncolony.decide.lifecycle import State
from ncolony.decide.wellbeing import KINDS, ailments

WELL: dict[str, Any] = {
    "state": "RUNNING",
    "wanted": "up",
    "enabled": True,
    "reason": "",
    "problem": None,
    "job": False,
}


@pytest.mark.parametrize(
    ("record", "succeeded", "expected"),
    [
        # what runs
        ({}, False, []),
        ({"healthy": True}, False, []),
        ({"healthy": None, "health": "never asked"}, False, []),
        ({"healthy": False, "health": "no answer"}, False, [("unhealthy", "no answer")]),
        ({"healthy": False}, False, [("unhealthy", "its checks say so")]),
        ({"problem": "cannot use web: x"}, False, []),
        # what does not, and should
        ({"state": "STARTING"}, False, [("starting", "STARTING")]),
        ({"state": "STARTING", "reason": "not ready"}, False, [("starting", "STARTING: not ready")]),
        ({"state": "BACKOFF", "reason": "exit code 3"}, False, [("down", "BACKOFF: exit code 3")]),
        ({"state": "STOPPING", "reason": "restart"}, False, [("down", "STOPPING: restart")]),
        ({"state": "STOPPED", "reason": "not seen"}, False, [("down", "STOPPED: not seen")]),
        ({"state": "FATAL", "reason": "gave up"}, False, [("down", "FATAL: gave up")]),
        ({"state": "FATAL", "problem": "bad", "reason": "bad"}, False, [("down", "FATAL: bad")]),
        (
            {"state": "WAITING", "waiting_for": ["db: ready", "x"]},
            False,
            [("down", "WAITING: waiting for db: ready, x")],
        ),
        ({"state": "WAITING", "reason": "a", "waiting_for": ["b"]}, False, [("down", "WAITING: a, waiting for b")]),
        # what has ended
        ({"state": "EXITED", "reason": "exit code 0"}, True, []),
        ({"state": "EXITED", "reason": "exit code 3"}, False, [("down", "EXITED: exit code 3")]),
        ({"state": "FATAL", "reason": "gave up"}, True, [("down", "FATAL: gave up")]),
        # what need not run
        ({"state": "STOPPED", "wanted": "down"}, False, []),
        ({"state": "STOPPING", "wanted": "down"}, False, []),
        ({"state": "STOPPING", "wanted": "gone"}, False, []),
        ({"state": "RUNNING", "wanted": "down", "healthy": False}, False, []),
        # jobs
        ({"state": "STOPPED", "job": True, "reason": "waits for its schedule"}, False, []),
        ({"state": "EXITED", "job": True, "reason": "exit code 3"}, False, []),
        ({"state": "STARTING", "job": True}, False, []),
        ({"state": "FATAL", "job": True, "reason": "cannot be run"}, False, []),
        ({"state": "FATAL", "job": True, "reason": "bad", "problem": "bad"}, False, [("down", "FATAL: bad")]),
        ({"state": "EXITED", "job": True, "late": "due at 3:00"}, False, [("late", "due at 3:00")]),
        ({"state": "STOPPED", "wanted": "down", "job": True, "late": "due at 3"}, False, [("late", "due at 3")]),
        ({"state": "STOPPED", "wanted": "down", "job": True, "late": "x", "enabled": False}, False, []),
        ({"job": True, "late": "x", "healthy": False, "health": "y"}, False, [("late", "x"), ("unhealthy", "y")]),
        # what cannot be told
        ({"state": "UNKNOWN", "problem": "cannot read"}, False, [("unknown", "cannot read")]),
        ({"state": "UNKNOWN", "wanted": "down"}, False, [("unknown", "its status cannot be read")]),
    ],
)
def test_each_record_has_its_ailments(record: dict[str, Any], succeeded: bool, expected: list[tuple[str, str]]) -> None:
    """Everything that should run runs and is ready, none of it is unhealthy, no job is late; all else is told."""
    assert ailments({**WELL, **record}, succeeded) == expected


RECORDS = st.fixed_dictionaries(
    {
        "state": st.sampled_from([*(state.value for state in State), "UNKNOWN", "of a later version"]),
        "wanted": st.sampled_from(["up", "down", "gone"]),
        "enabled": st.booleans(),
        "reason": st.text(),
        "problem": st.none() | st.text(),
        "job": st.booleans(),
        "late": st.text(),
        "healthy": st.none() | st.booleans(),
        "health": st.text(),
        "waiting_for": st.lists(st.text(), max_size=2),
    }
)


@given(record=RECORDS, succeeded=st.booleans())
def test_what_is_told_is_one_of_the_kinds_and_has_a_reason(record: dict[str, Any], succeeded: bool) -> None:
    """Each thing is of a known kind, no kind comes twice, and there are words for it."""
    found = ailments(record, succeeded)
    assert {kind for kind, _ in found} <= set(KINDS)
    assert len({kind for kind, _ in found}) == len(found)
    assert all(why for _, why in found)


@given(record=RECORDS, succeeded=st.booleans())
def test_whatever_should_run_and_does_not_is_told(record: dict[str, Any], succeeded: bool) -> None:
    """An enabled process that is wanted up is well only if it runs, has ended well, or is a job."""
    if record["wanted"] == "up" and record["enabled"] and not ailments(record, succeeded):
        assert record["state"] == "RUNNING" or record["job"] or (record["state"] == "EXITED" and succeeded)


@given(record=RECORDS, succeeded=st.booleans())
def test_what_is_disabled_or_removed_is_well(record: dict[str, Any], succeeded: bool) -> None:
    """Whoever is not meant to be there harms nobody."""
    if record["state"] != "UNKNOWN" and (record["wanted"] == "gone" or not record["enabled"]):
        assert ailments(record, succeeded) == []
