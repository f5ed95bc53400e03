"""`jobs`: the table of jobs, with when they are due and how their last runs fared."""

from __future__ import annotations

import sys
import time

from ncolony import ctllib
from ncolony.cli import complain, live, say
from ncolony.cli.choose import chosen
from ncolony.cli.past import moment, span
from ncolony.cli.progress import to_terminal
from ncolony.cli.show import NO_SUCH_PROCESS
from ncolony.ctllib.scheduled import NOT_DUE
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import Job

_HEADER = ("NAME", "SCHEDULE", "NEXT", "LAST START", "TOOK", "EXIT", "RUNS", "NOTE")
# A number of units is told as long as it is not two of the next one.
_UNITS = ((1, "s"), (60, "min"), (3600, "h"), (86_400, "d"))
LATE = 3


def run(options: dict[str, Any]) -> int:
    """Show the jobs that the parsed options name, or all; 0, or 3 when one is late, or 4 when there is no such."""
    if options["watch"] is None:
        found, missing = _look(options)
        say(_text(options, found, 2))
        for pattern in missing:
            complain(f"cannot show {pattern!r}: there is no such job")
        return NO_SUCH_PROCESS if missing else LATE if any(one.late for one in found) else 0
    try:
        return _watch(options)
    except KeyboardInterrupt:
        return 0


def _look(options: dict[str, Any]) -> tuple[list[Job], list[str]]:
    found = ctllib.jobs(ctllib.Places(options["config"], options["messages"]), state=options.get("state"))
    chosen_ones, missing = chosen([one.status for one in found], options["names"])
    wanted = {id(one) for one in chosen_ones}
    return [one for one in found if id(one.status) in wanted], missing


def _watch(options: dict[str, Any]) -> int:
    in_place = to_terminal(sys.stdout) and not options["json"]
    before = ""
    if in_place:
        say(live._CLEAR)
    while not live.is_unread():
        text = _text(options, _look(options)[0], None)
        if in_place:
            size = live._size()
            lines = [line[: size[0] - 1] for line in text.splitlines()[: size[1] - 1]]
            shown = "".join(f"{line}{live._REST_OF_LINE}\n" for line in lines)
            if not say(live._HOME + shown + live._REST_OF_SCREEN):
                break
        elif text != before and not say(text if not before or options["json"] else f"\n{text}"):
            break
        before = text
        time.sleep(options["watch"] or live.LOOK_S)
    return 0


def _text(options: dict[str, Any], found: list[Job], indent: int | None) -> str:
    if options["json"]:
        import json

        return json.dumps([one.record for one in found], indent=indent) + "\n"
    now = time.time()
    rows = [_row(one, now) for one in found]
    if rows and sys.stdout is not None and sys.stdout.isatty():
        rows.insert(0, _HEADER)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _row(one: Job, now: float) -> tuple[str, ...]:
    cells = (
        one.name,
        one.schedule,
        "-" if one.next is None else f"{moment(one.next)}, {_distance(one.next - now)}",
        "-" if one.started is None else moment(one.started),
        "-" if one.lived is None else span(one.lived),
        "running" if one.running else one.exit,
        str(one.runs),
        note(one, now),
    )
    return tuple(printable(cell) or "-" for cell in cells)


def _distance(seconds: float) -> str:
    """ "in 3 min", "now", "40 s ago"."""
    if abs(seconds) < 1:
        return "now"
    size, unit = next(((size, unit) for size, unit in reversed(_UNITS) if abs(seconds) >= 2 * size), _UNITS[0])
    text = f"{int(abs(seconds) / size)} {unit}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def note(one: Job, now: float) -> str:
    """What is to be said of a job: that it is off, late, tried again, that a run was left out, and what is wrong."""
    said = [one.off]
    if one.late:
        said.append(f"late: {one.late}")
    if one.try_at is not None:
        said.append(f"failed, next try {_distance(one.try_at - now)}")
    elif one.tries and one.running:
        said.append(f"try {one.tries + 1}")
    if one.queued:
        said.append("the next run waits for its end")
    if one.skipped and one.skipped_at is not None:
        more = f"{one.skipped} runs left out, the last one" if one.skipped > 1 else "the run left out that was"
        said.append(f"{more} due {moment(one.skipped_at)}: {one.skipped_why}" if one.skipped_why else more)
    if one.status.waiting_for:
        said.append(f"waiting for {', '.join(one.status.waiting_for)}")
    told = one.status.reason == NOT_DUE or (one.exit and one.status.reason.startswith(one.exit))
    if not (one.running or one.off or told):
        said.append(one.status.reason)
    if one.problem:
        said.append(f"problem: {one.problem}")
    return "; ".join(part for part in said if part)
