"""Commands that write: definitions and messages, and waiting for what comes of them."""

from __future__ import annotations

import argparse
import time

from ncolony import ctllib
from ncolony.cli import complain, say
from ncolony.cli.progress import Progress, on_the_way, tell
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ncolony.ctllib import Path, Places

# By the names of ctllib's functions, so that only the one that is called need be loaded.
_DEFINITIONS = ("add", "remove", "enable", "disable")
# What a message asks for, and what is said of each process when it is done.
_DONE: dict[str, tuple[str, str]] = {
    "restart": ("restart", "restarted"),
    "restart_group": ("restart group", "restarted"),
    "restart_all": ("restart all", "restarted"),
    "start": ("start", "started"),
    "stop": ("stop", "stopped"),
    "signal": ("signal", "signalled"),
    "scan": ("scan", ""),
    "upgrade": ("upgrade", ""),
}


def run(options: dict[str, Any]) -> int:
    """Do what the parsed options say; returns the exit status. One bad name does not keep the others from theirs."""
    options = dict(options)
    wait, state = options.pop("wait", None), options.pop("state", None)
    names = options.pop("names", None)
    places = ctllib.Places(options["config"], options["messages"])
    each = [options] if names is None else [{**options, "name": name} for name in names]
    code = 0
    waiting: list[tuple[str, str]] = []
    for one in each:
        try:
            waiting.append(_do(one))
        except ctllib.Error as error:
            complain(str(error))
            code = 1
    if wait is None:
        return code
    deadline = time.monotonic() + wait
    with Progress(lambda: _describe(places, waiting, state)) as progress:
        while waiting:
            who, message_id = waiting[0]
            left = max(0.0, deadline - time.monotonic())
            try:
                if message_id:
                    _see_message(places, options["func"], who, message_id, left, state, progress)
                else:
                    ctllib.wait_for_applied(places, who, left, state=state, meanwhile=progress)
            except ctllib.Error as error:
                tell(progress, str(error))
                code = 1
            del waiting[0]
    return code


def _describe(places: Places, waiting: list[tuple[str, str]], state: Path | None) -> list[str]:
    """Lines about the processes that something is still to become of."""
    names: list[str] = []
    for who, message_id in waiting:
        found = ctllib.answer(places, message_id, state=state) if message_id else None
        names += found.names if found is not None else [who]
    return on_the_way(places, names, state)


def shut_down(options: dict[str, Any]) -> int:
    """End the colony; returns the exit status. Without a supervisor its keeper is waited for in any case."""
    wait, state = options.get("wait"), options.get("state")
    places = ctllib.Places(options["config"], options["messages"])
    if wait is None:
        ctllib.shutdown(places, state=state)
        return 0
    message_id = ctllib.shutdown(places, state=state, timeout=wait)
    if message_id:
        with Progress(lambda: on_the_way(places, None, state)) as progress:
            ctllib.wait_for_shutdown(places, message_id, wait, state=state, meanwhile=progress)
    return 0


def _do(options: dict[str, Any]) -> tuple[str, str]:
    """Write what the options of one process say: whom it is about, and the message's id if it is a message."""
    result = ctllib.call(argparse.Namespace(**options))
    who = options.get("name") or options.get("group") or ""
    if options["func"].__name__ not in _DEFINITIONS:
        return who, result
    say(f"{printable(who)}: {'unchanged' if result is False else 'changed'}\n")
    return who, ""


def _see_message(
    places: Places,
    func: Callable[..., str],
    who: str,
    message_id: str,
    timeout: float,
    state: Path | None,
    progress: Progress,
) -> None:
    asked, done = _DONE[func.__name__]
    deed = f"{asked} {who!r}" if who else asked
    try:
        answer = ctllib.wait_for_answer(places, message_id, timeout, state=state, meanwhile=progress)
    except ctllib.TimedOut as error:
        raise ctllib.TimedOut(str(error).replace(f"see the end of message {message_id}", deed, 1)) from error
    if answer.state != "done":
        raise ctllib.Failed(f"cannot {deed}: {answer.why or 'the supervisor gives no reason'}")
    if done:
        progress.clear()
        say("".join(f"{printable(name)}: {done}\n" for name in answer.names))
