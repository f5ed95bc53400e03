"""The record of one instance that ended: a line of history/NAME."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """How one instance lived and ended. `started` and `at` are wall-clock seconds, for people only; `lived` is seconds.

    The rest is as in LastExit of the status. `id` is the instance's identity, `reason` why it was stopped, if it was.
    """

    id: str
    instance: int
    pid: int | None
    started: float | None
    at: float
    lived: float
    code: int | None
    signal: str | None
    core: bool = False
    oom: bool = False
    cpu: float | None = None
    rss_kb: int | None = None
    text: str
    reason: str = ""
    lines: tuple[str, ...] = ()  # the last ones that it printed


_decoder = msgspec.json.Decoder(Record)


def decode(line: bytes) -> Record | None:
    """The record in `line`, or None when it is not one (torn, or from another version)."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
