"""The keys of a config file about other things than running: when it is ready, after whom, how it fares, at what times.

The structs say what types can say; `wrong_*` the rest, each as (key, what is wrong with it or None).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from .cron import wrong_cron, wrong_zone

# systemd's DefaultTimeoutStartSec.
READY_TIMEOUT_S = 90.0
# kubelet's defaults: periodSeconds, failureThreshold and successThreshold of a probe.
CHECK_PERIOD_S, FAILURE_THRESHOLD, SUCCESS_THRESHOLD = 10.0, 3, 1
# kubelet gives a probe 1 s, which on a loaded machine is the first thing to fail.
CHECK_TIMEOUT_S = 5.0
# Below it only the probing would be measured.
SHORTEST_S = 0.05
LARGEST_PORT = 65535
# unix(7): what an address has room for, but for the last byte.
LONGEST_SOCKET_PATH = 107
# sd_listen_fds(3): the first descriptor that is passed.
FIRST_SOCKET = 3
# sd_listen_fds(3): names are text without ":" or control characters, at most 255 of them.
_SOCKET_NAME = re.compile(r"[!-9;-~]{1,255}")
LONGEST_S = 366 * 86400.0

Wrong = tuple[str, str | None]


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `ready` key: what shows that an instance is ready. Exactly one way of telling.

    It has `timeout` seconds for it. What has to be asked (`tcp`, `http`, `exec`) is asked every `period` seconds.
    """

    notify: bool = False
    fd: int | None = None
    tcp: str | None = None
    http: str | None = None
    exec: tuple[str, ...] | None = None
    log: str | None = None
    insecure: bool = False
    timeout: float = READY_TIMEOUT_S
    period: float = 0.25

    @property
    def ways(self) -> tuple[str, ...]:
        """The keys given of those that say how it is told."""
        given = ("notify" if self.notify else "", *(key for key in _READY_WAYS if getattr(self, key) is not None))
        return tuple(filter(None, given))

    @property
    def is_probed(self) -> bool:
        """Whether somebody else has to look, since the process itself does not tell."""
        return not self.notify and self.fd is None


_READY_WAYS = ("fd", "tcp", "http", "exec", "log")
Condition = Literal["started", "ready", "completed", "healthy"]


