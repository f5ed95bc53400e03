"""One job: what its schedule decides, as messages to the supervisor, and its statuses, as news to the schedule."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import msgspec
from twisted.logger import Logger

from .. import ctllib
from ..ctllib.reports import LIVE
from ..ctllib.scheduled import why_off
from ..decide import schedule
from ..decide.cron import cron
from ..decide.schedule import Ended, Note, Overlap, Rules, Started, StopRun, Tick, Word
from .jobfiles import luck, message_name

if TYPE_CHECKING:
    from ..ctllib import Status
    from ..model.config import ProcessConfig
    from .jobfiles import Notes, Office

_log = Logger(namespace="ncolony.jobs")
# What the supervisor has not taken note of after this long is told again.
_AGAIN_S = 10.0
_SOON_S = 2.0
# The clock was set, and did not merely drift, when it differs by more than this.
CLOCK_SET_S = 0.5
# What is told to people at the usual level, and what as a warning; the rest is for who looks closely.
_TOLD = {Word.SKIPPED, Word.REPLACED, Word.RETRYING, Word.CAUGHT_UP, Word.CLOCK_BACK, Word.ON_TIME}
_WARNED = {Word.MISSED, Word.TIMED_OUT, Word.GAVE_UP, Word.LATE}


class Sent(msgspec.Struct, omit_defaults=True):
    """A run that was asked for, or that somebody else has begun: its number in the schedule, and its instance.

    `message` is the START that asks for it, `before` the newest instance then, so that its own is one more.
    """

    number: int
    before: int
    message: str = ""
    stopped: str = ""  # why it is ended by us


class Kept(msgspec.Struct, omit_defaults=True):
    """The file `jobs/NAME`: what a program that comes after this one has to know, and what people ask for."""

    next: float | None = None
    late: float | None = None
    skipped: int = 0
    skipped_at: float | None = None
    skipped_why: str = ""
    queued: bool = False
    tries: int = 0
    try_at: float | None = None
    seen: int = 0  # the newest instance that is known
    memory: schedule.Memory | None = None
    boot: str = ""  # since which start of the machine, and how far the wall clock was ahead of the monotonic one
    ahead: float = 0.0
    runs: list[Sent] = []


class Job:
    """A job that is looked after. `wake` is when, on the monotonic clock, its turn comes at the latest."""

    def __init__(self, name: str, config: ProcessConfig, office: Office, notes: Notes) -> None:
        """Carry on where the notes end, or begin.

        :raises ValueError: when its time zone is not known any more.
        """
        self.name, self.wake = name, None  # type: str, float | None
        self._office, self._notes, self._config = office, notes, config
        self._rules = rules_of(config)
        self._off = ""
        self._late_why = ""
        self._skipping = False
        self._reported = 0.0, ""
        self._written: object = None
        found = _kept_in(notes.get(name))
        if found is None:
            status = office.status(name)
            runs = status is not None and status.state in LIVE
            found = Kept(seen=0 if status is None else status.instance - runs)
        self._kept = found
        self._job = self._begun(self._on_this_clock(found))

    def _on_this_clock(self, found: Kept) -> schedule.Memory | None:
        """What was written down, where the clock was set since then."""
        wall, mono = _now()
        by = wall - mono - found.ahead
        # What the clock was not set by, it drifts.
        was_set = found.boot and found.boot == _boot() and abs(by) > CLOCK_SET_S
        return schedule.moved(found.memory, self._rules, by) if was_set and found.memory is not None else found.memory

    # the schedule

    def reconfigure(self, config: ProcessConfig) -> None:
        """The file says something else."""
        self._config = config
        try:
            rules = rules_of(config)
        except ValueError as wrong:
            _log.error("{name}: cannot run at its new times: {wrong}", name=self.name, wrong=str(wrong))
            return
        if rules != self._rules:
            self._rules = rules
            self._step(schedule.Reconfigured(rules))

    def resume(self) -> None:
        """There was no supervisor for a while: moments that have passed count as for a program that just starts."""
        self._job = self._begun(schedule.remember(self._job, *_now()))

    def withdraw(self) -> None:
        """There is no supervisor. What none has taken is not to be run whenever the next one comes."""
        memory = schedule.remember(self._job, *_now())
        for run in list(self._kept.runs):
            if not run.message or not self._office.withdraw(run.message):
                continue
            self._kept.runs.remove(run)
            for going in [one for one in memory.going if one.number == run.number]:
                others = tuple(one for one in memory.going if one is not going)
                memory = msgspec.structs.replace(memory, going=others)
                if self._rules.catch_up:
                    memory = self._undecided(memory, going)
                else:
                    memory = msgspec.structs.replace(memory, owed=going.due)
                    self._note(Note(Word.MISSED, "there is no supervisor", going.due))
        self._job = self._begun(memory)
        self._write()

    def _undecided(self, memory: schedule.Memory, run: schedule.KeptRun) -> schedule.Memory:
        """As if it had not been decided about this run: what is due until there is a supervisor is missed with it."""
        if run.due is None or run.attempt:
            again = msgspec.structs.replace(run, at=time.time())
            return msgspec.structs.replace(memory, retries=(*memory.retries, again))
        # Cron has whole seconds.
        return msgspec.structs.replace(memory, queued=None, last=run.due - (self._rules.every or 1.0))

    def turn(self) -> float:
        """Take in what the status says and do what is due; when, on the monotonic clock, to come again."""
        status = self._office.status(self.name)
        if status is None and self._kept.seen == 0:
            status = ctllib.Status(self.name, {"wanted": "down"})  # the supervisor has not read its file yet
        if status is None or status.state == "UNKNOWN":
            return math.inf
        off = why_off(status) or ("" if self._config.enabled else "disabled")
        if off != self._off:
            self._switch(off, status)
        self._hear(status)
        if not self._off:
            self._step(Tick())
        self._tell_lateness(status)
        self._write()
        wall, mono = _now()
        # What was asked for is looked at soon, whether there is still somebody to take it.
        wait = _SOON_S if any(run.began is None for run in self._job.going) else math.inf
        if not self._off:
            wait = min(wait, schedule.next_wake(self._job, wall, mono, math.inf))
        return mono + wait

    def _begun(self, memory: schedule.Memory | None) -> schedule.Job:
        wall, mono = _now()
        job, notes = schedule.begin(self._rules, wall, mono, memory=memory)
        for note in notes:
            if isinstance(note, Note):
                self._note(note)
        return schedule.with_luck(job, luck(self.name, job.last))

    def _switch(self, off: str, status: Status) -> None:
        """It was stopped or disabled by its user, or is not any more. What was to come is over then."""
        wall, _ = _now()
        self._off = off
        going = schedule.remember(self._job, *_now()).going
        last: float | None = wall
        if not off and self._rules.every is not None and status.state not in LIVE and not self._kept.runs:
            last = None  # as if its file had just appeared
        self._job = self._begun(schedule.Memory(last=last, number=self._job.number, going=going))
        _log.info("{name}: {what}", name=self.name, what=f"off: {off}" if off else "on")

    def _step(self, event: schedule.Event) -> None:
        wall, mono = _now()
        if self._off:
            # Nothing is to come of it, not even of a failure.
            going, number = schedule.remember(self._job, wall, mono).going, self._job.number
            if isinstance(event, Ended | Started):
                going = tuple(run for run in going if run.number != event.number)
                number = max(number, event.number)
            if isinstance(event, Started):
                going = (*going, schedule.KeptRun(number=event.number, at=wall))
            self._job = self._begun(schedule.Memory(last=wall, number=number, going=going))
            return
        before = self._job.last
        self._job, effects = schedule.step(self._job, event, wall, mono, luck(self.name, before))
        if self._job.last != before:
            self._job = schedule.with_luck(self._job, luck(self.name, self._job.last))
        for effect in effects:
            if isinstance(effect, schedule.Run):
                self._start(effect)
            elif isinstance(effect, StopRun):
                self._stop(effect)
            else:
                self._note(effect)

    # what is asked of the supervisor

    def _start(self, run: schedule.Run) -> None:
        """Note the run, then ask for it: so it is known under which name, whatever happens in between."""
        wall, _ = _now()
        due = wall if run.due is None else run.due
        message = message_name(due, self.name, f"{run.number}-{run.attempt}")
        self._kept.runs.append(Sent(run.number, self._kept.seen, message))
        self._write()
        self._ask_for(self._kept.runs[-1])
        _log.debug("{name}: run {number}: {why}", name=self.name, number=run.number, why=run.why)

    def _ask_for(self, run: Sent) -> None:
        try:
            self._office.start(self.name, run.message)
        except ctllib.Error as error:
            _log.error("{error}", error=str(error))

    def _stop(self, stop: StopRun) -> None:
        for run in self._kept.runs:
            if run.number == stop.number:
                run.stopped = stop.why
                self._write()
                if (status := self._office.status(self.name)) is not None:
                    self._ask_to_stop(run, status)

    def _ask_to_stop(self, run: Sent, status: Status) -> None:
        """Ask for the end of a run that goes on; of one that has not begun as well, where it waits for others."""
        begun = status.instance > run.before
        if not begun and status.state != "WAITING":
            return
        instance = run.before + 1 if begun else None
        wall, _ = _now()
        at = (status.started or wall) if begun else wall
        try:
            self._office.stop(self.name, instance, run.stopped, message_name(at, self.name, f"{run.number}-stop"))
        except ctllib.Error as error:
            _log.error("{error}", error=str(error))

    # what the status says

    def _hear(self, status: Status) -> None:
        """Tell the schedule which runs have begun and which are over."""
        if status.instance < self._kept.seen:
            # Its file was removed and has come back: another process, whose instances are counted anew.
            self._kept.seen = status.instance
            for run in list(self._kept.runs):
                self._end(run, True)
        for run in self._kept.runs:
            if status.instance > run.before + 1:
                run.before = self._office.first_since(self.name, run.before, status.instance) - 1
        if status.instance > max([self._kept.seen, *(run.before + 1 for run in self._kept.runs)]):
            # Somebody else has asked for it. Of several that came and went, the newest is the one that counts.
            self._kept.runs.append(Sent(self._job.number + 1, status.instance - 1))
            self._begin_run(self._job.number + 1, status)
        self._kept.seen = status.instance
        for run in list(self._kept.runs):
            self._hear_of(run, status)

    def _begin_run(self, number: int, status: Status) -> None:
        self._step(Started(number))
        if status.started is not None:
            # It may have begun long since.
            ago = max(0.0, time.time() - status.started)
            going = tuple(
                replace(run, began=min(run.began, time.monotonic() - ago))
                if run.number == number and run.began
                else run
                for run in self._job.going
            )
            self._job = replace(self._job, going=going)

    def _hear_of(self, run: Sent, status: Status) -> None:
        instance = run.before + 1
        if status.instance < instance:
            self._hear_nothing_of(run, status)
            return
        if any(one.number == run.number and one.began is None for one in self._job.going):
            self._begin_run(run.number, status)
        if status.instance == instance and status.state in LIVE:
            if run.stopped and status.state != "STOPPING":
                self._ask_to_stop(run, status)
            return
        if status.instance == instance:
            code = None if status.last_exit is None else status.last_exit.code
        else:
            code = self._office.how_ended(self.name, instance)
        self._end(run, code in self._config.success_codes)

    def _hear_nothing_of(self, run: Sent, status: Status) -> None:
        """It has not begun: it still will, was refused, or was never asked for since we were killed."""
        answer = self._office.answer(run.message)
        if answer is None:
            self._ask_for(run)
        elif answer.state == "failed":
            # Looked at again: it is written before the answer.
            now = self._office.status(self.name)
            if now is not None and now.instance <= run.before:
                _log.warn("{name}: no run: {why}", name=self.name, why=answer.why)
                self._end(run, False)
        elif run.stopped:
            self._ask_to_stop(run, status)

    def _end(self, run: Sent, success: bool) -> None:
        self._kept.runs.remove(run)
        self._skipping = False
        self._step(Ended(run.number, success))

    # what is told

    def _note(self, note: Note) -> None:
        if note.word is Word.SKIPPED:
            self._kept.skipped += note.count
            self._kept.skipped_at, self._kept.skipped_why = note.due, note.why
            self._tell_of_skipped(note)
        elif note.word is Word.MISSED:
            self._kept.skipped += note.count
            self._kept.skipped_at, self._kept.skipped_why = note.due, f"missed: {note.why}"
        elif note.word is Word.LATE:
            self._late_why = note.why if note.due is None else f"{note.why}; it was due {_shown(note.due)}"
        tell = _log.warn if note.word in _WARNED else _log.info if note.word in _TOLD else _log.debug
        many = f" ({note.count} times)" if note.count > 1 else ""
        tell("{name}: {word}{many}: {why}", name=self.name, word=note.word.value, many=many, why=note.why)

    def _tell_of_skipped(self, note: Note) -> None:
        """Have it among the events that a run was left out; once for each run that goes on, however long."""
        if not self._skipping:
            self._skipping = True
            due = "" if note.due is None else f" due {_shown(note.due)}"
            try:
                self._office.report(self.name, "skipped", f"the run{due}: {note.why}")
            except ctllib.Error as error:
                _log.error("{error}", error=str(error))

    def _tell_lateness(self, status: Status) -> None:
        """Have the supervisor know whether it is late: when that changes, and after it has forgotten."""
        is_late = self._job.late and not self._off
        what = "late" if is_late else "on-time"
        at, told = self._reported
        if is_late == bool(status.late):
            self._reported = 0.0, ""
        elif told != what or time.monotonic() - at >= _AGAIN_S:
            self._reported = time.monotonic(), what
            try:
                self._office.report(self.name, what, (self._late_why or "it has not run when it was due") * is_late)
            except ctllib.Error as error:
                _log.error("{error}", error=str(error))

    def _write(self) -> None:
        """Write down what has changed."""
        job, kept = self._job, self._kept
        runs = tuple((run.number, run.stopped) for run in kept.runs)
        what = (job, self._off, runs, kept.seen, kept.skipped, kept.skipped_at)
        if what == self._written:
            return
        wall, mono = _now()
        at = job.at if job.times.wall else wall + job.at - mono
        kept.next = at if math.isfinite(at) and not self._off else None
        kept.late = None if job.owed is None else job.owed.due
        kept.queued = job.queued is not None
        kept.tries = max((run.wanted.attempt for run in job.going), default=0)
        kept.try_at = None
        if job.retries:
            at, wanted = job.retries[0]
            kept.tries, kept.try_at = wanted.attempt, wall + at - mono
        kept.memory = schedule.remember(job, wall, mono)
        kept.boot, kept.ahead = _boot(), wall - mono
        if self._notes.put(self.name, msgspec.json.encode(kept)):
            self._written = what


_decoder = msgspec.json.Decoder(Kept)


def _kept_in(data: bytes | None) -> Kept | None:
    """What was written down; None where nothing was, or nothing that makes sense."""
    try:
        return None if data is None else _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def rules_of(config: ProcessConfig) -> Rules:
    """What the file says about when it runs.

    :raises ValueError: when its time zone is not known.
    """
    said = config.schedule
    assert said is not None
    return Rules(
        every=said.every,
        cron=None if said.cron is None else cron(said.cron, said.timezone, _here),
        jitter=said.jitter,
        timeout=said.timeout,
        overlap=Overlap(said.overlap),
        retries=said.retries,
        retry_delay=said.retry_delay,
        catch_up=said.catch_up,
        late_after=said.late_after,
    )


def _here(moment: float) -> float:
    """How far the clock of this machine is ahead of UTC."""
    return float(time.localtime(moment).tm_gmtoff)


@cache
def _boot() -> str:
    """Which start of the machine this is, so whose monotonic clock; "" where nobody tells."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _now() -> tuple[float, float]:
    """The wall clock and the monotonic one."""
    return time.time(), time.monotonic()


def _shown(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
