"""The record of an instance that ended comes back as it was written, or not at all."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.model.history import Record, decode

RECORD = Record(
    id="00f1", instance=3, pid=77, started=10.0, at=10.5, lived=0.5, code=None, signal="SEGV", core=True, oom=False,
    cpu=0.25, rss_kb=9000, text="signal SEGV", reason="restart", lines=("one", "two ünd drei"),
)  # fmt: skip
LEAST = Record(id="0", instance=1, pid=None, started=None, at=1.0, lived=0.0, code=3, signal=None, text="exit code 3")


@pytest.mark.parametrize("record", [RECORD, LEAST])
def test_round_trip(record: Record) -> None:
    """What is written is what is read, on one line."""
    line = msgspec.json.encode(record)
    assert b"\n" not in line
    assert decode(line) == record


def test_a_torn_record_is_none() -> None:
    """A record cut short anywhere is no record."""
    line = msgspec.json.encode(RECORD)
    assert [decode(line[:length]) for length in range(len(line))] == [None] * len(line)


def test_keys_of_other_versions_do_no_harm() -> None:
    """More keys than this version knows are ignored, and what an earlier one did not write has a default."""
    more = msgspec.to_builtins(RECORD) | {"weather": "fine"}
    assert decode(msgspec.json.encode(more)) == RECORD
    less = {key: value for key, value in msgspec.to_builtins(LEAST).items() if key not in ("core", "cpu", "lines")}
    assert decode(msgspec.json.encode(less)) == LEAST


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=50))
def test_decode_never_raises(data: bytes) -> None:
    """Bytes that are no record are None."""
    assert decode(data) is None
