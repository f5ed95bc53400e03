"""Due runs that were left out: until another begins, the job may be late, also for who comes afterwards."""

from __future__ import annotations

import math

from ncolony.decide import schedule
from ncolony.decide.schedule import Ended, Job, Note, Rules, Run, Started, Tick, Word

WALL = 1_000_000.0
RULES = Rules(every=10.0, late_after=3.0)


def stepped(job: Job, event: schedule.Event, at: float) -> tuple[Job, list[Word], list[int]]:
    """The job so many seconds after the beginning; what was noted, and which runs are to begin."""
    job, effects = schedule.step(job, event, WALL + at, at)
    notes = [effect.word for effect in effects if isinstance(effect, Note)]
    return job, notes, [effect.number for effect in effects if isinstance(effect, Run)]


def begun(rules: Rules = RULES) -> Job:
    """A job whose first run goes on."""
    job, _ = schedule.begin(rules, WALL, 0.0)
    job, _, [number] = stepped(job, Tick(), 0.0)
    return stepped(job, Started(number), 0.0)[0]


def test_a_run_left_out_makes_it_late_and_the_next_one_on_time() -> None:
    """It is late `late_after` seconds after the first run that was left out, once, and until a run begins."""
    job, notes, _ = stepped(begun(), Tick(), 10.0)
    assert notes == [Word.SKIPPED]
    assert schedule.next_wake(job, WALL + 10, 10.0) == 3.0
    job, notes, _ = stepped(job, Tick(), 12.9)
    assert notes == []
    job, notes, _ = stepped(job, Tick(), 13.0)
    assert notes == [Word.LATE]
    job, notes, _ = stepped(job, Tick(), 20.0)
    assert notes == [Word.SKIPPED]
    job, notes, _ = stepped(job, Tick(), 24.0)
    assert notes == []
    job, _, _ = stepped(job, Ended(1, success=True), 25.0)
    job, _, [number] = stepped(job, Tick(), 30.0)
    job, notes, _ = stepped(job, Started(number), 30.0)
    assert notes == [Word.ON_TIME]
    assert (job.late, job.owed) == (False, None)


def test_who_carries_on_knows_what_is_owed() -> None:
    """What was left out, and when the job is late because of it, is remembered; being late is told once."""
    job, _, _ = stepped(begun(), Tick(), 10.0)
    memory = schedule.remember(job, WALL + 11, 11.0)
    assert memory.owed == WALL + 10
    # On another machine's monotonic clock.
    job, _ = schedule.begin(RULES, WALL + 11, 511.0, memory=memory)
    assert job.owed is not None
    assert job.owed.late_at == 513.0
    job, effects = schedule.step(job, Tick(), WALL + 13, 513.0)
    assert [effect.word for effect in effects if isinstance(effect, Note)] == [Word.LATE]
    job, _ = schedule.begin(RULES, WALL + 14, 514.0, memory=schedule.remember(job, WALL + 14, 514.0))
    assert job.late
    assert job.owed is not None
    assert job.owed.late_at == math.inf


def test_missed_runs_are_owed() -> None:
    """Runs that nobody was there for make the job late until the next one begins; unless they are made up for."""
    job, _ = schedule.begin(RULES, WALL, 0.0, memory=schedule.Memory(last=WALL - 1005, number=3))
    assert job.owed is not None
    assert job.owed.due == WALL - 995
    assert Word.LATE in stepped(job, Tick(), 0.0)[1]
    job, _ = schedule.begin(
        Rules(every=10.0, late_after=3.0, catch_up=True), WALL, 0.0, memory=schedule.Memory(last=WALL - 1005)
    )
    assert job.owed is None


def test_luck_can_come_later() -> None:
    """A moment is put off by the luck that is given afterwards as by that which is given at once."""
    rules = Rules(every=10.0, jitter=4.0)
    at_once, _ = schedule.begin(rules, WALL, 0.0, 0.5)
    later = schedule.with_luck(schedule.begin(rules, WALL, 0.0)[0], 0.5)
    assert at_once == later
    assert later.at == 2.0
