"""The record of one process: what people and programs read in status/NAME."""

from __future__ import annotations

import msgspec


class LastExit(msgspec.Struct, frozen=True):
    """How the last instance ended. `at` is wall-clock seconds, `lived` seconds; code and signal exclude each other.

    `cpu` is seconds of user and system time, `rss_kb` the peak resident memory in KiB; None where nobody could tell.
    `core` says that it left a core dump, `oom` that the kernel killed it because memory ran out.
    """

    code: int | None
    signal: str | None
    at: float
    lived: float
    text: str
    core: bool = False
    oom: bool = False
    cpu: float | None = None
    rss_kb: int | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One process as it stands. `since`, `started`, `ready_at` and `next_try` are wall-clock seconds, for people."""

    name: str
    state: str
    wanted: str
    pid: int | None
    instance: int
    since: float
    started: float | None
    restarts: int
    next_try: float | None
    reason: str
    problem: str | None
    warnings: tuple[str, ...]
    group: tuple[str, ...]
    enabled: bool
    generation: str
    digest: str
    last_exit: LastExit | None
    pending: str = ""  # while what an ended instance left behind is stopped: what follows, start, wait or rest
    holding: tuple[str, ...] = ()  # what a stop still waits for, such as "pid 123 (sleep)"
    file: str = ""  # the config file that defines it
    ready_at: float | None = None  # from when on the running instance counts as ready
    waiting_for: tuple[str, ...] = ()  # what is not met yet, for WAITING
    memory: int | None = None  # bytes of its whole tree, when that is watched
    rolled_back: str | None = None  # why the newest definition was taken back
    said: str = ""  # its own words, as told by sd_notify
    phase: str = ""  # reloading or stopping, when it has said that it does
    healthy: bool | None = None  # whether its checks say that the running instance works; None: nobody has said
    health: str = ""  # why it is not healthy
    late: str = ""  # for a job: why it should have run by now
    job: bool = False  # it has a schedule, and need not run
    failures: tuple[float, ...] = ()  # when it failed lately (wall-clock seconds), where that counts


_decoder = msgspec.json.Decoder(Status)


def decode(data: bytes) -> Status | None:
    """The record in `data`, or None when it is not one (torn, or from another version)."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
