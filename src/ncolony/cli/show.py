"""`status`: the table of processes, or their records as JSON."""

from __future__ import annotations

import os
import sys
import time

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import Status

# The LSB's exit codes for `status`, as supervisorctl has them too.
ALL_RUNNING, NOT_RUNNING, NO_SUCH_PROCESS = 0, 3, 4

# Widths that supervisorctl's table has; they grow only for what does not fit, so that columns stay where they are.
_WIDTHS = (32, 9, 32, 12, 16, 0)
_HEADER = ("NAME", "STATE", "PID/UPTIME", "RESTARTS", "LAST EXIT", "NOTE")
_COLOURS = {"RUNNING": "32", "FATAL": "31", "UNKNOWN": "31", "BACKOFF": "33", "STARTING": "36", "STOPPING": "36"}
_BOLD = "1"
# More of what a stop waits for than this is left to --long.
_HOLDING_SHOWN = 3


def run(options: dict[str, Any]) -> int:
    """Show the processes that the parsed options name, or all; returns the exit status."""
    places = ctllib.Places(options["config"], options["messages"])
    state = options.get("state")
    # Asked first: one that starts in between is then at worst called absent, never a stale table a live one's.
    supervisor = ctllib.supervisor(places, state=state)
    records, missing = _chosen(ctllib.status(places, state=state), options["names"])
    if options["json"]:
        import json

        say(json.dumps([one.record for one in records], indent=2) + "\n")
    else:
        below: list[list[str]] = [[] for _ in records]
        if options["long"]:
            from ncolony.cli import past  # reads more files, and is not needed for the table alone

            below = [past.details(one, places, state) for one in records]
        now, to_people = time.time(), sys.stdout is not None and sys.stdout.isatty()
        say(_table([_row(one, now, supervisor is None) for one in records], below, to_people))
    for pattern in missing:
        complain(f"cannot show {pattern!r}: no such process")
    if supervisor is None:
        complain(ctllib.NO_SUPERVISOR)
    else:
        for problem in supervisor.problems:
            complain(f"problem: {printable(str(problem))}")
    if missing:
        return NO_SUCH_PROCESS
    if supervisor is None or any(one.state != "RUNNING" for one in records):
        return NOT_RUNNING
    return ALL_RUNNING


def _chosen(records: list[Status], patterns: list[str]) -> tuple[list[Status], list[str]]:
    """The records that any of the patterns means, in their order, and the patterns that mean none.

    A pattern is a process's own name, the name its replicas share ("web" for web:0, web:1), or a glob.
    """
    if not patterns:
        return records, []
    from fnmatch import fnmatchcase

    wanted: set[str] = set()
    missing = []
    names = [one.name for one in records]
    for pattern in patterns:
        found = {name for name in names if pattern in (name, _shared_name(name))}
        found = found or {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            missing.append(pattern)
        wanted |= found
    return [one for one in records if one.name in wanted], missing


def _shared_name(name: str) -> str:
    shared, _, index = name.rpartition(":")
    return shared if index.isdigit() else name


def _table(rows: list[tuple[str, ...]], below: list[list[str]], to_people: bool) -> str:
    """The lines of the table, each row with what goes below it; for people with a header, and in colour if wanted."""
    if to_people and rows:
        rows, below = [_HEADER, *rows], [[], *below]
    widths = [max(least, *(len(row[at]) for row in rows)) if rows else least for at, least in enumerate(_WIDTHS)]
    in_colour = to_people and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    lines = []
    for row, details in zip(rows, below, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[-1] = row[-1]
        if in_colour:
            colour = _BOLD if row is _HEADER else _COLOURS.get(row[1])
            at = 0 if row is _HEADER else 1
            cells[at] = f"\x1b[{colour}m{cells[at]}\x1b[0m" if colour else cells[at]
        lines.append(" ".join(cells).rstrip())
        lines.extend(f"    {detail}" for detail in details)
    return "".join(f"{line}\n" for line in lines)


def _row(one: Status, now: float, unattended: bool = False) -> tuple[str, ...]:
    """The cells of one process. `unattended`: nobody keeps its record up to date."""
    restarts = f"{one.restarts} restart{'' if one.restarts == 1 else 's'}"
    last_exit = one.last_exit.text if one.last_exit else ""
    running = ""
    if one.pid is not None:
        running = f"pid {one.pid}"
        if unattended and not _exists(one.pid):
            running += ", gone"
        elif one.started is not None:
            running += f", uptime {duration(now - one.started)}"
    cells = (one.name, one.state, running, restarts, last_exit, _note(one, now))
    return tuple(printable(cell) or "-" for cell in cells)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _note(one: Status, now: float) -> str:
    said = [one.reason]
    if one.holding:
        more = len(one.holding) - _HOLDING_SHOWN
        said.append(
            f"waiting for {', '.join(one.holding[:_HOLDING_SHOWN])}" + (f" and {more} more" if more > 0 else "")
        )
    if not one.enabled:
        said.append("disabled")
    elif one.wanted == "down" and one.reason == "":
        said.append("stopped on request")
    if one.next_try is not None:
        said.append(f"next try in {max(0.0, one.next_try - now):.0f} s")
    if one.problem:
        said.append(f"problem: {one.problem}")
    said.extend(f"warning: {warning}" for warning in one.warnings)
    return "; ".join(part for part in said if part)


def duration(seconds: float) -> str:
    """0:00:04, or 2 days, 0:00:04: as supervisorctl writes it. Never negative, whatever the clock did."""
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    if not days:
        return text
    return f"{days} day{'' if days == 1 else 's'}, {text}"
