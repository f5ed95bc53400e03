"""Options and service of `python -m twisted ncolony`."""

from __future__ import annotations

import gc
import math
from typing import Any

from twisted.application.service import Service
from twisted.python import usage

from .decide.restart import Policy
from .model.config import parse_size, signal_number
from .system import upgrade
from .system.clock import make_steady
from .system.limits import find_cgroup
from .system.places import state_directory

# Objects made, and not gone at once, between two looks for cycles of the youngest.
_ALLOCATIONS = 10_000


def _seconds(option: str, least: float = 0.0) -> Any:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < least or (option == "frequency" and value == 0):
            raise ValueError(f"--{option} takes a number of seconds, not {text!r}")
        return value

    return convert


def _bytes(text: str) -> int:
    """A size such as 67108864, 64M or 64MiB."""
    if (size := parse_size(text)) is None:
        raise ValueError(f"--log-budget takes a size such as 64M, not {text!r}")
    return size


class Options(usage.Options):
    """The command line of the supervisor."""

    optParameters = [  # noqa: RUF012
        ["config", None, None, "Directory for configuration"],
        ["messages", None, None, "Directory for messages"],
        ["frequency", None, 10, "Frequency of checking for updates, in seconds", _seconds("frequency")],
        ["pid", None, None, "Directory of PID files"],
        [
            "threshold", "t", 1,
            "How long a process has to live before the death is considered instant, in seconds.",
            _seconds("threshold"),
        ],
        [
            "killtime", "k", 5,
            "How long a process being killed has to get its affairs in order before it gets killed for good.",
            _seconds("killtime"),
        ],
        [
            "minrestartdelay", "m", 1,
            "The minimum time (in seconds) to wait before attempting to restart a process",
            _seconds("minrestartdelay"),
        ],
        [
            "maxrestartdelay", "M", 3600,
            "The maximum time (in seconds) to wait before attempting to restart a process",
            _seconds("maxrestartdelay"),
        ],
        ["state", None, None, "Directory for what we must remember [default: by the names of config and messages]"],
        ["logs", None, None, "Directory for the output of processes [default: logs in the state directory]"],
        ["log-budget", None, 64 << 20, "Bytes that all logs together may take", _bytes],
        [
            "keeper-linger", None, None,
            "Without a supervisor for this many seconds the keeper ends everything [default: it carries on for ever]",
            _seconds("keeper-linger"),
        ],
        [
            "cgroup", None, "auto",
            "Control group (v2) directory for one group per process, auto (our own, if it was delegated to us) or none",
        ],
    ]  # fmt: skip
    optFlags = [  # noqa: RUF012
        ["no-strict-modes", None, "Use files and directories that anybody may write, even as root"]
    ]

    def postOptions(self) -> None:
        """Check what one option alone cannot.

        :raises usage.UsageError: for a missing directory, arguments too many, or delays the wrong way round.
        """
        for name in ("messages", "config"):
            if not self[name]:
                raise usage.UsageError(f"--{name} DIR is required")
        if self["minrestartdelay"] > self["maxrestartdelay"]:
            raise usage.UsageError(
                f"--minrestartdelay ({self['minrestartdelay']:g}) is larger than"
                f" --maxrestartdelay ({self['maxrestartdelay']:g})"
            )
        try:
            self["cgroup"] = find_cgroup(self["cgroup"])
        except ValueError as error:
            raise usage.UsageError(f"--cgroup: {error}") from None

    def parseArgs(self, *arguments: str) -> None:
        """Take no arguments.

        :raises usage.UsageError: when there are some.
        """
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")


def makeService(options: Options) -> Service:
    """The supervisor as a service, from parsed options."""
    from twisted.internet import reactor

    from .supervisor import Settings, Supervisor

    upgrade.end_trial()
    make_steady(reactor)
    # What is here by now stays. Looking through it, and through thousands of processes, for cycles again and again
    # would take a tenth of our time.
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)

    term = signal_number("TERM")
    assert term is not None
    settings = Settings(
        config=options["config"],
        messages=options["messages"],
        state=state_directory(options["config"], options["messages"], options["state"]),
        logs=options["logs"],
        log_budget=options["log-budget"],
        pids=options["pid"],
        frequency=options["frequency"],
        linger=options["keeper-linger"],
        cgroup=options["cgroup"],
        strict=not options["no-strict-modes"],
        policy=Policy(
            threshold=options["threshold"],
            min_delay=options["minrestartdelay"],
            max_delay=options["maxrestartdelay"],
            jitter=0.1,
            restart="always",
            success_codes=(0,),
            stop=((term, options["killtime"]),),
            scope="tree",
        ),
    )
    return Supervisor(reactor, settings)
