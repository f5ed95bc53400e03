"""Values as other programs write them: sizes, time spans, truths, owners, signals, names."""

from __future__ import annotations

import math
import os
import re
from typing import Any

from ncolony.model import names
from ncolony.model.config import signal_number

from .report import Refused

_TRUE = frozenset({"yes", "true", "on", "1", "y", "t"})
_FALSE = frozenset({"no", "false", "off", "0", "n", "f"})
# systemd.time(7); a month and a year are its averages.
_SPANS = {
    "us": 1e-6,
    "usec": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "msec": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
    "weeks": 604800.0,
    "month": 2629800.0,
    "months": 2629800.0,
    "M": 2629800.0,
    "y": 31557600.0,
    "year": 31557600.0,
    "years": 31557600.0,
}
_LONGEST_S = 1e10  # what a config file may say at most
_MOST = 2**63 - 1


def lines(text: str) -> list[str]:
    """The lines of a text file, which end where editors end them: not at every character that Unicode calls a break."""
    return re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))


def truth(text: str) -> bool:
    """True or false, however it is spelt.

    :raises Refused: for anything else.
    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise Refused("expected true or false")


def whole(text: str, least: int = 0, most: int = _MOST) -> int:
    """A whole number in bounds.

    :raises Refused: for anything else.
    """
    if re.fullmatch(r"[+-]?[0-9]{1,19}", text.strip(), re.ASCII) and least <= int(text) <= most:
        return int(text)
    bounds = f"of {least} or more" if most == _MOST else f"from {least} to {most}"
    raise Refused(f"expected a whole number {bounds}")


def size(text: str) -> int:
    """Bytes from 1048576, "1M", "1MB", "1MiB", "1.5G".

    :raises Refused: for anything else.
    """
    found = re.fullmatch(
        r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([KMGTPE]?)(?:iB|B)?", text.strip(), re.IGNORECASE | re.ASCII
    )
    if found is None:
        raise Refused("expected a size in bytes such as 1048576 or 10M")
    bytes_ = int(float(found[1]) * 1024 ** " KMGTPE".index(found[2].upper() or " "))
    if bytes_ > _MOST:
        raise Refused("expected a size of less than 8E")
    return bytes_


def span(text: str, unit: float = 1.0) -> float:
    """Seconds from "5min 20s", "1.5h", "300ms"; a bare number counts `unit` seconds; "infinity" is math.inf.

    :raises Refused: for anything else.
    """
    if text.strip() == "infinity":
        return math.inf
    total, at = 0.0, 0
    pattern = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-zA-Zµ]*)", re.ASCII)
    while at < len(text.rstrip()):
        found = pattern.match(text, at)
        if found is None or (found[2] and found[2] not in _SPANS):
            raise Refused("expected a time such as 90, 90s or 1min 30s")
        total += float(found[1]) * (_SPANS[found[2]] if found[2] else unit)
        at = found.end()
    if not text.strip() or total > _LONGEST_S:
        raise Refused("expected a time such as 90, 90s or 1min 30s")
    return tidy(total)


def tidy(seconds: float) -> float:
    """Seconds without the noise of binary fractions, whole where they are."""
    rounded = round(seconds, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def owner(text: str) -> int | str:
    """A user or group: a number, or a name as it is."""
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) else text


def home_of(user: int | str | None) -> str | None:
    """The home directory of a user known here, of whoever runs this for None; None for an unknown one."""
    import pwd

    if user is None:
        return os.path.expanduser("~")
    try:
        return (pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)).pw_dir
    except (KeyError, ValueError, OverflowError):
        return None


def is_timezone(text: str) -> bool:
    """Whether this machine knows a time zone of this name, such as "Europe/Berlin" or "UTC"."""
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        return False
    return True


def stop_signal(text: str) -> str:
    """A signal's short name, "INT" for "SIGINT" and "2"; "RTMIN+3" as a number.

    :raises Refused: when there is no such signal.
    """
    import signal

    word = text.strip().upper().removeprefix("SIG")
    if found := re.fullmatch(r"(RTMIN\+|RTMAX-)([0-9]{1,2})", word, re.ASCII):
        offset = int(found[2])
        number = signal.SIGRTMIN + offset if found[1] == "RTMIN+" else signal.SIGRTMAX - offset
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return str(int(number))
    if re.fullmatch(r"[0-9]{1,3}", word, re.ASCII) and int(word) in signal.valid_signals():
        try:
            return signal.Signals(int(word)).name.removeprefix("SIG")
        except ValueError:
            return str(int(word))
    if signal_number(word) is None:
        raise Refused("there is no such signal")
    return word


def as_step(name: str, seconds: float) -> list[Any]:
    """One step of `stop`: a signal by name, or by number where it has no name."""
    return [int(name) if name.isdecimal() else name, seconds]


def legal_name(text: str) -> str:
    """`text` made a name for a config file: legal, not ignored, and never the name of a copy such as web:0."""
    name = "".join(c if c.isprintable() and c != "/" else "-" for c in text.strip())
    name = re.sub(r":(?=[0-9]+$)", "-", name).lstrip(".")
    while names.is_ignored(name):
        stem, dot, ending = name.rpartition(".")
        name = f"{stem}-{ending}" if dot and stem else name.strip("#~")
    while len(name.encode("utf-8", "replace")) > names.LONGEST:
        name = name[:-1]
    return name if names.problem_with_name(name) is None else "process"