class After(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the `after` key as an object: `when` the other is so far, this one may start.

    With `bind` it is restarted, and waits again, when that is not so any more.
    """

    when: Condition
    bind: bool = False


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the `check` key: what is looked at (exactly one of the first four), how often, and what follows."""

    http: str | None = None
    tcp: str | None = None
    exec: tuple[str, ...] | None = None
    heartbeat: str | None = None
    insecure: bool = False
    period: float = CHECK_PERIOD_S
    timeout: float = CHECK_TIMEOUT_S
    failure_threshold: int | None = None
    success_threshold: int = SUCCESS_THRESHOLD
    grace: float = 0.0
    action: Literal["restart", "report"] = "restart"

    @property
    def ways(self) -> tuple[str, ...]:
        """The keys given of those that say what is looked at."""
        return tuple(key for key in ("http", "tcp", "exec", "heartbeat") if getattr(self, key) is not None)

    @property
    def most_failures(self) -> int:
        """After how many failures in a row it is unhealthy: one missing heartbeat has missed a whole period already."""
        if self.failure_threshold is not None:
            return self.failure_threshold
        return 1 if self.heartbeat is not None else FAILURE_THRESHOLD


class Socket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the `sockets` key as an object. `mode` is that of a unix socket, octal."""

    address: str
    backlog: int = 1024
    mode: str = "0666"


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `schedule` key: when a process runs that is a job. Seconds throughout; exactly one of `every` and `cron`."""

    every: float | None = None
    cron: str | None = None
    timezone: str | None = None
    jitter: float = 0.0
    timeout: float | None = None
    grace: float | None = None
    overlap: Literal["skip", "queue", "replace"] = "skip"
    retries: int = 0
    retry_delay: float = 1.0
    catch_up: bool = False
    late_after: float = 60.0


def wrong_ready(ready: Ready | None) -> list[Wrong]:
    """What is wrong with the `ready` key."""
    if ready is None:
        return []
    return [
        ("ready", _one_of(ready.ways, ("notify", *_READY_WAYS))),
        ("ready.fd", None if ready.fd is None or 3 <= ready.fd <= 255 else "expected a descriptor from 3 to 255"),
        ("ready.tcp", _wrong_tcp(ready.tcp)),
        ("ready.http", _wrong_url(ready.http)),
        ("ready.insecure", _wrong_insecure(ready.insecure, ready.http)),
        ("ready.exec", _wrong_command(ready.exec)),
        ("ready.log", _wrong_pattern(ready.log)),
        ("ready.timeout", _wrong_period(ready.timeout)),
        ("ready.period", _wrong_period(ready.period)),
    ]


def wrong_after(after: Mapping[str, object], name: str) -> list[Wrong]:
    """What is wrong with the `after` key of the file `name`."""
    wrong = "names the process itself" if name in after else None
    return [("after", wrong or ("expected names, not empty" if "" in after else None))]


def wrong_checks(checks: tuple[Check, ...]) -> list[Wrong]:
    """What is wrong with the `check` key."""
    found: list[Wrong] = []
    for check in checks:
        found += [
            ("check", _one_of(check.ways, ("http", "tcp", "exec", "heartbeat"))),
            ("check.http", _wrong_url(check.http)),
            ("check.tcp", _wrong_tcp(check.tcp)),
            ("check.insecure", _wrong_insecure(check.insecure, check.http)),
            ("check.exec", _wrong_command(check.exec)),
            ("check.heartbeat", _wrong_path(check.heartbeat)),
            ("check.period", _wrong_period(check.period)),
            ("check.timeout", _wrong_period(check.timeout)),
            ("check.failure_threshold", _wrong_count(check.failure_threshold, 1, 1000)),
            ("check.success_threshold", _wrong_count(check.success_threshold, 1, 1000)),
            ("check.grace", _wrong_period(check.grace, 0.0)),
        ]
    return found


def wrong_sockets(sockets: Mapping[str, str | Socket], ready: Ready | None = None) -> list[Wrong]:
    """What is wrong with the `sockets` key, also beside `ready`."""
    beyond = FIRST_SOCKET + len(sockets)
    if ready is not None and ready.fd is not None and FIRST_SOCKET <= ready.fd < beyond:
        return [("ready.fd", f"is one of its sockets: expected a descriptor from {beyond} on")]
    for name, value in sockets.items():
        socket = as_socket(value)
        if not _SOCKET_NAME.fullmatch(name):
            return [("sockets", f"expected names of printable ASCII without ':' or spaces, but there is {name!r}")]
        if parse_address(socket.address) is None:
            why = 'expected "tcp:HOST:PORT", "udp:HOST:PORT" or "unix:/PATH" for'
            return [("sockets", f"{why} {name}")]
        if len(socket.address.removeprefix("unix:").encode()) > LONGEST_SOCKET_PATH and "/" in socket.address:
            return [("sockets", f"{name}: expected a path of {LONGEST_SOCKET_PATH} bytes at most")]
        if not 1 <= socket.backlog <= 1 << 16:
            return [("sockets", f"{name}: expected a backlog from 1 to 65536")]
        if not re.fullmatch(r"0?[0-7]{3}", socket.mode):
            return [("sockets", f"{name}: expected a mode of three octal digits")]
    return []


def wrong_schedule(schedule: Schedule | None) -> list[Wrong]:
    """What is wrong with the `schedule` key."""
    if schedule is None:
        return []
    ways = tuple(key for key in ("every", "cron") if getattr(schedule, key) is not None)
    return [
        ("schedule", _one_of(ways, ("every", "cron"))),
        ("schedule.every", _wrong_period(schedule.every)),
        ("schedule.cron", wrong_cron(schedule.cron)),
        ("schedule.timezone", wrong_zone(schedule.timezone)),
        ("schedule.timezone", "goes with cron alone" if schedule.timezone and schedule.cron is None else None),
        ("schedule.jitter", _wrong_period(schedule.jitter, 0.0)),
        ("schedule.timeout", _wrong_period(schedule.timeout)),
        ("schedule.grace", _wrong_period(schedule.grace, 0.0)),
        ("schedule.retries", _wrong_count(schedule.retries, 0, 1000)),
        ("schedule.retry_delay", _wrong_period(schedule.retry_delay)),
        ("schedule.late_after", _wrong_period(schedule.late_after, 0.0)),
    ]


class Address(msgspec.Struct, frozen=True):
    """A parsed socket address: `kind` is tcp, udp or unix; `host` and `port`, or `path`. No host: all of them."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""


def as_socket(value: str | Socket) -> Socket:
    """An entry of the `sockets` key, however it was written."""
    return Socket(value) if isinstance(value, str) else value


def as_after(value: str | After) -> After:
    """An entry of the `after` key, however it was written."""
    return msgspec.convert({"when": value}, After) if isinstance(value, str) else value


def parse_address(text: str) -> Address | None:
    """The address in "tcp:127.0.0.1:8080", "tcp:[::]:8080", "tcp::8080", "udp:…" or "unix:/run/web.sock", or None.

    Port 0 lets the kernel choose.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return Address(kind, path=rest) if _wrong_path(rest) is None and rest.startswith("/") else None
    if kind not in ("tcp", "udp"):
        return None
    found = parse_host_port(rest)
    return None if found is None else Address(kind, *found)


def parse_host_port(text: str) -> tuple[str, int] | None:
    """The host and port in "localhost:80", "[::1]:80", ":80" or "80"; None when it is neither."""
    found = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:\s\0]*):)?([0-9]{1,5})", text, re.ASCII)
    if found is None or int(found[2]) > LARGEST_PORT:
        return None
    return (found[1] or "").strip("[]"), int(found[2])


def _one_of(given: tuple[str, ...], possible: tuple[str, ...]) -> str | None:
    return None if len(given) == 1 else f"expected exactly one of {', '.join(possible)}"


def _wrong_tcp(text: str | None) -> str | None:
    return None if text is None or parse_host_port(text) is not None else 'expected "HOST:PORT"'


def _wrong_url(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    bad = not text.isascii() or any(letter <= " " or letter == "\x7f" for letter in text)
    return None if good and not bad else "expected a URL that begins with http:// or https://"


def _wrong_insecure(insecure: bool, url: str | None) -> str | None:
    # Whoever takes the trouble to write it should not be left to believe that it does something.
    return "is for https alone" if insecure and not (url or "").lower().startswith("https:") else None


def _wrong_command(words: tuple[str, ...] | None) -> str | None:
    if words is None:
        return None
    return None if words and words[0] and not any("\0" in word for word in words) else "expected a program"


def _wrong_path(text: str | None) -> str | None:
    return None if text is None or (text and "\0" not in text) else "expected a path"


def _wrong_pattern(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return f"expected a regular expression: {error}"
    return None if text else "expected a regular expression, not empty"


def _wrong_period(value: float | None, least: float = SHORTEST_S) -> str | None:
    if value is None or least <= value <= LONGEST_S:
        return None
    return f"expected seconds, from {least:g} to a year"


def _wrong_count(value: int | None, least: int, most: int) -> str | None:
    return None if value is None or least <= value <= most else f"expected a number from {least} to {most}"
