"""When a job runs, and what to do with a run that is due while another still goes on.

Two clocks come in as arguments. *mono* is the monotonic one: periods, delays and timeouts are on it, so setting the
clock moves none of them. *wall* is the time of day, in seconds since 1970: cron expressions are on it, and it may jump.
*luck* is from 0 to 1; it decides how far a run is put off within the jitter.

A performer keeps a `Job`, calls `step` for each event and whenever `next_wake` has passed, and does what the effects
say, in their order. It answers each `Run` with `Started`, then `Ended`, or with `Ended` alone where it could not begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar, Protocol

import msgspec

from .cron import Cron

LONGEST_WAIT_S = 60.0
"""A wait for the wall clock is at most so long: no timer tells of a clock that was set, or of a machine that slept."""

MISSED_S = 2 * LONGEST_WAIT_S
"""A moment so far past was missed and not merely noticed late; a jump of the clock is seen within half of it."""

MOST_COUNTED = 100
"""Missed moments are counted up to here; every second of a year would take minutes."""

_LONGEST_DELAY_S = 366 * 86400.0


# Times


class Times(Protocol):
    """The moments at which a job is due."""

    @property
    def wall(self) -> bool:
        """Whether they are moments of the wall clock; else of the monotonic one."""

    @property
    def back(self) -> float:
        """How far the clock may be set back while moments that have been due count as done."""

    def after(self, moment: float) -> float:
        """Return the first due moment that is later than `moment`, or infinity."""

    def last(self, first: float, moment: float) -> float:
        """Return the last due moment that is no later than `moment`; `first` is one of them."""


@dataclass(frozen=True, slots=True)
class Every:
    """Due at `start` and then each `period` seconds, computed from the start each time, so that nothing adds up.

    `period` is finite, above zero, and large against the resolution of the moments (a millisecond is, for any uptime).
    """

    start: float
    period: float
    wall: ClassVar[bool] = False
    back: ClassVar[float] = math.inf

    def after(self, moment: float) -> float:
        """Return the first of start, start + period, start + 2 * period, ... that is later than `moment`."""
        return self.start if moment < self.start else self.start + (self._count(moment) + 1) * self.period

    def last(self, first: float, moment: float) -> float:
        """Return the last of them that is no later than `moment`."""
        return max(first, self.start + self._count(moment) * self.period)

    def _count(self, moment: float) -> int:
        """Return the number of whole periods from the start to `moment`."""
        count = math.floor((moment - self.start) / self.period)
        # The division rounds, so the count can be one off; a due moment must be neither passed over nor given twice.
        while self.start + (count + 1) * self.period <= moment:
            count += 1
        while self.start + count * self.period > moment:
            count -= 1
        return count


# Rules


class Overlap(Enum):
    """What becomes of a run that is due while another goes on."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a user says about a job: exactly one of `every` and `cron`; seconds throughout.

    `timeout` and `late_after` None: however long it takes. With `catch_up`, one run makes up for all that were missed.
    """

    every: float | None = None
    cron: Cron | None = None
    jitter: float = 0.0
    timeout: float | None = None
    overlap: Overlap = Overlap.SKIP
    retries: int = 0
    retry_delay: float = 1.0
    catch_up: bool = False
    late_after: float | None = None


# Events


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. (It has with every other event as well.)"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants a run now, outside its times."""


@dataclass(frozen=True, slots=True)
class Started:
    """A run has begun; one of a number that is not known was begun by somebody else, and counts from now on."""

    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A run is over, or could not begin."""

    number: int
    success: bool


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The user has said something else. Runs that go on, wait or are to be tried again are not touched."""

    rules: Rules


Event = Tick | Asked | Started | Ended | Reconfigured


# Effects


@dataclass(frozen=True, slots=True)
class Run:
    """Begin a run. `due` is on the wall clock, None where somebody asked; `attempt` is 0, then 1, 2, … for retries."""

    number: int
    due: float | None
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class StopRun:
    """End the run of this number, which is said once; `Ended` is awaited however long it takes."""

    number: int
    why: str


