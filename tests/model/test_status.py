"""The record of a process comes back as it was written, or not at all."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.model.status import LastExit, Status, decode

RECORD = Status(
    name="web", state="BACKOFF", wanted="up", pid=None, instance=3, since=10.5, started=None, restarts=2,
    next_try=12.0, reason="exit code 3 after 0.2 s", problem=None, warnings=("arg: unknown key",), group=("shop",),
    enabled=True, generation="g", digest="d",
    last_exit=LastExit(
        code=None, signal="KILL", at=10.5, lived=0.2, text="killed by KILL", core=True, oom=True, cpu=0.5, rss_kb=900
    ),
    holding=("pid 123 (sleep)",),
)  # fmt: skip


@pytest.mark.parametrize("record", [RECORD, msgspec.structs.replace(RECORD, last_exit=None, pid=5, started=1.0)])
def test_round_trip(record: Status) -> None:
    """What is written is what is read."""
    assert decode(msgspec.json.encode(record)) == record


def test_a_torn_record_is_none() -> None:
    """A record cut short anywhere is no record."""
    data = msgspec.json.encode(RECORD)
    assert [decode(data[:length]) for length in range(len(data))] == [None] * len(data)


def test_a_key_of_a_later_version_does_no_harm() -> None:
    """A record with more keys than this version knows is read all the same."""
    data = msgspec.json.encode(msgspec.to_builtins(RECORD) | {"weather": 5})
    assert decode(data) == RECORD


def test_a_record_of_an_earlier_version_is_read() -> None:
    """What an earlier version did not write is unknown: the exit's costs, what holds a stop."""
    full = msgspec.to_builtins(RECORD)
    del full["holding"]
    for key in ("core", "oom", "cpu", "rss_kb"):
        del full["last_exit"][key]
    found = decode(msgspec.json.encode(full))
    assert found is not None
    assert found.holding == ()
    assert found.last_exit == LastExit(code=None, signal="KILL", at=10.5, lived=0.2, text="killed by KILL")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=50))
def test_decode_never_raises(data: bytes) -> None:
    """Bytes that are no record are None."""
    assert decode(data) is None


def test_a_record_nested_too_deeply_is_none() -> None:
    """A record that nests without end is no record."""
    assert decode(b'{"x": ' + b"[" * 100_000) is None
