"""What goes on until CTRL-C: `status --watch` and `events -f`."""

from __future__ import annotations

import os
import sys
import time

from ncolony import ctllib
from ncolony.cli import say, show
from ncolony.cli.progress import to_terminal

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import Path, Places

# Looking costs two stat calls: often enough that a change seems to be shown at once.
LOOK_S = 0.1
# File times have the grain of the kernel's tick: what changed this shortly before may change again without a trace.
_RACY_NS = 50_000_000
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = f"{_HOME}\x1b[2J"


def watch(options: dict[str, Any]) -> int:
    """Show the processes again whenever something about them changed, until CTRL-C: 0 then.

    On a terminal the table is redrawn in place, and also when the time given has passed, for the uptimes in it.
    """
    try:
        return _watch(options)
    except KeyboardInterrupt:
        return 0


def _watch(options: dict[str, Any]) -> int:
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    in_place = to_terminal(sys.stdout) and not options["json"]
    stamp: object = None
    shown, due, looked_at = "", 0.0, ""
    if in_place:
        say(_CLEAR)
    while not is_unread():
        before, stamp = stamp, _stamp(places, state)
        now = time.monotonic()
        if stamp is None or stamp != before or (in_place and now >= due):
            due = now + options["watch"]
            text, compared = show.picture(options, _size() if in_place else None)
            if in_place:
                if text != shown and not say(_HOME + text.replace("\n", f"{_REST_OF_LINE}\n") + _REST_OF_SCREEN):
                    break
                shown = text
            elif compared != looked_at:
                if not say(text if not looked_at or options["json"] else "\n" + text):
                    break
                looked_at = compared
        time.sleep(min(LOOK_S, options["watch"]) or LOOK_S)
    return 0


def _stamp(places: Places, state: Path | None) -> object:
    """What changes when a status does; None when it may change again without that one sees it."""
    from ncolony.system.places import state_directory

    times = []
    for path in (os.path.join(state_directory(places.config, places.messages, state), "status"), places.config):
        try:
            times.append(os.stat(path).st_mtime_ns)
        except OSError:
            times.append(0)
    if time.time_ns() - max(times) < _RACY_NS:
        return None
    return (*times, ctllib.supervisor(places, state=state) is None)


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return 80, 24
    return size.columns or 80, size.lines or 24


def is_unread() -> bool:
    """Whether nobody can read what is written to stdout: its pipe or terminal was closed at the other end."""
    import select

    try:
        poller = select.poll()
        poller.register(sys.stdout.fileno(), 0)
        return bool(poller.poll(0))
    except (AttributeError, OSError, ValueError):
        return sys.stdout is None
