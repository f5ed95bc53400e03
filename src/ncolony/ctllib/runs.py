"""Running a process once, now, and waiting for the end of that run."""

from __future__ import annotations

import os
import time

from ncolony.ctllib import NO_SUPERVISOR, Failed, TimedOut
from ncolony.ctllib.common import check_name, no_such_process, poll, shown, state_directory
from ncolony.ctllib.messages import start
from ncolony.ctllib.reports import LIVE, answer, copies_in, definition, history_of, reported, supervisor
from ncolony.ctllib.waits import as_it_is, hint, seconds, stands_for

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from ncolony.ctllib import Path, Places
    from ncolony.ctllib.reports import PastExit, Status
    from ncolony.ctllib.waits import Meanwhile

# A status is looked at for what the history has not; the history is read whenever that has changed.
_AT_REST = ("STOPPED", "EXITED", "FATAL", "BACKOFF")
# A supervisor that is just starting, or is being replaced, has this long to appear.
_GRACE_S = 5.0
_LOOK_S = 0.25
# What a shell reports for a command that cannot be run.
_CANNOT_RUN = 127


class Run:
    """A run that was asked for. `message_id` is that of its START; `since` the newest instance of each copy before."""

    __slots__ = ("message_id", "name", "since")

    name: str
    message_id: str
    since: dict[str, int]

    def __init__(self, name: str, message_id: str, since: dict[str, int]) -> None:
        self.name, self.message_id, self.since = name, message_id, since

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.message_id!r}, {self.since!r})"


def run(places: Places, name: str, *, state: Path | None = None) -> Run:
    """Ask for the process `name`, such as a job, to be run now, once; `wait_for_run` waits for the end of that run.

    :raises NotThere: when there is no such process.
    :raises Failed: when it runs already, or no supervisor is there: later, the run would be one that nobody expects.
    :raises CannotAccess: when the message cannot be written.
    """
    since = instances_before(places, name, state)
    return Run(name, start(places, name), since)


def instances_before(places: Places, name: str, state: Path | None) -> dict[str, int]:
    """The newest instance of each process that `run` would start. It raises what `run` raises."""
    deed = f"run {check_name('run', name)}"
    directory = os.path.join(state_directory(places, state), "status")
    there = copies_in(directory, places, name)
    if os.path.lexists(os.path.join(places.config, name)):
        there = there or stands_for(name, definition(places, name).get("instances"))
    elif not there:
        raise no_such_process(deed, places)
    if supervisor(places, state=state) is None:
        raise Failed(f"cannot {deed}: {NO_SUPERVISOR}")
    since: dict[str, int] = {}
    for one in there:
        found = reported(directory, one)
        if found is not None and found.state in LIVE:
            which = "" if one == name else f"{shown(one)}: "
            raise Failed(f"cannot {deed}: {which}it runs already: {found.state}, instance {found.instance}")
        since[one] = 0 if found is None else found.instance
    return since


def wait_for_run(
    places: Places,
    run: Run,
    timeout: float = float("inf"),
    *,
    state: Path | None = None,
    meanwhile: Meanwhile = None,
) -> list[PastExit]:
    """Wait up to `timeout` seconds for the end of a run; returns how each of its copies ended, see `exit_code_of`.

    A supervisor that is killed meanwhile does not matter; nor does it whether others start it again afterwards.

    :raises Failed: when it cannot be started, was removed, or no supervisor runs any more to tell.
    :raises TimedOut: when it has not ended by then. It goes on.
    """
    waiting = Watch(places, run, state)
    for _ in poll(timeout, meanwhile):
        if waiting.is_over():
            return [waiting.ended[name] for name in run.since]
    raise TimedOut(f"cannot see {shown(run.name)} end: after {seconds(timeout)} {waiting.left}{hint(places, state)}")


def exit_code_of(ended: PastExit) -> int:
    """The exit code of an instance as a shell would report it: 128 + n for signal n, 127 where it cannot be run."""
    if ended.code is not None:
        return ended.code
    if ended.signal is None:
        return _CANNOT_RUN if ended.pid is None else 1
    import signal  # needed for few

    try:
        return 128 + signal.Signals[f"SIG{ended.signal.removeprefix('SIG')}"].value
    except KeyError:
        number = ended.signal.rpartition("+")[2]
        return 128 + int(number) if number.isdecimal() and int(number) < 128 else 1


class Watch:
    """A run that is waited for."""

    def __init__(self, places: Places, run: Run, state: Path | None) -> None:
        self._places, self._run, self._state = places, run, state
        self._statuses = os.path.join(state_directory(places, state), "status")
        self._looked = time.monotonic()
        self._absent_since: float | None = None
        self.ended: dict[str, PastExit] = {}
        self._seen: dict[str, tuple[int, str]] = {}
        self.left = "it has not begun"

    def is_over(self) -> bool:
        """Whether each copy has ended.

        :raises Failed: when one never will.
        """
        self._check_answer()
        for name, since in self._run.since.items():
            if name not in self.ended:
                self._look(name, since)
        if len(self.ended) == len(self._run.since):
            return True
        self._check_supervisor()
        return False

    def _look(self, name: str, since: int) -> None:
        found = reported(self._statuses, name)
        if found is None:
            if name in self._seen and not self._look_back(name, since):
                raise Failed(f"cannot see {shown(self._run.name)} end: {shown(name)} was removed")
            return
        self.left = as_it_is(found)
        # Its instance may be over long since, and another one running: the history knows.
        is_over = found.instance > since and (found.state in _AT_REST or found.instance > since + 1)
        if is_over and not self._look_back(name, since):
            self._fall_back(name, found)
        self._seen[name] = found.instance, found.state

    def _look_back(self, name: str, since: int) -> bool:
        """Find the end of its run in the history."""
        for past in history_of(self._places, name, state=self._state):
            if past.instance > since:
                self.ended[name] = past
                return True
        return False

    def _fall_back(self, name: str, found: Status) -> None:
        """Nothing else is known of an end, when it could not be recorded: what the status says must do."""
        from ncolony.ctllib.reports import PastExit

        if self._seen.get(name) == (found.instance, found.state) and found.last_exit is not None:
            record = {"instance": found.instance, "pid": 0, **(found.record["last_exit"] or {})}
            self.ended[name] = PastExit(record, name)

    def _check_answer(self) -> None:
        said = answer(self._places, self._run.message_id, state=self._state)
        # One that ends in failure at once is a run too, and has a record.
        if said is not None and said.state == "failed" and not said.accepted:
            raise Failed(f"cannot run {shown(self._run.name)}: {said.why or 'the supervisor gives no reason'}")

    def _check_supervisor(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        if supervisor(self._places, state=self._state) is not None:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since >= _GRACE_S:
            raise Failed(f"cannot see {shown(self._run.name)} end: {NO_SUPERVISOR}")
