"""The options of the scheduler."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from twisted.python import usage

from ncolony.decide import schedule
from ncolony.decide.cron import cron
from ncolony.model.cron import wrong_cron, wrong_zone
from ncolony.system.clock import local_offset

SHORTEST_S = 0.001
"""The shortest frequency and timeout: below it only the starting of processes would be measured."""

LONGEST_S = 366 * 86400.0
"""The longest jitter and delay; a frequency, timeout and grace may be longer, and always might."""

GRACE_S = 10.0
"""Grace with --cron, where it need not be given: the supervisor's own."""

HISTORY = 1000
"""Runs that a history holds, unless told otherwise."""

MOST_RETRIES = 1000


class Options(usage.Options):
    """Options of the scheduler; seconds may be fractions."""

    synopsis = "[options]"
    longdesc = (
        "Run a command at once and then periodically, or at the times of a cron expression, and print what it prints"
        " line by line."
    )

    optParameters = [  # noqa: RUF012, N815 (Twisted's interface)
        ["frequency", None, None, "Seconds from the start of one run to the start of the next (this or --cron)."],
        [
            "timeout",
            None,
            None,
            "Seconds a run may take before its process group gets SIGTERM (not needed with --cron).",
        ],
        ["grace", None, None, "Seconds from SIGTERM to SIGKILL (with --cron 10 unless given)."],
        ["cron", None, None, "When to run, instead of --frequency: five fields, six with seconds first, or @hourly."],
        ["timezone", None, None, "Time zone of --cron, such as Europe/Berlin; the machine's unless given."],
        ["jitter", None, None, "Put each run off by up to so many seconds, by chance."],
        ["overlap", None, "skip", "What a due run does while another goes on: skip, queue, replace or allow."],
        ["retries", None, None, "Try a run that failed again, so often."],
        [
            "retry-delay",
            None,
            None,
            "Seconds until the first retry; each further one waits twice as long. [default: 1]",
        ],
        ["state-file", None, None, "File in which to remember what has run, to carry on there after a restart."],
        ["history", None, None, "File to which to write a line of JSON for each run."],
        ["history-keep", None, None, f"How many runs the history holds at least. [default: {HISTORY}]"],
    ]
    optFlags = [  # noqa: RUF012, N815 (Twisted's interface)
        ["catch-up", None, "Make up for missed runs with one, as soon as possible."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["args"] = []
        self["on-failure-exec"] = []
        self.words: list[str] = []

    def opt_arg(self, arg: str) -> None:
        """The command, then each of its arguments (give it once per word; at least one is required)."""
        self["args"].append(arg)

    def opt_on_failure_exec(self, word: str) -> None:
        """A command to run when a run has failed, then each of its arguments (give it once per word)."""
        self["on-failure-exec"].append(word)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802 (Twisted's interface)
        """Parse the words after the plugin's name, which are kept to find the words before it."""
        self.words = list(sys.argv[1:] if options is None else options)
        super().parseOptions(options)

    def parseArgs(self, *rest: str) -> None:  # noqa: N802 (Twisted's interface)
        """Refuse words that belong to no option."""
        if rest:
            raise usage.UsageError(f"unexpected {rest[0]!r}: give the command and its arguments as --arg WORD each")

    def postOptions(self) -> None:  # noqa: N802 (Twisted's interface)
        """Check every option; raises UsageError naming the first that is missing or makes no sense."""
        if not self["args"]:
            raise usage.UsageError("--arg is required: the command to run")
        if not self["args"][0]:
            raise usage.UsageError("--arg: the command is empty")
        if self["on-failure-exec"] and not self["on-failure-exec"][0]:
            raise usage.UsageError("--on-failure-exec: the command is empty")
        self._check_times()
        self["jitter"] = _seconds("jitter", self["jitter"] or "0", 0.0, LONGEST_S)
        self["retry-delay"] = _seconds("retry-delay", self["retry-delay"] or "1", SHORTEST_S, LONGEST_S)
        self["retries"] = _number("retries", self["retries"] or "0", 0, MOST_RETRIES)
        if self["history-keep"] is not None and self["history"] is None:
            raise usage.UsageError("--history-keep goes with --history alone")
        self["history-keep"] = _number("history-keep", self["history-keep"] or str(HISTORY), 1, 1_000_000)
        words = [overlap.value for overlap in schedule.Overlap]
        if self["overlap"] not in words:
            raise usage.UsageError(f"--overlap must be one of {', '.join(words)}, not {self['overlap']!r}")
        for name in ("state-file", "history"):
            if self[name] is not None and (not self[name] or "\0" in self[name]):
                raise usage.UsageError(f"--{name} must be a path, not {self[name]!r}")

    def _check_times(self) -> None:
        if self["cron"] is None:
            if self["timezone"] is not None:
                raise usage.UsageError("--timezone goes with --cron alone")
            self["frequency"] = _seconds("frequency", self["frequency"], SHORTEST_S)
            self["timeout"] = _seconds("timeout", self["timeout"], SHORTEST_S)
            self["grace"] = _seconds("grace", self["grace"], 0.0)
            return
        if self["frequency"] is not None:
            raise usage.UsageError("--frequency and --cron exclude each other")
        for name, wrong in (("cron", wrong_cron(self["cron"])), ("timezone", wrong_zone(self["timezone"]))):
            if wrong is not None:
                raise usage.UsageError(f"--{name}: {wrong}, found {self[name]!r}")
        if self["timeout"] is not None:
            self["timeout"] = _seconds("timeout", self["timeout"], SHORTEST_S)
        self["grace"] = GRACE_S if self["grace"] is None else _seconds("grace", self["grace"], 0.0)


def rules_of(opts: Any) -> schedule.Rules:
    """Return the rules that options mean, which have been checked; a mapping with frequency alone will do."""
    expression = opts.get("cron")
    return schedule.Rules(
        every=opts["frequency"] if expression is None else None,
        cron=None if expression is None else cron(expression, opts.get("timezone"), local_offset),
        jitter=opts.get("jitter") or 0.0,
        overlap=schedule.Overlap(opts.get("overlap") or "skip"),
        retries=opts.get("retries") or 0,
        retry_delay=opts.get("retry-delay") or 1.0,
        catch_up=bool(opts.get("catch-up")),
    )


def _seconds(name: str, text: str | None, least: float, most: float = math.inf) -> float:
    """Return the option's value as seconds; raises UsageError."""
    if text is None:
        raise usage.UsageError(f"--{name} is required")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        raise usage.UsageError(f"--{name} must be a number of seconds, {least:g} or more, not {text!r}")
    if value > most:
        raise usage.UsageError(f"--{name} must be a number of seconds, a year at most, not {text!r}")
    return value


def _number(name: str, text: str, least: int, most: int) -> int:
    """Return the option's value as a whole number; raises UsageError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise usage.UsageError(f"--{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)
