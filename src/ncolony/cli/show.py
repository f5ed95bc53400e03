"""`status`: the table of processes, or their records as JSON."""

from __future__ import annotations

import os
import sys
import time

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.cli.choose import look
from ncolony.ctllib.common import exists
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import Status, Supervisor

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
    if options["watch"] is not None:
        from ncolony.cli import live

        return live.watch(options)
    supervisor, records, missing = _look(options)
    to_people = sys.stdout is not None and sys.stdout.isatty()
    say(_as_json(records, 2) if options["json"] else "".join(_table(options, records, supervisor is None, to_people)))
    for line in _remarks(supervisor, missing, options["long"]):
        complain(line)
    if missing:
        return NO_SUCH_PROCESS
    if supervisor is None or not all(map(_runs_or_need_not, records)):
        return NOT_RUNNING
    return ALL_RUNNING


def _runs_or_need_not(one: Status) -> bool:
    """A job whose time has not come does not count as something that does not run."""
    return one.state == "RUNNING" or (one.job and one.wanted == "down" and one.state in ("STOPPED", "EXITED"))


def picture(options: dict[str, Any], size: tuple[int, int] | None) -> tuple[str, str]:
    """What there is to be seen now, as text, and a text that is another whenever more than an uptime has changed.

    `size`, in columns and lines, is that of the terminal that the text has to fit into.
    """
    supervisor, records, missing = _look(options)
    remarks = _remarks(supervisor, missing, options["long"])
    compared = "\n".join([_as_json(records, None), *remarks])
    if options["json"]:
        return _as_json(records, None), compared
    lines = _table(options, records, supervisor is None, sys.stdout.isatty(), size[0] - 1 if size else None)
    if size is not None:
        remarks = [line[: size[0] - 1] for line in remarks]
        room = max(2, size[1] - 1 - len(remarks))
        if len(lines) > room:
            lines[room - 1 :] = [f"and {len(lines) - room + 1} lines more\n"]
    return "".join([*lines, *(f"{line}\n" for line in remarks)]), compared


def _look(options: dict[str, Any]) -> tuple[Supervisor | None, list[Status], list[str]]:
    """The supervisor, the processes that are meant, and the patterns that mean none."""
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    # Asked first: one that starts in between is then at worst called absent, never a stale table a live one's.
    supervisor = ctllib.supervisor(places, state=state)
    return supervisor, *look(places, options["names"], state)


def _remarks(supervisor: Supervisor | None, missing: list[str], long: bool) -> list[str]:
    """What is to be said beside the table."""
    said = [f"cannot show {pattern!r}: no such process" for pattern in missing]
    if supervisor is None:
        return [*said, ctllib.NO_SUPERVISOR]
    said += [_fit(supervisor.descriptors)] if long and supervisor.descriptors else []
    return [*said, *(f"problem: {printable(str(problem))}" for problem in supervisor.problems)]


def _fit(figures: dict[str, int]) -> str:
    """How many processes there are descriptors for."""
    names = ("allowed", "for_processes", "processes", "taken", "waiting", "room")
    allowed, most, processes, taken, waiting, room = (figures.get(name, 0) for name in names)
    more = f"{waiting:,} processes wait" if waiting else f"there is room for {room:,} more"
    said = f"{allowed:,} are allowed, {most:,} of them for processes: {processes:,} take {taken:,}, and {more}"
    return f"descriptors: {said}"


def _as_json(records: list[Status], indent: int | None) -> str:
    import json

    return json.dumps([one.record for one in records], indent=indent) + "\n"


def _table(
    options: dict[str, Any], records: list[Status], unattended: bool, to_people: bool, width: int | None = None
) -> list[str]:
    """The lines of the table, each row with what goes below it; for people with a header, and in colour if wanted.

    `unattended`: nobody keeps the records up to date. No line is longer than `width`.
    """
    now = time.time()
    rows = [_row(one, now, unattended) for one in records]
    below: list[list[str]] = [[] for _ in records]
    if options["long"]:
        from ncolony.cli import past  # reads more files, and is not needed for the table alone

        places = ctllib.Places(options["config"], options["messages"])
        below = [past.details(one, places, options.get("state")) for one in records]
    if to_people and rows:
        rows, below = [_HEADER, *rows], [[], *below]
    widths = [max(least, *(len(row[at]) for row in rows)) if rows else least for at, least in enumerate(_WIDTHS)]
    in_colour = to_people and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    lines = []
    for row, details in zip(rows, below, strict=True):
        cells = [cell.ljust(size) for cell, size in zip(row, widths, strict=True)]
        line = " ".join(cells).rstrip()[:width]
        lines.append((_coloured(line, row, widths[0] + 1) if in_colour else line) + "\n")
        lines.extend(f"    {detail}"[:width] + "\n" for detail in details)
    return lines


def _coloured(line: str, row: tuple[str, ...], at: int) -> str:
    """The line with its state, which stands at `at`, in the state's colour; the header's name in bold."""
    colour = _BOLD if row is _HEADER else _COLOURS.get(row[1])
    if colour is None:
        return line
    start, end = (0, len(row[0])) if row is _HEADER else (at, at + len(row[1]))
    return f"{line[:start]}\x1b[{colour}m{line[start:end]}\x1b[0m{line[end:]}"


def _row(one: Status, now: float, unattended: bool = False) -> tuple[str, ...]:
    """The cells of one process. `unattended`: nobody keeps its record up to date."""
    restarts = f"{one.restarts} restart{'' if one.restarts == 1 else 's'}"
    last_exit = one.last_exit.text if one.last_exit else ""
    running = ""
    if one.pid is not None:
        running = f"pid {one.pid}"
        if unattended and not exists(one.pid):
            running += ", gone"
        elif one.started is not None:
            running += f", uptime {duration(now - one.started)}"
    cells = (one.name, one.state, running, restarts, last_exit, note(one, now))
    return tuple(printable(cell) or "-" for cell in cells)


def note(one: Status, now: float) -> str:
    """Why a process is in its state, and what is to come."""
    said = [one.reason]
    if one.state == "RUNNING" and not one.is_ready(now):
        said.append("not ready yet")
    if one.waiting_for and not one.reason:
        said.append(f"waiting for {', '.join(one.waiting_for)}")
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
    if one.phase:
        said.append(one.phase)
    if one.said:
        said.append(f'"{one.said}"')
    if one.healthy is False:
        said.append(f"unhealthy: {one.health}" if one.health else "unhealthy")
    if one.late:
        said.append(f"late: {one.late}")
    if one.problem:
        said.append(f"problem: {one.problem}")
    if one.rolled_back and one.rolled_back not in (one.problem or ""):
        said.append(f"rolled back: {one.rolled_back}")
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
