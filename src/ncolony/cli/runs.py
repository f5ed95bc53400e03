"""`run`: a process is run once, now; with --wait until it ends, and with its exit code."""

from __future__ import annotations

import time

from ncolony import ctllib
from ncolony.cli import complain
from ncolony.cli.progress import Progress, on_the_way
from ncolony.cli.show import NO_SUCH_PROCESS
from ncolony.ctllib.logs import logs_directory
from ncolony.ctllib.runs import Watch, instances_before
from ncolony.model.names import printable

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import PastExit

# After its end, output that has just been written is looked for once more.
_LAST_LOOK_S = 0.3


def run(options: dict[str, Any]) -> int:
    """Run what the parsed options say; returns the exit status, which is the run's own where its end is waited for."""
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    name, wait = options["name"], options.get("wait")
    try:
        if options["follow"]:
            return _follow(options, float("inf") if wait is None else wait)
        begun = ctllib.run(places, name, state=state)
    except ctllib.NotThere as error:
        complain(str(error))
        return NO_SUCH_PROCESS
    if wait is None:
        return 0
    with Progress(lambda: on_the_way(places, [name], state, lambda _: True)) as progress:
        ended = ctllib.wait_for_run(places, begun, wait, state=state, meanwhile=progress)
    return _told(name, ended)


def _told(name: str, ended: list[PastExit]) -> int:
    """The worst exit code; what is not an exit code by itself is said in words."""
    for one in ended:
        if one.code is None or one.reason:
            why = f" ({one.reason})" if one.reason else ""
            complain(f"{printable(one.name or name)}: {printable(one.text)}{printable(why)}")
    return max((ctllib.exit_code_of(one) for one in ended), default=0)


class _Over(Exception):
    """There is nothing more to be shown."""


class _Follower:
    """Waits in place of whoever reads the log: first it asks for the run, then it sees whether that has ended."""

    def __init__(self, options: dict[str, Any], limit: float, out: Any) -> None:
        self._places, self._state = ctllib.Places(options["config"], options["messages"]), options.get("state")
        self._name, self._deadline, self._out = options["name"], time.monotonic() + limit, out
        self._watch: Watch | None = None
        self._until: float | None = None
        self.ended: list[PastExit] = []

    def pause(self, delay: float) -> None:
        """Wait a moment. The log is at its present end when this is first called: what follows is of this run."""
        if self._watch is None:
            self._watch = Watch(self._places, ctllib.run(self._places, self._name, state=self._state), self._state)
        if self._until is None:
            self._look(self._watch)
        elif time.monotonic() >= self._until:
            raise _Over
        self._out.pause(min(delay, 0.05))

    def _look(self, watch: Watch) -> None:
        if watch.is_over():
            self.ended = list(watch.ended.values())
            self._until = time.monotonic() + _LAST_LOOK_S
        elif time.monotonic() >= self._deadline:
            raise ctllib.TimedOut(f"cannot see {self._name!r} end: {watch.left}")


def _follow(options: dict[str, Any], limit: float) -> int:
    """The same, and what it prints meanwhile."""
    from ncolony.cli import logs

    places, state, name = ctllib.Places(options["config"], options["messages"]), options.get("state"), options["name"]
    directory = logs_directory(places, state=state)
    instances_before(places, name, state)
    choice = ctllib.choose_logs(places, [name], state=state, logs=directory)
    try:
        out = logs._Out()
        follower = _Follower(options, limit, out)
        form = logs._Form(out, directory, several=len(choice.names) > 1, times=False, json=False, apart=False)
        try:
            for line in ctllib.read_logs(places, choice, last=0, follow=True, pause=follower.pause, logs=directory):
                out.add(form.of(line))
        except _Over:
            pass
        out.flush()
    except logs._Gone:
        return 0  # nobody reads it any more; the run goes on
    return _told(name, follower.ended)
