"""Runs jobs, the processes with a `schedule`: it decides when, and asks the supervisor by START and STOP.

The supervisor alone starts processes. So what runs goes on whatever becomes of this program, and what it has asked for
is done once: a run is noted before it is asked for, under the name that its message has.
"""

from __future__ import annotations

import fcntl
import heapq
import math
import os
import time
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.logger import Logger

from .. import ctllib
from ..ctllib import Places
from ..system.clock import make_steady
from ..system.places import state_directory
from ..system.wake import Watcher
from .job import CLOCK_SET_S, Job
from .jobfiles import Definitions, Notes, Office
from .plugin import PLACES, PlacesOptions, Signals

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = Logger(namespace="ncolony.jobs")

# What inotify did not tell is seen this much later; a clock that was set too.
_LOOK_S = 30.0
# While no supervisor runs, how soon and how seldom it is looked for.
_SOON_S, _SELDOM_S = 0.1, 0.5
# Without a supervisor for so long, what was asked of it is taken back.
_PATIENCE_S = 5.0
# Moments that come closer together than this are one turn.
_LEAST_WAIT_S = 0.001
# So many wake-ups that are no more meant may be kept.
_SPARE = 256


class Clerk(Service):
    """Looks after every job, each when something about it has changed or its time has come."""

    def __init__(self, reactor: Any, places: Places, state: str, look_s: float = _LOOK_S) -> None:
        self._reactor, self._places, self._look_s = reactor, places, look_s
        self._statuses, self._config = f"{state}/status", os.fspath(places.config)
        self._definitions = Definitions(self._config)
        self._notes = Notes(f"{state}/jobs")
        self._office = Office(places, state)
        self._jobs: dict[str, Job] = {}
        self._due: list[tuple[float, str]] = []  # monotonic; what is no job's own wake-up any more is passed over
        self._timer: Any = None
        self._watcher: Watcher | None = None
        self._absent_since: float | None = None
        self._withdrawn = False
        self._pause = _SOON_S
        self._offset = time.time() - time.monotonic()

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Begin once the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Nothing is left to be done: what is noted is on disk already."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.close()

    def _begin(self) -> None:
        if not self.running:
            return
        self._watcher = Watcher(self._reactor, self._changed)
        self._reconfigure(self._definitions.scan())
        for name in self._notes.names():
            if name not in self._jobs and self._definitions.is_gone(name):
                self._notes.forget(name)
        self._turn(self._jobs)
        self._look()
        _log.info("looks after {count} jobs", count=len(self._jobs))

    # what may have changed

    def _look(self) -> None:
        """See what nobody told us: changed files and statuses, a clock that was set."""
        if not self.running:
            return
        self._reactor.callLater(self._look_s, self._look)
        assert self._watcher is not None
        for directory in (self._config, self._statuses):
            self._watcher.arm(directory)
        offset = time.time() - time.monotonic()
        was_set = abs(offset - self._offset) > CLOCK_SET_S
        self._offset = offset
        changed = self._reconfigure(self._definitions.scan())
        # One scandir and no file is opened: whose status is not newer than what we saw is as we saw it.
        changed |= self._office.changed_statuses(self._jobs)
        self._turn(self._jobs if was_set else changed)

    def _changed(self, directory: str, names: set[str] | None) -> None:
        """inotify has a hint."""
        if directory == self._config:
            self._turn(self._reconfigure(self._definitions.scan(names)))
        elif names is None:
            self._turn(self._office.changed_statuses(self._jobs))
        elif names := names & self._jobs.keys():
            self._turn(names)

    def _reconfigure(self, names: Iterable[str]) -> set[str]:
        """Take in what the files say of these jobs; those that are to be looked at."""
        concerned = set()
        for name in names:
            found = self._definitions.good.get(name)
            if found is None:
                self._jobs.pop(name, None)
                self._notes.forget(name)
            elif name in self._jobs:
                self._jobs[name].reconfigure(found)
                concerned.add(name)
            else:
                try:
                    self._jobs[name] = Job(name, found, self._office, self._notes)
                except ValueError as wrong:  # a time zone that was there when the file was checked
                    _log.error("{name}: cannot run at its times: {wrong}", name=name, wrong=str(wrong))
                    continue
                concerned.add(name)
        return concerned

    # what follows

    def _turn(self, names: Iterable[str]) -> None:
        """Look at these jobs; without a supervisor nothing is decided."""
        if not self.running:
            return
        names = list(names)
        if names and self._is_supervised():
            for name in names:
                if (job := self._jobs.get(name)) is not None:
                    self._see_to(name, job)
        self._set_timer()

    def _see_to(self, name: str, job: Job) -> None:
        try:
            wake = job.turn()
        except Exception:  # noqa: BLE001  # one job is not to harm the others
            _log.failure("cannot go on with {name}; the others are not concerned", name=name)
            wake = time.monotonic() + self._look_s
        # One that has passed was popped; and the same moment reckoned twice is not always the same number.
        if job.wake is not None and abs(wake - job.wake) < _LEAST_WAIT_S:
            return
        job.wake = wake if math.isfinite(wake) else None
        if job.wake is not None:
            heapq.heappush(self._due, (job.wake, name))
        if len(self._due) > 4 * len(self._jobs) + _SPARE:
            self._due = [(one.wake, name) for name, one in self._jobs.items() if one.wake is not None]
            heapq.heapify(self._due)

    def _tick(self) -> None:
        now, due = time.monotonic(), []
        if self._absent_since is not None:
            self._turn(list(self._jobs)[:1])
            return
        while self._due and self._due[0][0] <= now:
            wake, name = heapq.heappop(self._due)
            if (job := self._jobs.get(name)) is not None and job.wake == wake:
                job.wake = None
                due.append(name)
        self._turn(due)

    def _set_timer(self) -> None:
        """One call is due at most."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._absent_since is not None:
            self._timer = self._reactor.callLater(self._pause, self._tick)
        elif self._due:
            wait = max(_LEAST_WAIT_S, self._due[0][0] - time.monotonic())
            self._timer = self._reactor.callLater(wait, self._tick)

    def _is_supervised(self) -> bool:
        """Whether a supervisor is there to ask. When it is back, all that was known is reckoned anew."""
        if self._office.is_supervised():
            if self._absent_since is not None:
                self._absent_since = None
                self._come_back()
            return True
        now = time.monotonic()
        if self._absent_since is None:
            self._absent_since, self._pause, self._withdrawn = now, _SOON_S, False
        elif now - self._absent_since >= _PATIENCE_S and not self._withdrawn and self._office.is_deserted():
            # One that has just come may be reading what would be taken back.
            self._withdrawn = True
            for job in self._jobs.values():
                job.withdraw()
        self._pause = min(self._pause * 1.5, _SELDOM_S)
        return False

    def _come_back(self) -> None:
        for name, job in self._jobs.items():
            job.resume()
            self._see_to(name, job)


class Options(PlacesOptions):
    """Options of `ncolony-jobs`."""

    optParameters = [*PLACES]  # noqa: N815, RUF012 (Twisted's interface)


def makeService(options: Options) -> Service:  # noqa: N802 (Twisted's interface)
    """The clerk as a service, from parsed options.

    :raises SystemExit: saying why it cannot start.
    """
    from twisted.application.service import MultiService
    from twisted.internet import reactor

    make_steady(reactor)
    places = Places(options["config"], options["messages"])
    state = state_directory(places.config, places.messages, options["state"])
    try:
        clerk = Clerk(reactor, places, state)
        _lock(f"{state}/jobs")
    except BlockingIOError:
        raise SystemExit(f"cannot start: another ncolony-jobs looks after the jobs of {places.config}") from None
    except OSError as error_:
        raise SystemExit(f"cannot start: cannot use {error_.filename}: {error_.strerror}") from None
    except ctllib.Error as error_:
        raise SystemExit(f"cannot start: {error_}") from None
    together = MultiService()  # type: ignore[no-untyped-call]
    for service in (Signals(reactor), clerk):
        service.setServiceParent(together)  # type: ignore[no-untyped-call]
    return together


def _lock(directory: str) -> None:
    """Be the only one, for as long as we live.

    :raises BlockingIOError: when another one is.
    """
    lock = os.open(f"{directory}/.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + 2.0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
