"""From what happens in a colony to letters that have arrived, for one receiver; what that needs is kept in a file.

The file is written whole before anything is sent, and after it has arrived. So whoever is killed at whatever moment
goes on where it was: events that had not led to a letter in the file are read once more, with the same outcome, and a
letter that had not surely arrived is sent once more.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet import defer
from twisted.logger import Logger

from .. import ctllib
from ..ctllib import Error, Event, PastExit, Places, Status
from ..ctllib.eventlog import EventReader
from ..ctllib.logs import is_meant, shared_name
from ..ctllib.reports import definition, file_names
from ..decide import alerts
from ..decide.alerts import Alert, Known, Limit, Rate, Rules
from ..system.files import write_whole
from . import letters
from .receivers import Outcome, Receiver

_log = Logger(namespace="ncolony.notify")

# So many letters wait for a receiver; with the last lines of a process a letter has 4 KB on average, 20 at most.
MOST_WAITING = 200
# Events, or statuses, that are dealt with before somebody else has a turn.
_AT_ONCE = 200
# A status may be older than the last event, by some milliseconds.
_QUIET_S = 2.0
# What is not well is looked at this often, should an event have been lost.
_LOOK_AGAIN_S = 10.0
# How far we came is written down at least this often, while there is nothing to send.
_NOTE_S = 30.0
# The ends of instances are told of by these events; the first three about the newest instance, `starting` about the
# one before.
_ENDS = ("backoff", "exited", "fatal", "starting")
# The one end by our own hand after which an instance is started at once, and which yet is its own fault.
_FAULT = "watchdog: "
_ABOUT_ENDS = ("crash-loop", "fatal", "oom", "exit")
# What happens in a row is read together.
_SOON_S = 0.05


class Saved(msgspec.Struct):
    """What is in the file."""

    version: int = 1
    position: str = ""
    last_at: float = 0.0  # of the last event that was read
    known: dict[str, Known] = {}
    limit: Limit = Limit()
    queue: list[dict[str, Any]] = []


class Plan(msgspec.Struct, frozen=True):
    """What is told to a receiver and how: in how many letters, tried again how often, in whose name."""

    rules: Rules
    rate: Rate
    retries: int
    host: str


class Facts:
    """What is to be known of the processes of a colony, beside their events."""

    def __init__(self, places: Places, state: str, names: Iterable[str], groups: Iterable[str], but: str) -> None:
        """`names` are patterns; `but` is the process that is left out: we ourselves."""
        self.places, self.state = places, state
        self.config = os.path.abspath(os.fspath(places.config))
        self._patterns, self._groups, self._but = list(names), set(groups), shared_name(but)
        self._grouped: dict[str, bool] = {}

    def wants(self, name: str) -> bool:
        """Whether the process is one of those that are told of."""
        if not name or (self._but and shared_name(name) == self._but) or not is_meant(name, self._patterns):
            return False
        return not self._groups or self._is_grouped(name)

    def _is_grouped(self, name: str) -> bool:
        status = self.status(name)
        if status is not None:
            self._grouped[name] = not self._groups.isdisjoint(status.group)
        elif name not in self._grouped:
            group = definition(self.places, shared_name(name)).get("group", [])
            return not self._groups.isdisjoint([group] if isinstance(group, str) else group)
        return self._grouped[name]

    def forget(self, name: str) -> None:
        """The process is gone."""
        self._grouped.pop(name, None)

    def names(self) -> list[str]:
        """Every process that has a status."""
        with suppress(Error):
            return [name for name in file_names(f"{self.state}/status") if self.wants(name)]
        return []

    def status(self, name: str) -> Status | None:
        """Its status, None where there is none that can be read."""
        with suppress(Error):
            found = ctllib.status_of(self.places, name, state=self.state)
            return None if found is None or found.state == "UNKNOWN" else found
        return None

    def is_gone(self, name: str) -> bool:
        """Whether there is no status of it."""
        return not os.path.lexists(f"{self.state}/status/{name}")

    def past(self, name: str, instance: int | None = None) -> PastExit | None:
        """How its last instance ended, or a certain one; None where that is not known."""
        with suppress(Error):
            for one in reversed(ctllib.history_of(self.places, name, state=self.state)):
                if instance is None or one.instance == instance:
                    return one
        return None

    def definition(self, name: str) -> dict[str, Any]:
        """What its file says."""
        own = os.path.lexists(os.path.join(self.config, name))
        return definition(self.places, name if own else shared_name(name))

    def has_succeeded(self, name: str, past: PastExit) -> bool:
        """Whether that was an end in success."""
        codes = self.definition(name).get("success_codes", [0])
        return isinstance(codes, list) and past.code in codes

    def supervised(self) -> bool:
        """Whether a supervisor runs."""
        with suppress(Error):
            return ctllib.supervisor(self.places, state=self.state) is not None
        return False


class Desk:
    """Reads events and sees to it that one receiver is told what it should be."""

    def __init__(self, reactor: Any, facts: Facts, receiver: Receiver, plan: Plan, path: str) -> None:
        """Take the file, and remember what is in it.

        :raises BlockingIOError: when somebody else has it.
        :raises OSError: when it cannot be used.
        """
        self._reactor, self._facts, self._receiver, self._plan, self._path = reactor, facts, receiver, plan, path
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = self._load()
        except OSError:
            os.close(self._lock)
            raise
        # The first time ever we tell what is wrong now, and not all that ever was.
        self._is_first = found is None
        self._saved = found or Saved()
        self._reader = EventReader(facts.places, facts.state, self._saved.position)
        self._is_late = self._reader.is_lost
        self._todo: list[Event] = []
        self._to_see: dict[str, None] = {}
        self._touched: dict[str, float] = {}  # monotonic
        self._see_at = reactor.seconds() + _QUIET_S
        self._see_all = True
        self._unnoted, self._noted_at = True, -_NOTE_S
        self._alarm: Any = None
        self._hinted: Any = None
        self._stopped = False
        # Of the delivery.
        self._sending: defer.Deferred[Outcome] | None = None
        self._again: Any = None
        self._failures = self._tries = 0
        self._idle: defer.Deferred[None] | None = None
        self._troubles: dict[str, str] = {}

    # Starting and stopping

    def start(self) -> None:
        """Begin, with what is in the file."""
        if self._saved.queue:
            self._deliver()
        self.look()

    def stop(self, patience: float) -> defer.Deferred[None]:
        """Try for so many seconds to deliver what waits; the Deferred fires when nothing is under way any more."""
        self._stopped = True
        for timer in (self._alarm, self._again, self._hinted):
            if timer is not None and timer.active():
                timer.cancel()
        self._again = None
        self._save()
        self._idle = defer.Deferred()
        idle = self._idle
        if self._todo:
            self.give_up()  # all of that is read once more
        elif self._saved.queue:
            end = self._reactor.callLater(patience, self.give_up)
            idle.addCallback(lambda _: end.cancel() if end.active() else None)
            self._deliver()
        else:
            self._rest()
        return idle

    def give_up(self) -> None:
        """End what is under way: it stays in the file."""
        if self._sending is not None:
            self._sending.cancel()
        else:
            self._rest()

    def _rest(self) -> None:
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.callback(None)

    # Events

    def hint(self) -> None:
        """Something may have happened."""
        if self._hinted is None and not self._stopped:
            self._hinted = self._reactor.callLater(_SOON_S, self._look_now)

    def _look_now(self) -> None:
        self._hinted = None
        self.look()

    def look(self) -> None:
        """See what has happened."""
        if self._todo or self._stopped:
            return
        try:
            self._todo = self._reader.more()
            self._well("events")
        except Error as error:
            self._trouble("events", f"{error}; trying again")
            self._wake_at(self._reactor.seconds() + 1)
            return
        self._work()

    def _work(self) -> None:
        """Deal with some of it."""
        if self._stopped:
            return
        now, some = time.time(), self._todo[:_AT_ONCE]
        for event in some:
            # Where our place was lost, what is older than what we have seen was seen.
            if not (self._is_late and event.at <= self._saved.last_at):
                self._take_safely(event, now)
        if some:
            self._saved.last_at, self._unnoted = some[-1].at, True
        rest = self._todo[_AT_ONCE:]
        if rest:
            self._todo = rest
            self._reactor.callLater(0, self._work)
            return
        self._todo, self._is_late = [], False
        self._saved.position = self._reader.position()
        if self._is_first:
            for name in list(self._saved.known):
                self._step(name, alerts.Passed(now), now, now)
            self._is_first = False
            for name, known in self._saved.known.items():
                for kind, one in known.open.items():
                    self._tell(name, Alert(kind, one.at, one.reason, since=one.at), now)
        self._caught_up(now)

    def _take_safely(self, event: Event, now: float) -> None:
        try:
            self._take(event, now)
        except Exception:  # noqa: BLE001
            _log.failure("cannot understand one event; the others are not concerned")

    def _take(self, event: Event, now: float) -> None:
        """Learn from one event."""
        if event.event == "supervisor":
            if event.reason == "started":
                self._see_all = True
                for name in [name for name, known in self._saved.known.items() if known.open]:
                    self._step(name, alerts.Unwatched(event.at), event.at, now)
            return
        if event.event == "message" or not self._facts.wants(event.name):
            return
        self._touched[event.name] = self._reactor.seconds()
        if event.event in _ENDS and (ended := self._ended(event)) is not None:
            self._step(event.name, ended, event.at, now)
        if event.event != "exited":  # all about it was in its end
            self._step(event.name, alerts.Happened(event.event, event.at, event.reason), event.at, now)
        if event.event == "gone":
            self._saved.known.pop(event.name, None)
            self._touched.pop(event.name, None)
            self._facts.forget(event.name)

    def _ended(self, event: Event) -> alerts.Ended | None:
        """The end of an instance that the event tells of, if it ended by itself."""
        number = event.instance or 0
        if event.event == "starting":
            number -= 1
        known = self._saved.known.get(event.name)
        if number < 1 or (known is not None and known.instance == number):
            return None
        past = self._facts.past(event.name, number)
        final = event.event == "exited"
        if past is None:
            # Its record is gone: the event says less, and of one that was started again nothing.
            success = event.reason.startswith("exit code 0 ")
            return None if number != event.instance else alerts.Ended(event.at, number, event.reason, success, final)
        if event.event == "starting" and past.reason and not past.reason.startswith(_FAULT):
            return None  # somebody wanted it to end
        text = past.reason or (f"{past.text} after {past.lived:.3g} s" if past.pid is not None else past.text)
        success = not past.reason and self._facts.has_succeeded(event.name, past)
        return alerts.Ended(event.at, number, text, success, final, past.oom)

    def _step(self, name: str, news: alerts.News, at: float, now: float) -> None:
        before = self._saved.known.get(name, Known())
        known, told = alerts.step(before, news, min(at, now), self._plan.rules)
        if known != before:
            self._saved.known[name] = known
            self._unnoted = True
        if known == Known():
            self._saved.known.pop(name, None)
        for one in told:
            if not self._is_first:
                self._tell(name, one, now)

    # Statuses, and the passing of time

    def _caught_up(self, now: float) -> None:
        """All that was written was read: see to what is due, and wait for more."""
        self._choose_what_to_see()
        due = [name for name, at in self._deadlines() if at <= now]
        if self._to_see or due:
            if self._facts.supervised():
                for name in due:
                    self._step(name, alerts.Passed(now), now, now)
                self._see_some(now)
            else:
                # What statuses say is not true any more, and nobody tells when it is otherwise.
                self._to_see, self._see_all = {}, True
        self._summarize(now)
        if self._unnoted and (self._saved.queue or self._reactor.seconds() - self._noted_at >= _NOTE_S):
            self._save()
        self._deliver()
        self._set_alarm(now)

    def _choose_what_to_see(self) -> None:
        """Now and then, and after a supervisor has come, statuses are compared with what was told."""
        clock = self._reactor.seconds()
        if clock < self._see_at:
            return
        self._see_at = clock + _LOOK_AGAIN_S
        if self._see_all:
            self._see_all = False
            self._to_see |= dict.fromkeys(self._facts.names())
        self._to_see |= {name: None for name, known in self._saved.known.items() if known.open}
        self._touched = {name: at for name, at in self._touched.items() if at > clock - _QUIET_S}

    def _see_some(self, now: float) -> None:
        """Compare some statuses; those of processes with which something goes on, later."""
        clock, later = self._reactor.seconds(), False
        for name in list(self._to_see)[:_AT_ONCE]:
            del self._to_see[name]
            if name in self._touched and clock - self._touched[name] < _QUIET_S:
                later = True
            elif (seen := self._seen(name, now)) is not None:
                self._step(name, seen, now, now)
        if later:
            self._see_all, self._see_at = True, clock + _QUIET_S

    def _seen(self, name: str, now: float) -> alerts.Seen | None:
        status = self._facts.status(name)
        if status is None:
            return alerts.Seen(now, gone=True) if self._facts.is_gone(name) else None
        checked = bool(self._facts.definition(name).get("check")) if name in self._saved.known else True
        return alerts.Seen(
            now, state=status.state, reason=status.reason, healthy=status.healthy, health=status.health,
            checked=checked, late=status.late, problem=status.problem or "", rolled_back=status.rolled_back or "",
        )  # fmt: skip

    def _deadlines(self) -> list[tuple[str, float]]:
        found = ((name, alerts.deadline(known, self._plan.rules)) for name, known in self._saved.known.items())
        return [(name, at) for name, at in found if at is not None]

    def _set_alarm(self, now: float) -> None:
        """Wake up when the next thing is due that no event tells of."""
        clock = self._reactor.seconds()
        # One that has passed waits for a supervisor.
        times = [clock + at - now for _, at in self._deadlines() if at > now]
        if self._to_see:
            times.append(clock)
        elif self._see_all or any(known.open for known in self._saved.known.values()):
            times.append(self._see_at)
        if self._saved.limit.count and not self._failures and not self._saved.queue:
            times.append(clock + alerts.next_letter(self._saved.limit, now, self._plan.rate) - now)
        if self._unnoted:
            times.append(self._noted_at + _NOTE_S)
        if times:
            self._wake_at(max(min(times), clock + 0.01))

    def _wake_at(self, moment: float) -> None:
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = self._reactor.callLater(max(0.0, moment - self._reactor.seconds()), self.look)

    # Letters

    def _tell(self, name: str, alert: Alert, now: float) -> None:
        """Write a letter, or hold it back."""
        limit = self._admitted(now)
        self._unnoted = True
        if limit is None:
            self._saved.limit = alerts.hold(self._saved.limit, alert.event, name, alert.resolved)
            return
        status, past = self._facts.status(name), self._past(name, alert)
        record = letters.letter(
            alert, name, host=self._plan.host, config=self._facts.config, limit=self._saved.limit,
            status=status.record if status else None, past=past.record if past else None,
        )  # fmt: skip
        self._saved.limit = limit
        self._saved.queue.append(record)

    def _past(self, name: str, alert: Alert) -> PastExit | None:
        """The end that the alert is about, or the last one there was."""
        known = self._saved.known.get(name)
        about = known.instance if known is not None and alert.event in _ABOUT_ENDS and not alert.resolved else None
        return self._facts.past(name, about) or self._facts.past(name)

    def _admitted(self, now: float) -> Limit | None:
        if len(self._saved.queue) >= MOST_WAITING:
            return None
        return alerts.admit(self._saved.limit, now, self._plan.rate)

    def _summarize(self, now: float) -> None:
        """Tell how many were held back, once another letter may go. A receiver that does not answer is left alone."""
        held = self._saved.limit
        if not held.count or self._failures or self._saved.queue or (limit := self._admitted(now)) is None:
            return
        alert = Alert(letters.HELD_BACK, now, f"{held.count} more", since=now)
        record = letters.letter(alert, "", host=self._plan.host, config=self._facts.config, limit=held)
        self._saved.limit, self._unnoted = limit, True
        self._saved.queue.append(record)

    def _deliver(self) -> None:
        """Send the oldest letter, unless one is under way or the receiver is to be left alone."""
        if self._sending is not None or self._again is not None or not self._saved.queue or self._todo:
            return
        self._save()
        record = self._saved.queue[0]
        self._sending = sending = self._receiver.send(record)
        sending.addErrback(lambda failure: Outcome(failure.getErrorMessage()))
        sending.addCallback(self._answered, record)

    def _answered(self, outcome: Outcome, record: letters.Letter) -> None:
        self._sending = None
        place, about = self._receiver.place, letters.headline(record)
        if not outcome.why:
            if self._failures:
                _log.info("{place} is back", place=place)
            _log.info("told {place}: {about}", place=place, about=about)
            self._failures = 0
            self._done_with()
        elif self._stopped:
            _log.warn("not told {place}, in time for our end: {about}", place=place, about=about)
        else:
            self._failures += 1
            self._tries += 1
            if outcome.final or self._tries > self._plan.retries:
                _log.error("cannot tell {place}: {why}; given up: {about}", place=place, why=outcome.why, about=about)
                self._hold_again(record)
                self._done_with()
            else:
                self._trouble("delivery", f"cannot tell {place}: {outcome.why}; trying again: {about}")
            if not outcome.final:
                delay = alerts.pause(self._failures, random.random(), outcome.asked)
                self._again = self._reactor.callLater(delay, self._try_again)
        if self._stopped and (outcome.why or not self._saved.queue):
            self._rest()
        else:
            # Not from here: a receiver that answers at once, hundreds of times, would go deeper and deeper.
            self._reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        if self._stopped:
            self._deliver()
        elif not self._todo:
            self._caught_up(time.time())

    def _try_again(self) -> None:
        self._again = None
        self._deliver()

    def _done_with(self) -> None:
        self._saved.queue.pop(0)
        self._tries, self._unnoted = 0, True
        self._well("delivery")
        self._save()

    def _hold_again(self, record: letters.Letter) -> None:
        """What a letter said that is given up is told of as held back."""
        limit = alerts.give_back(self._saved.limit, record["held_back"], letters.held_in(record))
        if record["event"] != letters.HELD_BACK:
            limit = alerts.hold(limit, record["event"], record["name"], record["resolved"])
        self._saved.limit = limit

    # The file

    def _load(self) -> Saved | None:
        try:
            with open(self._path, "rb") as file:
                found = msgspec.json.decode(file.read(), type=Saved)
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            _log.error("cannot use {path}: {why}; beginning anew", path=self._path, why=str(error))
            return None
        # Only letters that we can have written.
        found.queue = [one for one in found.queue if one.keys() >= _FIELDS and isinstance(one["held"], list)]
        return found

    def _save(self) -> None:
        """Write the file. In the middle of what was read there is no place to go on from."""
        if not self._unnoted or self._todo:
            return
        self._noted_at = self._reactor.seconds()  # or tried to: where the disk is full, it will be for a while
        try:
            write_whole(self._path, msgspec.json.encode(self._saved), 0o600)
        except OSError as error:
            self._trouble("file", f"cannot write {self._path}: {error.strerror}; alerts may come twice")
            return
        self._unnoted = False
        self._well("file")

    def _trouble(self, what: str, words: str) -> None:
        """Say it, unless that is what was said last of the same thing."""
        if self._troubles.get(what) != words:
            self._troubles[what] = words
            _log.error("{words}", words=words)

    def _well(self, what: str) -> None:
        self._troubles.pop(what, None)


_FIELDS = letters.letter(Alert("", 0.0, ""), "", host="", config="").keys()
