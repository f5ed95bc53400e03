"""`events`: what happened, one line each, and what goes on happening."""

from __future__ import annotations

import time

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.cli.choose import chosen
from ncolony.cli.live import LOOK_S, is_unread
from ncolony.cli.past import moment
from ncolony.cli.show import NO_SUCH_PROCESS
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ncolony.ctllib import Event

# How far one looks back with -f, as tail(1) does.
_FOLLOWED = 10


def run(options: dict[str, Any]) -> int:
    """Show the events that the parsed options ask for; returns the exit status."""
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    if options["follow"]:
        try:
            return _follow(options)
        except KeyboardInterrupt:
            return 0  # its only end
    found = ctllib.events(places, state=state)
    missing = []
    if options["names"]:
        ever = [ctllib.Status(name, {}) for name in {one.name for one in found}]
        missing = chosen([*ctllib.status(places, state=state), *ever], options["names"])[1]
    say("".join(map(_form(options), _asked_for(options, found, options["count"]))))
    for pattern in missing:
        complain(f"cannot show the events of {pattern!r}: no such process")
    return NO_SUCH_PROCESS if missing else 0


def _follow(options: dict[str, Any]) -> int:
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    count, form = options["count"], _form(options)
    if count is None and options["since"] is None:
        count = _FOLLOWED
    for found in ctllib.follow_events(places, state=state):
        if found and not say("".join(map(form, _asked_for(options, found, count)))):
            break
        count = None  # it is for what was there before
        if is_unread():
            break
        time.sleep(LOOK_S)
    return 0


def _asked_for(options: dict[str, Any], found: list[Event], count: int | None) -> list[Event]:
    """Those of the processes named, not older than asked, the newest `count` of them."""
    if options["since"] is not None:
        begin = time.time() - options["since"]
        found = [one for one in found if one.at >= begin]
    if options["names"] and found:
        places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
        # Whoever is gone meanwhile is still known by name, whoever is there by its groups too.
        known = {one.name: one for one in ctllib.status(places, state=state)}
        about = [known.get(name) or ctllib.Status(name, {}) for name in {one.name for one in found} if name]
        wanted = {one.name for one in chosen(about, options["names"])[0]}
        found = [one for one in found if one.name in wanted]
    return found if count is None else found[max(0, len(found) - count) :]


def _form(options: dict[str, Any]) -> Callable[[Event], str]:
    if not options["json"]:
        return _line
    import json

    return lambda one: json.dumps(one.record) + "\n"


def _line(one: Event) -> str:
    said = [str(one.record[key]) for key in ("type", "result") if one.record.get(key)]
    said += [f"pid {one.pid}"] if one.pid is not None else []
    said += [f"instance {one.instance}"] if one.instance else []
    said += [one.reason] if one.reason else []
    name, event, text = (printable(part) for part in (one.name or "-", one.event, ", ".join(map(str, said))))
    return f"{moment(one.at)} {name.ljust(24)} {event.ljust(11)} {text}".rstrip() + "\n"