class Word(Enum):
    """What a note is about."""

    SKIPPED = "skipped"  # a due run will not be, by the rules of overlap
    MISSED = "missed"  # due moments passed unseen, and have no run of their own
    CAUGHT_UP = "caught-up"  # this run makes up for missed ones
    QUEUED = "queued"
    REPLACED = "replaced"  # a run is ended to make place
    TIMED_OUT = "timed-out"
    RETRYING = "retrying"
    GAVE_UP = "gave-up"  # the last retry has failed as well
    OVERTAKEN = "overtaken"  # a retry gave way to a newer run
    LATE = "late"
    ON_TIME = "on-time"  # after it was late, a run has begun
    CLOCK_BACK = "clock-back"  # the clock was set back so far that the times were reckoned anew


@dataclass(frozen=True, slots=True)
class Note:
    """Something to tell people; `count` due moments are meant, MOST_COUNTED for that many or more."""

    word: Word
    why: str
    due: float | None = None
    count: int = 1


Effect = Run | StopRun | Note


# State


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that should be. `due` is on the wall clock, None where somebody asked; from `late_at` (mono) it is late."""

    due: float | None
    attempt: int = 0
    late_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Going:
    """A run that was begun: `began` (mono) is None until that is known. `stopping` says why it was told to end."""

    number: int
    wanted: Wanted
    began: float | None = None
    stopping: Word | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job. `due` is the first moment that has not been decided about, and `at` that moment with its jitter.

    Both are on the clock of `times`. `last` (wall) is the last moment that was decided about. `owed` is the first due
    run since the last one began that was left out.
    """

    rules: Rules
    times: Times
    due: float
    at: float
    last: float | None = None
    number: int = 0
    going: tuple[Going, ...] = ()
    queued: Wanted | None = None
    retries: tuple[tuple[float, Wanted], ...] = ()
    late: bool = False
    owed: Wanted | None = None


class KeptRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run as it is written down; `at` is when it began or is to be tried again, on the wall clock."""

    due: float | None = None
    attempt: int = 0
    number: int = 0
    at: float | None = None


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a performer writes down, as JSON, to carry on after its own end."""

    last: float | None = None
    number: int = 0
    late: bool = False
    queued: KeptRun | None = None
    retries: tuple[KeptRun, ...] = ()
    going: tuple[KeptRun, ...] = ()
    owed: float | None = None


def begin(
    rules: Rules, wall: float, mono: float, luck: float = 0.0, memory: Memory | None = None
) -> tuple[Job, tuple[Effect, ...]]:
    """Return a job that begins now; with `memory`, one that carries on. Only notes can be among the effects.

    The runs that memory has as going are believed to go on: it is for the performer to say which have ended.
    """
    known = Memory() if memory is None else memory
    job = Job(rules, *_first(rules, known.last, wall, mono), at=0.0, last=known.last, number=known.number)
    count = 0
    if rules.every is not None and known.last is not None and not rules.catch_up:
        count = min(MOST_COUNTED, max(0, round((job.due - mono - known.last + wall) / rules.every) - 1))
    owed = known.owed if known.owed is not None or not count else (known.last or wall) + (rules.every or 0.0)
    job = replace(
        job,
        at=_put_off(job, luck),
        last=wall if rules.cron is not None and known.last is None else known.last,
        late=known.late,
        queued=None
        if known.queued is None
        else Wanted(known.queued.due, known.queued.attempt, _late_at(known, known.queued.due, rules, wall, mono)),
        owed=None if owed is None else Wanted(owed, late_at=_late_at(known, owed, rules, wall, mono)),
        retries=tuple((_mono(run.at, wall, mono), Wanted(run.due, run.attempt)) for run in known.retries),
        going=tuple(
            Going(
                run.number,
                Wanted(run.due, run.attempt, _late_at(known, run.due, rules, wall, mono)),
                None if run.at is None else _mono(run.at, wall, mono),
            )
            for run in known.going
        ),
    )
    return job, (Note(Word.MISSED, "nobody was there", known.last, count),) if count else ()


def remember(job: Job, wall: float, mono: float) -> Memory:
    """Return what has to be known to carry on with the job later, perhaps after the machine was started anew."""
    return Memory(
        last=job.last,
        number=job.number,
        late=job.late,
        queued=None if job.queued is None else KeptRun(job.queued.due, job.queued.attempt),
        retries=tuple(KeptRun(run.due, run.attempt, at=wall + at - mono) for at, run in job.retries),
        going=tuple(
            KeptRun(
                run.wanted.due, run.wanted.attempt, run.number, None if run.began is None else wall + run.began - mono
            )
            for run in job.going
        ),
        owed=None if job.owed is None else job.owed.due,
    )


