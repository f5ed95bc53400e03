"""The service, which performs what the schedule decides."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from ncolony.decide import schedule
from ncolony.decide.cron import shown
from ncolony.decide.schedule import Word
from ncolony.system.clock import local_offset

from .failures import Failures
from .history import History, Record, Tail
from .output import Output
from .run import End, Run
from .state import StateFile

_TOLD = {Word.CAUGHT_UP, Word.RETRYING, Word.GAVE_UP, Word.OVERTAKEN, Word.CLOCK_BACK}
"""What is worth a line among those of the command. The rest is seen by its absence, or said by the run itself."""


@dataclass(slots=True)
class _Under:
    """A run under way."""

    run: Run
    tail: Tail
    due: float | None
    attempt: int
    started: float


class Scheduler(service.Service):
    """Runs a command by the rules. `wall` and `luck` are the time of day and chance."""

    def __init__(
        self,
        reactor: Any,
        output: Output,
        args: Sequence[str],
        rules: schedule.Rules,
        timeout: float | None,
        grace: float,
        *,
        on_failure: Sequence[str] = (),
        history: History | None = None,
        state: StateFile | None = None,
        use_pidfd: bool = True,
        wall: Callable[[], float] = time.time,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._output = output
        self._args = list(args)
        self._rules = rules
        self._timeout = timeout
        self._grace = grace
        self._history = history
        self._state = state
        self._use_pidfd = use_pidfd
        self._wall = wall
        self._luck = luck
        self._job: schedule.Job | None = None
        self._saved: object = None
        self._troubles: set[str] = set()
        self._events: deque[schedule.Event] = deque()
        self._walking = False
        self._under: dict[int, _Under] = {}
        self._failures = Failures(reactor, output, on_failure, args)
        self._timer: Any = None
        self._gone: defer.Deferred[None] | None = None
        self._log = Logger(namespace="ncolony.scheduler")
        output.when_room(self._resume)

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Begin once the reactor runs."""
        service.Service.startService(self)
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802 (Twisted's interface)
        """End the runs that are going; the Deferred fires when they are gone and their output is written."""
        service.Service.stopService(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._gone = defer.Deferred()
        gone = defer.gatherResults([self._gone, self._failures.stop()])
        for under in list(self._under.values()):
            under.run.stop()
        if not self._under:
            self._gone.callback(None)
        return gone.addCallback(lambda _: self._output.finish())

    def kill(self) -> None:
        """End the runs that are going by SIGKILL."""
        for under in list(self._under.values()):
            under.run.kill()
        self._failures.kill()

    def _begin(self) -> None:
        if not self.running:
            return
        memory = None
        if self._state is not None:
            try:
                memory = self._state.load()
            except (OSError, ValueError) as problem:
                self._output.problem(f"cannot read --state-file: {_why(problem)}; it begins anew")
        job, notes = schedule.begin(self._rules, self._wall(), self._reactor.seconds(), self._luck(), memory)
        self._job = job
        for note in notes:
            self._perform(note)
        # Of a scheduler that was killed: whatever became of them, they are no runs of ours.
        self._events += [schedule.Ended(run.number, success=True) for run in job.going]
        self._happened(schedule.Tick())

    # The schedule

    def _happened(self, event: schedule.Event) -> None:
        """Do what follows from the event, and have this called again when something may be due."""
        self._events.append(event)
        if self._walking:
            return  # whoever called us, by way of an effect, comes to it
        self._walking = True
        try:
            while self._events and self.running:
                self._walk(self._events.popleft())
        finally:
            self._walking = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self.running and self._job is not None:
            wait = schedule.next_wake(self._job, self._wall(), self._reactor.seconds())
            self._timer = self._reactor.callLater(wait, self._happened, schedule.Tick())

    def _walk(self, event: schedule.Event) -> None:
        assert self._job is not None
        self._job, effects = schedule.step(self._job, event, self._wall(), self._reactor.seconds(), self._luck())
        # First: who is killed now must not begin the same run again.
        self._save()
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: schedule.Effect) -> None:
        match effect:
            case schedule.Run():
                self._start(effect)
            case schedule.StopRun(number, why):
                if number in self._under:
                    self._under[number].run.stop(why)
            case schedule.Note(word, why):
                self._log.debug("{word}: {why}", word=word.value, why=why)
                if word in _TOLD:
                    self._output.problem(f"{self._args[0]!r} {word.value}: {why}")
                elif word is Word.MISSED and self._rules.cron is not None:
                    self._output.problem(f"{self._args[0]!r} missed {_how_many(effect)}: {why}")

    def _save(self) -> None:
        """Write down where the job is, if that has changed."""
        job = self._job
        if self._state is None or job is None:
            return
        what = (job.last, job.number, job.late, job.queued, job.retries, job.going)
        if what == self._saved:
            return
        try:
            self._state.save(schedule.remember(job, self._wall(), self._reactor.seconds()))
            self._saved = what
            self._troubles.discard("state-file")
        except OSError as problem:
            self._trouble("state-file", problem)

    def _trouble(self, option: str, problem: Exception) -> None:
        """Say that a file cannot be written, until it can be again."""
        if option not in self._troubles:
            self._troubles.add(option)
            self._output.problem(f"cannot write --{option}: {_why(problem)}")

    # Runs

    def _start(self, effect: schedule.Run) -> None:
        tail = Tail(self._output)
        started = self._wall()
        try:
            run = Run(self._reactor, tail, self._args, self._timeout, self._grace, use_pidfd=self._use_pidfd)
        except Exception as problem:  # noqa: BLE001 (whatever it is, the next period tries again)
            text = f"cannot run {self._args[0]!r}: {_why(problem)}"
            self._output.problem(text)
            record = self._record(effect, started, End(None, None, False, text), ())
            self._failures.tell(record, max(0, self._rules.retries - effect.attempt))
            self._events.append(schedule.Ended(effect.number, success=False))
            return
        self._under[effect.number] = _Under(run, tail, effect.due, effect.attempt, started)
        self._events.append(schedule.Started(effect.number))
        run.done.addCallback(self._ended, effect)

    def _ended(self, _: None, effect: schedule.Run) -> None:
        under = self._under.pop(effect.number)
        end = under.run.end
        record = self._record(effect, under.started, end, under.tail.kept)
        if self.running:
            if not end.success and not under.run.stopped:
                self._failures.tell(record, max(0, self._rules.retries - effect.attempt))
            self._happened(schedule.Ended(effect.number, end.success))
            return
        if self._job is not None:
            going = tuple(run for run in self._job.going if run.number != effect.number)
            self._job = replace(self._job, going=going)
            self._save()
        if not self._under and self._gone is not None:
            self._gone.callback(None)

    def _record(self, effect: schedule.Run, started: float, end: End, lines: tuple[str, ...]) -> Record:
        """Return the record of a run, which is written to the history if there is one."""
        now = self._wall()
        record = Record(
            run=effect.number,
            attempt=effect.attempt,
            due=effect.due,
            started=started,
            ended=now,
            lasted=max(0.0, now - started),
            code=end.code,
            signal=end.signal,
            success=end.success,
            text=end.text,
            lines=lines,
        )
        if self._history is not None:
            try:
                self._history.add(record)
                self._troubles.discard("history")
            except (OSError, ValueError) as problem:
                self._trouble("history", problem)
        return record

    def _resume(self) -> None:
        for under in list(self._under.values()):
            under.run.resume()
        self._failures.resume()


def _how_many(note: schedule.Note) -> str:
    many = f"{note.count} or more runs" if note.count >= schedule.MOST_COUNTED else f"{note.count} runs"
    many = "a run" if note.count == 1 else many
    return many if note.due is None else f"{many}, due {'last ' * (note.count > 1)}at {shown(note.due, local_offset)}"


def _why(problem: Exception) -> str:
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
