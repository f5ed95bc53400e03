"""`history`: the table of a process's ended instances; and what `status --long` says of the last one."""

from __future__ import annotations

import sys
import time

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.cli.show import duration
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import LastExit, PastExit, Path, Places, Status

_HEADER = ("INSTANCE", "ENDED AT", "LIVED", "EXIT", "CPU", "PEAK RSS", "NOTE")
_KIB_PER = {"KiB": 1, "MiB": 1024, "GiB": 1024 * 1024}


def run(options: dict[str, Any]) -> int:
    """Show the history that the parsed options ask for; returns the exit status."""
    name, count = options["name"], options["count"]
    places = ctllib.Places(options["config"], options["messages"])
    found = ctllib.history(places, name, state=options.get("state"))
    chosen = found if count is None else found[max(0, len(found) - count) :]
    if options["json"]:
        import json

        say(json.dumps([{"name": one.name, **one.record} for one in chosen], indent=2) + "\n")
        return 0
    # The copies of one process share a table, which then says whose each line is.
    whose = any(one.name != name for one in found)
    rows = [(*([printable(one.name)] if whose else []), *_row(one)) for one in chosen]
    below = [printed(one.lines) if options["lines"] else [] for one in chosen]
    if rows and sys.stdout is not None and sys.stdout.isatty():
        rows, below = [(*(["NAME"] if whose else []), *_HEADER), *rows], [[], *below]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, lines in zip(rows, below, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        say("".join(f"{line.rstrip()}\n" for line in ("  ".join(cells), *(f"    {line}" for line in lines))))
    if not found:
        complain(f"no instance of {name!r} has ended yet")
    return 0


def details(one: Status, places: Places, state: Path | None) -> list[str]:
    """What the table has no room for: what a stop waits for, the last exit, and what was printed before it."""
    said = [f"waiting for {printable(held)}" for held in one.holding]
    if isinstance(one.memory, int):
        said.append(f"memory: {size(one.memory // 1024)}")
    try:
        past = ctllib.history_of(places, one.name, state=state)
    except ctllib.Error:  # the status is there all the same
        past = []
    last = past[-1] if past else one.last_exit
    if last is not None:
        figures = [how(last), moment(last.at), f"lived {span(last.lived)}"]
        figures += [f"CPU {span(last.cpu)}"] if last.cpu is not None else []
        figures += [f"peak RSS {size(last.rss_kb)}"] if last.rss_kb is not None else []
        said.append(f"last exit: {', '.join(figures)}")
    return [*said, *(printed(past[-1].lines) if past else [])]


def printed(lines: list[str]) -> list[str]:
    """Lines of output as they are shown below a row."""
    return [f"| {printable(line)}" for line in lines]


def how(ended: LastExit) -> str:
    """How an instance ended, such as "signal SEGV (core dumped)"."""
    text = ended.text
    for true, words in ((ended.core, " (core dumped)"), (ended.oom, " (out of memory)")):
        if true and words not in text:
            text += words
    return printable(text) or "-"


def _row(one: PastExit) -> tuple[str, ...]:
    return (
        str(one.instance),
        moment(one.at),
        span(one.lived),
        how(one),
        "-" if one.cpu is None else span(one.cpu),
        "-" if one.rss_kb is None else size(one.rss_kb),
        printable(one.reason),
    )


def moment(at: float) -> str:
    """A wall-clock time, as people write it here and now."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "-"


def span(seconds: float) -> str:
    """0.012 s, 3.5 s, then as in the table of `status`."""
    return f"{round(seconds, 3 if seconds < 1 else 1):g} s" if seconds < 60 else duration(seconds)


def size(kib: int) -> str:
    """3 GiB, 8.8 MiB, 512 KiB."""
    unit = next((unit for unit in ("GiB", "MiB") if kib >= _KIB_PER[unit]), "KiB")
    return f"{round(kib / _KIB_PER[unit], 1):g} {unit}"