def moved(memory: Memory, rules: Rules, by: float) -> Memory:
    """Return the memory as it would be had the wall clock been `by` seconds ahead of what it was all the time.

    It is for who knows that the clock was set since, and not that time has passed: what the monotonic clock measures,
    such as periods, delays and timeouts, goes on where it was. Cron's moments are the wall clock's own.
    """

    def later(at: float | None) -> float | None:
        return None if at is None else at + by

    def due(run: KeptRun) -> KeptRun:
        return msgspec.structs.replace(run, at=later(run.at), due=run.due if rules.every is None else later(run.due))

    memory = msgspec.structs.replace(
        memory, retries=tuple(map(due, memory.retries)), going=tuple(map(due, memory.going))
    )
    if rules.every is None:
        return memory
    queued = None if memory.queued is None else due(memory.queued)
    return msgspec.structs.replace(memory, last=later(memory.last), owed=later(memory.owed), queued=queued)


def with_luck(job: Job, luck: float) -> Job:
    """Return the job with this luck for its next due moment, where it was not known in time."""
    return replace(job, at=_put_off(job, luck))


def _late_at(known: Memory, due: float | None, rules: Rules, wall: float, mono: float) -> float:
    """Return when (mono) a run is late that is carried on with; never, where that was told already."""
    if rules.late_after is None or due is None or known.late:
        return math.inf
    return _mono(due + rules.late_after, wall, mono)


def _mono(at: float | None, wall: float, mono: float) -> float:
    """Return the monotonic moment for one of the wall clock; one that is in the future is near: clocks are set."""
    return mono if at is None else mono + min(at - wall, _LONGEST_DELAY_S)


def _first(rules: Rules, last: float | None, wall: float, mono: float) -> tuple[Times, float]:
    """Return the times of the rules, and the first due moment, where `last` (wall) was the last one."""
    if rules.cron is not None:
        return rules.cron, rules.cron.after(wall if last is None else last)
    assert rules.every is not None
    if last is None:
        return Every(mono, rules.every), mono
    # Where the clock was set back meanwhile, a period is as long as it can be.
    start = mono + min(last + rules.every - wall, rules.every)
    times = Every(start, rules.every)
    return times, start if rules.catch_up or start > mono - MISSED_S else times.after(mono)


def _put_off(job: Job, luck: float) -> float:
    """Return when the due run is to begin: put off by chance, but never past the next one."""
    if job.rules.jitter <= 0 or not math.isfinite(job.due):
        return job.due
    return job.due + luck * min(job.rules.jitter, job.times.after(job.due) - job.due)


# The machine


def step(job: Job, event: Event, wall: float, mono: float, luck: float = 0.0) -> tuple[Job, tuple[Effect, ...]]:
    """Return the job after an event at this moment of both clocks, and what is to be done."""
    walk = _Walk(job, wall, mono, luck)
    match event:
        case Started(number):
            walk.started(number)
        case Ended(number, success):
            walk.ended(number, success)
        case Asked():
            walk.overtake_retries()
            walk.want(Wanted(None, late_at=walk.late_at(0.0)), "asked for")
        case Reconfigured(rules):
            walk.reconfigure(rules)
        case Tick():
            pass
    walk.time_passes()
    return walk.job, tuple(walk.effects)


def next_wake(job: Job, wall: float, mono: float, longest: float = LONGEST_WAIT_S) -> float:
    """Return in how many seconds `step` is to be called at the latest, infinity where nothing is to be awaited.

    Who notices by itself that the clock was set waits for it for as long as it likes: `longest`.
    """
    moments = [run.wanted.late_at for run in job.going if run.began is None]
    moments += [run.late_at for run in (job.queued, job.owed) if run is not None]
    if job.rules.timeout is not None:
        moments += [run.began + job.rules.timeout for run in job.going if run.began is not None and not run.stopping]
    if not job.going or job.rules.overlap is Overlap.ALLOW:
        moments += [at for at, _ in job.retries]
    if not job.times.wall:
        moments.append(job.at)
    waits = [moment - mono for moment in moments]
    if job.times.wall:
        waits.append(min(job.at - wall, longest))
    return max(0.0, min(waits))


