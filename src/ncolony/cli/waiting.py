"""`wait`: until processes are as one wants them, or until everything is in effect."""

from __future__ import annotations

import time

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.cli.progress import Progress, on_the_way
from ncolony.cli.show import NO_SUCH_PROCESS
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import Status

_AT_REST = ("STOPPED", "EXITED", "FATAL")


def run(options: dict[str, Any]) -> int:
    """Wait for what the parsed options say; returns the exit status."""
    if options["converged"]:
        return _converged(options)
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    names, goal = options["names"], options["goal"]
    up = goal in ("running", "ready")

    def is_awaited(one: Status) -> bool:
        return not (one.is_ready(time.time()) if up else one.state in _AT_REST)

    try:
        with Progress(lambda: on_the_way(places, names, state, is_awaited)) as progress:
            found = ctllib.wait_for(places, names, goal, options["timeout"], state=state, meanwhile=progress)
    except ctllib.NotThere as error:
        complain(str(error))
        return NO_SUCH_PROCESS
    say("".join(f"{printable(one.name)}: {goal}\n" for one in found))
    return 0


def _converged(options: dict[str, Any]) -> int:
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")

    def describe() -> list[str]:
        return ctllib.not_applied(places, state=state) or on_the_way(places, None, state)

    with Progress(describe) as progress:
        done = ctllib.wait_for_converged(places, options["timeout"], state=state, meanwhile=progress)
    if not done.problems:
        return 0
    complain(f"everything is applied, but {done.problems} of {done.files} files cannot be used")
    for one in ctllib.status(places, state=state):
        if one.problem:
            complain(printable(one.problem))
    return 0 if options["ignore_problems"] else 1
