"""How a long wait is going: a few lines on the terminal, redrawn in place, and gone when it is over."""

from __future__ import annotations

import os
import sys
import time

from ncolony import ctllib
from ncolony.cli import complain
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    from ncolony.ctllib import Path, Places, Status

# Who waits for less than this needs no telling.
_PATIENCE_S = 1.0
_EVERY_S = 0.2
_LINES = 8
_ON_THE_WAY = ("STARTING", "STOPPING", "BACKOFF", "WAITING")


class Progress:
    """Called again and again while something is waited for, it shows the lines that `describe` returns.

    Nothing is shown in the first second, nor where stderr is no terminal.
    """

    def __init__(self, describe: Callable[[], list[str]]) -> None:
        self._describe = describe
        self._stream: TextIO | None = sys.stderr if to_terminal(sys.stderr) else None
        self._next = time.monotonic() + _PATIENCE_S
        self._drawn = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self) -> None:
        """Show how it stands, if it is time to."""
        now = time.monotonic()
        if self._stream is None or now < self._next:
            return
        self._next = now + _EVERY_S
        try:
            lines = self._describe()
        except ctllib.Error:
            return  # it is no more than a view: the wait itself will say what is wrong
        if len(lines) > _LINES:
            lines = [*lines[:_LINES], f"and {len(lines) - _LINES} more"]
        width = columns(self._stream) - 1
        self._write(self._erasure() + "".join(f"{printable(line)[:width]}\n" for line in lines))
        self._drawn = len(lines)

    def clear(self) -> None:
        """Take the lines away, so that something else can be written."""
        if self._drawn:
            self._write(self._erasure())
            self._drawn = 0

    def _erasure(self) -> str:
        return f"\x1b[{self._drawn}A\r\x1b[J" if self._drawn else ""

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._stream = None  # nobody is there to be told


def to_terminal(stream: TextIO | None) -> bool:
    """Whether lines written to `stream` can be taken back."""
    return stream is not None and stream.isatty() and (os.environ.get("TERM") or "dumb") != "dumb"


def columns(stream: TextIO) -> int:
    """How wide the terminal is."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def is_on_the_way(one: Status) -> bool:
    """Whether more will come of its state by itself."""
    return one.state in _ON_THE_WAY or (one.state == "RUNNING" and not one.is_ready(time.time()))


def on_the_way(
    places: Places,
    names: Iterable[str] | None,
    state: Path | None,
    is_awaited: Callable[[Status], bool] = is_on_the_way,
) -> list[str]:
    """What is awaited among the processes of these names, or among all: a line for each."""
    from ncolony.cli import show

    if ctllib.supervisor(places, state=state) is None:
        return [ctllib.NO_SUPERVISOR]
    wanted = None if names is None else set(names)
    now = time.time()
    lines = []
    for one in ctllib.status(places, state=state):
        if (wanted is None or wanted & {one.name, one.file}) and is_awaited(one):
            note = show.note(one, now)
            since = f" for {show.duration(now - one.since)}" if one.since else ""
            lines.append(f"{one.name}: {one.state}{since}{': ' if note else ''}{note}")
    return lines or ["waiting for the supervisor"]


def tell(progress: Progress, line: str) -> None:
    """Write one line to stderr in place of what is shown."""
    progress.clear()
    complain(line)