class _Walk:
    """One step on its way: the job as it is so far, and the effects."""

    def __init__(self, job: Job, wall: float, mono: float, luck: float) -> None:
        self.job = job
        self.wall = wall
        self.mono = mono
        self.luck = luck
        self.effects: list[Effect] = []

    def note(self, word: Word, why: str, due: float | None = None, count: int = 1) -> None:
        self.effects.append(Note(word, why, due, count))

    def late_at(self, ago: float) -> float:
        """Return when (mono) a run is late that was to begin `ago` seconds before now."""
        return math.inf if self.job.rules.late_after is None else self.mono - ago + self.job.rules.late_after

    # What happened

    def started(self, number: int) -> None:
        if all(run.number != number for run in self.job.going):
            self.overtake_retries()
            stranger = Going(number, Wanted(None))
            self.job = replace(self.job, going=(*self.job.going, stranger), number=max(number, self.job.number))
        self._change(run if run.number != number else replace(run, began=self.mono) for run in self.job.going)
        self.job = replace(self.job, owed=None)
        if self.job.late:
            self.job = replace(self.job, late=False)
            self.note(Word.ON_TIME, "a run has begun")

    def ended(self, number: int, success: bool) -> None:
        for run in self.job.going:
            if run.number == number:
                break
        else:
            return
        self._change(other for other in self.job.going if other.number != number)
        failed = not success or run.stopping is Word.TIMED_OUT
        if not failed or run.stopping is Word.REPLACED or self.job.queued is not None:
            return
        rules, attempt = self.job.rules, run.wanted.attempt
        if attempt < rules.retries:
            delay = min(rules.retry_delay * 2.0 ** min(attempt, 64), _LONGEST_DELAY_S)
            again = (self.mono + delay, Wanted(run.wanted.due, attempt + 1))
            self.job = replace(self.job, retries=(*self.job.retries, again))
            why = f"it is tried again in {delay:g} s, for the {attempt + 1}. of {rules.retries} times"
            self.note(Word.RETRYING, why, run.wanted.due)
        elif rules.retries:
            self.note(Word.GAVE_UP, f"it has failed {attempt + 1} times", run.wanted.due)

    def reconfigure(self, rules: Rules) -> None:
        before, self.job = self.job.rules, replace(self.job, rules=rules)
        if (rules.every, rules.cron) != (before.every, before.cron):
            last = self.job.last
            if rules.cron is not None:
                # New words say nothing about the time before them.
                last = self.wall if last is None else max(last, self.wall)
            times, due = _first(rules, last, self.wall, self.mono)
            self.job = replace(self.job, times=times, due=due, last=last)
            self.job = replace(self.job, at=_put_off(self.job, self.luck))
        elif rules.jitter != before.jitter:
            self.job = replace(self.job, at=_put_off(self.job, self.luck))

    def overtake_retries(self) -> None:
        """Drop the retries that still wait: a newer run is there."""
        for _, run in self.job.retries:
            self.note(Word.OVERTAKEN, "a newer run takes the place of its retry", run.due)
        self.job = replace(self.job, retries=())

    # Time

    def time_passes(self) -> None:
        self._mind_the_timeout()
        self._mind_the_clock()
        self._decide_what_is_due()
        free = not self.job.going or self.job.rules.overlap is Overlap.ALLOW
        if free and self.job.queued is not None:
            queued = self.job.queued
            self.job = replace(self.job, queued=None)
            self._run(queued, "the run before it is over")
        self._try_again()
        self._mind_lateness()

    def _mind_the_timeout(self) -> None:
        limit = self.job.rules.timeout
        for run in self.job.going:
            if limit is None or run.began is None or run.stopping or self.mono < run.began + limit:
                continue
            why = f"it takes longer than its timeout of {limit:g} s"
            self._stop(run, Word.TIMED_OUT, why)

    def _mind_the_clock(self) -> None:
        """Where the clock was set back further than moments count as done, it had been wrong: reckon anew."""
        job = self.job
        if not job.times.wall or job.last is None or self.wall >= job.last - job.times.back:
            return
        self.job = replace(job, due=job.times.after(self.wall), last=self.wall)
        self.job = replace(self.job, at=_put_off(self.job, self.luck))
        self.note(Word.CLOCK_BACK, f"the clock was set back by more than {job.times.back:g} s", self.job.due)

    def _decide_what_is_due(self) -> None:
        job = self.job
        now = self.wall if job.times.wall else self.mono
        if now < job.at:
            return
        newest = job.times.last(job.due, now)
        count = _count(job.times, job.due, newest)
        ago = now - (job.at if newest == job.due else newest)
        on_wall = newest if job.times.wall else self.wall - (now - newest)
        self.job = replace(job, due=job.times.after(newest), last=on_wall)
        self.job = replace(self.job, at=_put_off(self.job, self.luck))
        if not job.times.wall or ago <= MISSED_S:
            if count > 1:
                self.note(Word.MISSED, "a later one has been due meanwhile", on_wall, count - 1)
            self.overtake_retries()
            self.want(Wanted(on_wall, late_at=self.late_at(ago)), "due")
        elif job.rules.catch_up:
            if count > 1:
                self.note(Word.MISSED, "one run makes up for all of them", on_wall, count - 1)
            self.note(Word.CAUGHT_UP, "it was missed", on_wall)
            self.overtake_retries()
            self.want(Wanted(on_wall, late_at=self.late_at(0.0)), "it was missed")
        else:
            self.note(Word.MISSED, "nobody was there, or the clock was set", on_wall, count)
            self.owe(Wanted(on_wall, late_at=self.late_at(ago)))

    def _try_again(self) -> None:
        for retry in self.job.retries:
            at, wanted = retry
            if self.mono < at or (self.job.going and self.job.rules.overlap is not Overlap.ALLOW):
                continue
            self.job = replace(self.job, retries=tuple(other for other in self.job.retries if other is not retry))
            self._run(wanted, "the last try has failed")

    def _mind_lateness(self) -> None:
        for run in self.job.going:
            if run.began is None and self.mono >= run.wanted.late_at:
                told = replace(run, wanted=replace(run.wanted, late_at=math.inf))
                self._change(told if other is run else other for other in self.job.going)
                self._say_late("it was to begin, and has not", run.wanted.due)
        queued = self.job.queued
        if queued is not None and self.mono >= queued.late_at:
            self.job = replace(self.job, queued=replace(queued, late_at=math.inf))
            self._say_late("it waits for the run before it", queued.due)
        owed = self.job.owed
        if owed is not None and self.mono >= owed.late_at:
            self.job = replace(self.job, owed=replace(owed, late_at=math.inf))
            self._say_late("the run before it still goes on" if self.job.going else "it was missed", owed.due)

    def _say_late(self, why: str, due: float | None) -> None:
        if not self.job.late:
            self.job = replace(self.job, late=True)
            self.note(Word.LATE, why, due)

    # Runs

    def want(self, wanted: Wanted, why: str) -> None:
        """Have a run, by the rules of overlap."""
        job = self.job
        overlap = job.rules.overlap
        if not job.going or overlap is Overlap.ALLOW:
            self._run(wanted, why)
        elif overlap is Overlap.SKIP:
            self.note(Word.SKIPPED, "the last run is still going", wanted.due)
            self.owe(wanted)
        elif overlap is Overlap.QUEUE:
            if job.queued is not None:
                self.note(Word.SKIPPED, "the last run is still going, and another one waits", wanted.due)
                return
            self.job = replace(job, queued=wanted)
            self.note(Word.QUEUED, "the last run is still going", wanted.due)
        else:
            if job.queued is not None:
                self.note(Word.SKIPPED, "a newer one takes its place", job.queued.due)
            self.job = replace(job, queued=wanted)
            for run in job.going:
                if run.stopping is None:
                    self._stop(run, Word.REPLACED, "a newer run takes its place")

    def owe(self, wanted: Wanted) -> None:
        """Remember a run that was left out: until another begins, the job may be late."""
        if self.job.owed is None:
            self.job = replace(self.job, owed=wanted)

    def _run(self, wanted: Wanted, why: str) -> None:
        number = self.job.number + 1
        self.job = replace(self.job, number=number, going=(*self.job.going, Going(number, wanted)))
        self.effects.append(Run(number, wanted.due, wanted.attempt, why))

    def _stop(self, run: Going, word: Word, why: str) -> None:
        self._change(replace(run, stopping=word) if other is run else other for other in self.job.going)
        self.note(word, why, run.wanted.due)
        self.effects.append(StopRun(run.number, why))

    def _change(self, going: Iterable[Going]) -> None:
        self.job = replace(self.job, going=tuple(going))


def _count(times: Times, first: float, newest: float) -> int:
    """Return how many due moments there are from `first` to `newest`, MOST_COUNTED for that many or more."""
    count = 1
    while first < newest and count < MOST_COUNTED:
        first = times.after(first)
        count += 1
    return count
