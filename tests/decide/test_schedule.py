"""When a job runs next."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncolony.decide.cron import Cron
from ncolony.decide.schedule import (
    LONGEST_WAIT_S,
    MOST_COUNTED,
    Asked,
    Effect,
    Ended,
    Event,
    Every,
    KeptRun,
    Memory,
    Note,
    Overlap,
    Reconfigured,
    Rules,
    Run,
    Started,
    StopRun,
    Tick,
    Word,
    begin,
    moved,
    next_wake,
    remember,
    step,
)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(99.0, 100.0), (100.0, 110.0), (100.1, 110.0), (109.9, 110.0), (110.0, 120.0), (475.0, 480.0)],
)
def test_due_moments_are_start_plus_whole_periods(moment: float, expected: float) -> None:
    """The next due moment is the first start + k * period that is later."""
    assert Every(start=100.0, period=10.0).after(moment) == expected


starts = st.floats(0, 1e9)
periods = st.floats(0.001, 1e6)


@given(start=starts, period=periods, count=st.integers(0, 10**6), offset=st.floats(0, 0.999))
def test_no_drift(start: float, period: float, count: int, offset: float) -> None:
    """After any number of periods a due moment is still a whole number of periods from the start, and none is lost."""
    moment = start + (count + offset) * period
    due = Every(start, period).after(moment)
    number = round((due - start) / period)
    assert due == start + number * period
    assert due > moment
    assert start + (number - 1) * period <= moment
    assert Every(start, period).last(start, moment) == start + (number - 1) * period


# The machine

D = 1_000_000.0  # the wall clock at the beginning; the monotonic one then shows 0


class Bench:
    """A job with a virtual wall clock and monotonic clock."""

    def __init__(self, memory: Memory | None = None, wall: float = D, luck: float = 0.0, **rules: Any) -> None:
        self.wall, self.mono, self.luck = wall, 0.0, luck
        self.effects: list[Effect] = []
        self.job, notes = begin(Rules(**rules), self.wall, self.mono, luck, memory)
        self.effects += notes

    def happens(self, event: Event) -> list[str]:
        """What follows from an event, in short."""
        self.job, effects = step(self.job, event, self.wall, self.mono, self.luck)
        self.effects += effects
        return [brief(effect) for effect in effects]

    def passes(self, seconds: float) -> list[str]:
        """What happens while time passes and every wake-up is kept."""
        told = []
        end = self.mono + seconds
        while True:
            told += self.happens(Tick())
            wait = min(next_wake(self.job, self.wall, self.mono), end - self.mono)
            if wait <= 0:
                return told
            self.wall, self.mono = self.wall + wait, self.mono + wait

    def run(self) -> list[str]:
        """Let the run that was asked for last begin."""
        return self.happens(Started(self.job.number))

    def end(self, success: bool = True, number: int | None = None) -> list[str]:
        """Let a run end, the one that was asked for last."""
        return self.happens(Ended(self.job.number if number is None else number, success))


def brief(effect: Effect) -> str:
    """An effect in a word or two: "run 1" or "run 2 try 1", "stop 1", or the note's word, with its count if many."""
    match effect:
        case Run():
            return f"run {effect.number}" + (f" try {effect.attempt}" if effect.attempt else "")
        case StopRun():
            return f"stop {effect.number}"
        case Note():
            assert effect.why
            return effect.word.value + (f" x{effect.count}" if effect.count > 1 else "")


def test_a_period_begins_at_once_and_a_cron_expression_at_its_time() -> None:
    """`every` is due the moment its schedule starts; cron waits for its moment."""
    assert Bench(every=3600.0).passes(0) == ["run 1"]
    # The clock shows 13:46:40.
    bench = Bench(cron=Cron("50 13 * * *"))
    assert bench.passes(199.9) == []
    assert bench.passes(0.1) == ["run 1"]
    assert bench.effects == [Run(1, D + 200, 0, "due")]


def test_lateness_makes_one_run_and_keeps_the_grid() -> None:
    """However many due moments have passed, they make one run."""
    bench = Bench(every=10.0)
    bench.passes(0)
    bench.end()
    bench.mono += 37
    assert bench.happens(Tick()) == ["missed x2", "run 2"]
    assert bench.job.due == 40.0


def test_overlap_skip_leaves_out() -> None:
    """A due run is left out while another goes on, and the next one after its end is not."""
    bench = Bench(every=10.0)
    assert [*bench.passes(0), *bench.run()] == ["run 1"]
    assert bench.passes(25) == ["skipped", "skipped"]
    assert bench.end() == []
    assert bench.passes(5) == ["run 2"]


def test_overlap_queue_holds_one() -> None:
    """One due run waits for the end of the other, and no more than one."""
    bench = Bench(every=10.0, overlap=Overlap.QUEUE)
    bench.passes(0)
    assert bench.passes(35) == ["queued", "skipped", "skipped"]
    assert bench.end() == ["run 2"]
    assert bench.end() == []


def test_overlap_replace_ends_the_other_first() -> None:
    """A due run has the other one ended, once, and begins when it is; the newest due moment counts."""
    bench = Bench(every=10.0, overlap=Overlap.REPLACE, retries=3)
    bench.passes(0)
    bench.run()
    assert bench.passes(10) == ["replaced", "stop 1"]
    assert bench.passes(10) == ["skipped"]
    assert bench.end(success=False, number=1) == ["run 2"]
    assert bench.effects[-1] == Run(2, D + 20, 0, "the run before it is over")


def test_overlap_allow_runs_side_by_side() -> None:
    """A due run begins whatever goes on."""
    bench = Bench(every=10.0, overlap=Overlap.ALLOW)
    assert bench.passes(20) == ["run 1", "run 2", "run 3"]
    assert [run.number for run in bench.job.going] == [1, 2, 3]


def test_retries_wait_twice_as_long_each_time_and_end() -> None:
    """A failed run is tried again after the delay, then twice that, until the retries are used up."""
    bench = Bench(every=1000.0, retries=2, retry_delay=5.0)
    bench.passes(0)
    assert bench.end(success=False) == ["retrying"]
    assert bench.passes(4.9) == []
    assert bench.passes(0.1) == ["run 2 try 1"]
    assert bench.end(success=False) == ["retrying"]
    assert bench.passes(9.9) == []
    assert bench.passes(0.1) == ["run 3 try 2"]
    assert bench.end(success=False) == ["gave-up"]
    assert bench.passes(900) == []


def test_a_success_ends_the_retries() -> None:
    """After a try that succeeds there is no other."""
    bench = Bench(every=1000.0, retries=5)
    bench.passes(0)
    bench.end(success=False)
    assert bench.passes(1) == ["run 2 try 1"]
    assert bench.end() == []
    assert bench.passes(900) == []


def test_a_due_run_takes_the_place_of_a_retry() -> None:
    """Where the next run is due while a retry still waits, the due run is made and the retry is not."""
    bench = Bench(every=10.0, retries=5, retry_delay=15.0)
    bench.passes(0)
    bench.end(success=False)
    assert bench.passes(10) == ["overtaken", "run 2"]
    bench.end()
    assert bench.passes(9) == []


def test_a_waiting_run_takes_the_place_of_a_retry() -> None:
    """Where a due run waits in the queue, a failure of the one before it is not tried again."""
    bench = Bench(every=10.0, retries=5, overlap=Overlap.QUEUE)
    bench.passes(10)
    assert bench.end(success=False) == ["run 2"]


def test_a_timeout_ends_a_run_and_is_a_failure() -> None:
    """A run that takes too long is stopped once, and tried again even if it ends with success then."""
    bench = Bench(every=1000.0, timeout=5.0, retries=1)
    bench.passes(3)  # the time until it has begun does not count
    bench.run()
    assert bench.passes(4.9) == []
    assert bench.passes(20) == ["timed-out", "stop 1"]
    assert bench.end(success=True) == ["retrying"]


def test_asking_for_a_run_changes_no_due_moment() -> None:
    """A run that somebody asks for begins now, by the rules of overlap, and the next due moment stays."""
    bench = Bench(cron=Cron("50 13 * * *"))
    bench.passes(100)
    assert bench.happens(Asked()) == ["run 1"]
    assert bench.effects[-1] == Run(1, None, 0, "asked for")
    assert bench.happens(Asked()) == ["skipped"]
    bench.end()
    assert bench.passes(100) == ["run 2"]


def test_asking_takes_the_place_of_a_retry() -> None:
    """Who asks for a run while a retry waits gets one run, not two."""
    bench = Bench(every=1000.0, retries=3, retry_delay=50.0)
    bench.passes(0)
    bench.end(success=False)
    assert bench.happens(Asked()) == ["overtaken", "run 2"]
    bench.end()
    assert bench.passes(500) == []


def test_a_run_that_somebody_else_began_counts() -> None:
    """A run of an unknown number is a run: it keeps a due one from beginning."""
    bench = Bench(every=10.0)
    bench.passes(0)
    bench.end()
    bench.happens(Started(17))
    assert bench.passes(10) == ["skipped"]
    assert bench.end(number=17) == []
    assert bench.passes(10) == ["run 18"]


def test_the_end_of_an_unknown_run_means_nothing() -> None:
    """An end that comes late or twice changes nothing."""
    bench = Bench(every=10.0, retries=1)
    bench.passes(0)
    assert bench.end(success=False, number=5) == []
    bench.end()
    assert bench.end(success=False, number=1) == []


def test_late_is_said_once_and_ends_with_the_next_beginning() -> None:
    """A run that has not begun in time is late, whoever keeps it; when one begins, that is over."""
    bench = Bench(every=100.0, late_after=5.0)
    assert bench.passes(4.9) == ["run 1"]
    assert bench.passes(90) == ["late"]
    assert bench.run() == ["on-time"]
    bench.end()
    assert bench.passes(6) == ["run 2"]
    assert bench.run() == []


def test_a_waiting_run_can_be_late() -> None:
    """A run that waits for the one before it is late like any other."""
    bench = Bench(every=10.0, late_after=3.0, overlap=Overlap.QUEUE)
    bench.passes(0)
    bench.run()
    assert bench.passes(19) == ["queued", "late"]
    bench.end()
    assert bench.run() == ["on-time"]


@pytest.mark.parametrize(("luck", "begins"), [(0.0, 100.0), (0.5, 115.0), (1.0, 130.0)])
def test_jitter_puts_off(luck: float, begins: float) -> None:
    """A run is put off by luck's share of the jitter, and the next one is reckoned from the due moment."""
    bench = Bench(every=100.0, jitter=30.0, luck=luck)
    bench.passes(50)
    bench.end()
    assert bench.passes(begins - 50 - 0.1) == []
    assert bench.passes(0.1) == ["run 2"]
    assert bench.job.due == 200.0


def test_jitter_never_reaches_past_the_next_run() -> None:
    """However long the jitter is, each due moment has its run before the next one comes."""
    bench = Bench(every=10.0, jitter=1000.0, luck=0.9, overlap=Overlap.ALLOW)
    assert bench.passes(50) == ["run 1", "run 2", "run 3", "run 4", "run 5"]


# The wall clock


@pytest.mark.parametrize(
    ("slept", "catch_up", "told"),
    [
        (100.0, False, ["run 2"]),  # hardly: it was noticed within a minute or two
        (1900.0, False, ["missed"]),
        (1900.0, True, ["caught-up", "run 2"]),
        (3 * 86400.0 + 1900, False, ["missed x4"]),
        (3 * 86400.0 + 1900, True, ["missed x3", "caught-up", "run 2"]),
        (400 * 86400.0 + 1900, True, ["missed x99", "caught-up", "run 2"]),
    ],
)
def test_what_a_sleep_has_missed(slept: float, catch_up: bool, told: list[str]) -> None:
    """While the monotonic clock stands still due moments are missed; with catch_up one run makes up for all."""
    bench = Bench(cron=Cron("50 13 * * *"), catch_up=catch_up)
    bench.passes(200)
    bench.end()
    bench.wall += 86390
    bench.passes(5)
    bench.wall += slept
    assert bench.passes(60) == told
    bench.end()
    assert bench.passes(60) == []


def test_a_sleep_leaves_what_comes_all_the_time() -> None:
    """A job of every minute goes on with one run, whatever was missed."""
    bench = Bench(cron=Cron("* * * * *"))
    bench.passes(60)
    bench.end()
    bench.wall += 8 * 3600
    assert bench.passes(0) == ["missed x99", "run 2"]
    bench.end()
    assert bench.passes(60) == ["run 3"]


@pytest.mark.parametrize(
    ("expression", "back", "until_next"),
    [
        ("0 * * * *", 1800.0, 5400.0),
        ("0 * * * *", 3 * 3600.0 - 1, 3600.0 + 3 * 3600.0 - 1),
        ("0 * * * *", 3 * 3600.0 + 1, 1.0),
        ("0 * * * *", 30 * 86400.0, 3600.0),
        ("0 * * * *", -1800.0, 1800.0),
        ("*/10 * * * *", 59.0, 659.0),
        ("*/10 * * * *", 3600.0, 600.0),
        ("*/10 * * * *", 3610.0, 10.0),
    ],
)
def test_a_clock_that_is_set_back(expression: str, back: float, until_next: float) -> None:
    """No time of day is repeated because the clock went back an hour; wildcards, and a clock that was wrong, go on."""
    bench = Bench(cron=Cron(expression.replace("0 *", "0 0-23")), wall=1_000_800.0 - 60)
    assert bench.passes(60) == ["run 1"]
    bench.end()
    bench.wall -= back
    told = bench.passes(until_next - 0.5)
    assert [word for word in told if word != "clock-back"] == []
    assert bench.passes(0.5) == ["run 2"]


def test_a_clock_that_is_set_moves_no_period() -> None:
    """`every`, retries and timeouts are on the monotonic clock and do not care."""
    bench = Bench(every=100.0, retries=1, retry_delay=10.0)
    for jump in (7200.0, -7200.0, 1e9, -1e9):
        told = bench.passes(0)
        assert [word for word in told if word.startswith("run")] == [f"run {bench.job.number}"]
        bench.end(success=False)
        bench.wall += jump
        assert bench.passes(9.9) == []
        assert bench.passes(0.1) == [f"run {bench.job.number} try 1"]
        bench.wall += jump
        bench.end()
        assert bench.passes(89.9) == []
        bench.mono += 0.1


def test_no_wait_for_the_wall_clock_is_long() -> None:
    """Whoever waits for the wall clock looks at it at least once a minute; who does not, sleeps until it is time."""
    job, _ = begin(Rules(cron=Cron("0 0 1 1 *")), D, 0.0)
    assert next_wake(job, D, 0.0) == LONGEST_WAIT_S
    job, _ = step(begin(Rules(every=86400.0), D, 0.0)[0], Tick(), D, 0.0)
    assert next_wake(job, D, 0.0) == 86400.0


# Changes, and carrying on


def test_other_times_hold_from_now_on() -> None:
    """New times are due by their own words and by no moment of before; a run that goes on is not touched."""
    bench = Bench(cron=Cron("50 13 * * *"))
    bench.passes(200)
    bench.run()
    # It is 13:50:00: neither again now, nor for what would have been at 13:40.
    assert bench.happens(Reconfigured(Rules(cron=Cron("40,50,55 13 * * *")))) == []
    assert bench.passes(299.9) == []
    assert bench.passes(0.1) == ["skipped"]
    # The last moment was now: the period counts from it.
    assert bench.happens(Reconfigured(Rules(every=10.0))) == []
    bench.end()
    assert bench.passes(10) == ["run 2"]


def test_the_same_times_keep_their_moments() -> None:
    """A change of anything else leaves the due moment alone, and holds for the run that goes on."""
    bench = Bench(every=10.0)
    bench.passes(0)
    bench.run()
    assert bench.passes(4) == []
    assert bench.happens(Reconfigured(Rules(every=10.0, timeout=3.0))) == ["timed-out", "stop 1"]
    assert bench.job.due == 10.0


@pytest.mark.parametrize(
    ("rules", "away", "told"),
    [
        ({"every": 10.0}, 3.0, []),
        ({"every": 10.0}, 7.0, ["run 2"]),
        ({"every": 10.0}, 17.0, ["missed", "run 2"]),
        ({"every": 10.0}, 500.0, ["missed x50"]),
        ({"every": 10.0, "catch_up": True}, 500.0, ["missed x49", "run 2"]),
        ({"every": 1000.0}, 2600.0, ["missed x2"]),
        ({"every": 10.0}, -500.0, []),
        ({"cron": Cron("* * * * *")}, 3.0, []),
        ({"cron": Cron("* * * * *")}, 60.0, ["run 2"]),
        ({"cron": Cron("0 0-23 * * *")}, 7200.0, ["missed x2"]),
        ({"cron": Cron("0 0-23 * * *"), "catch_up": True}, 7200.0, ["missed", "caught-up", "run 2"]),
    ],
)
def test_who_carries_on_repeats_nothing_and_loses_nothing(rules: Any, away: float, told: list[str]) -> None:
    """From what was written down the times go on where they were, on a machine whose monotonic clock began anew."""
    bench = Bench(**rules)
    bench.passes(65)
    for number in range(1, bench.job.number + 1):
        bench.end(number=number)
    # So that numbers and moments are the same for all.
    memory = msgspec.json.decode(msgspec.json.encode(remember(bench.job, bench.wall, bench.mono)), type=Memory)
    again = Bench(msgspec.structs.replace(memory, number=1), wall=bench.wall + away, **rules)
    before = [brief(effect) for effect in again.effects]
    assert before + again.passes(0) == told


def test_who_carries_on_knows_its_runs() -> None:
    """What waits, what is to be tried again and what goes on are known to who carries on."""
    bench = Bench(every=100.0, retries=3, retry_delay=50.0, overlap=Overlap.QUEUE, timeout=300.0)
    bench.passes(0)
    bench.end(success=False)
    memory = remember(bench.job, bench.wall, bench.mono)
    again = Bench(memory, wall=bench.wall + 20, every=100.0, retries=3)
    assert again.passes(29.9) == []
    assert again.passes(0.1) == ["run 2 try 1"]

    bench.passes(50)
    bench.run()
    assert bench.passes(50) == ["queued"]
    memory = remember(bench.job, bench.wall, bench.mono)
    again = Bench(memory, wall=bench.wall + 10, every=100.0, overlap=Overlap.QUEUE, timeout=300.0)
    assert again.passes(235) == ["skipped", "skipped"]
    assert again.passes(10) == ["timed-out", "stop 2"]
    assert again.end(number=2) == ["run 3"]


@pytest.mark.parametrize("by", [86400.0, -86400.0, 0.0])
def test_who_knows_that_the_clock_was_set_goes_on_where_it_was(by: float) -> None:
    """Delays, periods and timeouts are as long after the clock was set as before, also for who carries on."""
    rules: Any = {"every": 1000.0, "retries": 3, "retry_delay": 50.0, "timeout": 300.0, "late_after": 60.0}
    bench = Bench(**rules)
    bench.passes(0)
    bench.run()
    going = remember(bench.job, bench.wall, bench.mono)
    again = Bench(moved(going, bench.job.rules, by), wall=bench.wall + by + 20, **rules)
    assert again.effects == []
    assert again.passes(279) == []
    assert again.passes(1) == ["timed-out", "stop 1"]
    bench.end(success=False)
    waits = remember(bench.job, bench.wall, bench.mono)
    again = Bench(moved(waits, bench.job.rules, by), wall=bench.wall + by + 20, **rules)
    assert again.passes(29.9) == []
    assert again.passes(0.1) == ["run 2 try 1"]
    assert again.end(number=2) == []
    assert again.passes(949.9) == []
    assert again.passes(0.1) == ["run 3"]


def test_a_clock_that_was_set_moves_no_moment_of_cron() -> None:
    """What is due by the clock is due when the clock says so, whatever it said before."""
    bench = Bench(cron=Cron("0 * * * *"), retries=1, retry_delay=50.0)
    memory = Memory(last=3600.0, owed=3600.0, retries=(KeptRun(3600.0, 1, at=3650.0),))
    found = moved(memory, bench.job.rules, 7200.0)
    assert (found.last, found.owed) == (3600.0, 3600.0)
    assert found.retries == (KeptRun(3600.0, 1, at=10850.0),)


# What holds whatever happens


@given(data=st.data())
def test_no_due_moment_is_lost_or_run_twice(data: st.DataObject) -> None:
    """Each due moment that has passed has exactly one run or one note that says why not, and runs do not overlap."""
    overlap = data.draw(st.sampled_from(Overlap))
    if data.draw(st.booleans()):
        rules: dict[str, Any] = {"every": data.draw(st.sampled_from([1.0, 7.5, 60.0]))}
    else:
        words = ["* * * * *", "*/20 * * * * *", "5 0-23 * * *", "0,30 46-50 13 * * *"]
        rules = {"cron": Cron(data.draw(st.sampled_from(words)))}
    bench = Bench(
        **rules,
        overlap=overlap,
        jitter=data.draw(st.sampled_from([0.0, 3.0, 100.0])),
        timeout=data.draw(st.sampled_from([None, 20.0])),
        retries=data.draw(st.integers(0, 2)),
        late_after=data.draw(st.sampled_from([None, 5.0])),
        catch_up=data.draw(st.booleans()),
    )
    first, most = bench.job.due, D
    stopped: set[int] = set()
    for _ in range(data.draw(st.integers(0, 40))):
        bench.luck = data.draw(st.floats(0, 1))
        known = len(bench.effects)
        going = {run.number: run for run in bench.job.going}
        what = data.draw(st.sampled_from(["pass", "oversleep", "suspend", "back", "begin", "end", "fail", "ask"]))
        if what == "pass":
            bench.passes(data.draw(st.sampled_from([0.5, 5.0, 70.0])))
        elif what == "oversleep":
            seconds = data.draw(st.sampled_from([0.3, 10.0, 90.0]))
            bench.wall, bench.mono = bench.wall + seconds, bench.mono + seconds
            bench.happens(Tick())
        elif what == "suspend":
            bench.wall += data.draw(st.sampled_from([30.0, 600.0, 1500.0]))
            bench.happens(Tick())
        elif what == "back" and "cron" in rules and rules["cron"].fixed:
            # As far back as it is no correction, in all.
            bench.wall -= min(600.0, bench.wall - (most - 3600.0))
            bench.happens(Tick())
        elif what == "ask":
            bench.happens(Asked())
        elif going:
            number = data.draw(st.sampled_from(sorted(going)))
            if what == "begin":
                if going[number].began is None:
                    bench.happens(Started(number))
            else:
                bench.happens(Ended(number, what == "end"))
        most = max(most, bench.wall)
        if overlap is not Overlap.ALLOW:
            assert len(bench.job.going) <= 1
        for effect in bench.effects[known:]:
            if isinstance(effect, StopRun):
                assert effect.number not in stopped
                stopped.add(effect.number)
    runs = [effect for effect in bench.effects if isinstance(effect, Run)]
    assert [run.number for run in runs] == list(range(1, len(runs) + 1))
    due = [run.due for run in runs if run.due is not None and run.attempt == 0]
    left = [
        effect.count
        for effect in bench.effects
        if isinstance(effect, Note) and effect.word in (Word.SKIPPED, Word.MISSED) and effect.due is not None
    ]
    waiting = 1 if bench.job.queued is not None and bench.job.queued.due is not None else 0
    if "cron" in rules:
        # On the monotonic clock a moment has no fixed place in the time of day.
        assert len(set(due)) == len(due)
        assert due == sorted(due)
    if MOST_COUNTED not in left and MOST_COUNTED - 1 not in left:
        passed = 0
        while first < bench.job.due:
            first = bench.job.times.after(first)
            passed += 1
        assert len(due) + sum(left) + waiting == passed
    assert next_wake(bench.job, bench.wall, bench.mono) >= 0


@given(
    start=starts,
    period=periods,
    wakes=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=30),
)
def test_never_two_runs_at_once_never_early_and_one_run_per_period(
    start: float, period: float, wakes: list[tuple[float, float]]
) -> None:
    """However late the clock wakes us and however long runs take: no overlap, nothing early, one run per due moment."""
    job, _ = begin(Rules(every=period), D, start)
    now, busy_until, served = start, -1.0, []
    for late, length in wakes:
        now = max(now, job.due) + late * period
        if job.going and now >= busy_until:
            job, effects = step(job, Ended(job.number, success=True), D, now)
        else:
            job, effects = step(job, Tick(), D, now)
        assert job.due > now
        assert job.due - now <= period + 2e-6  # one rounding of a moment of this size
        began = [effect for effect in effects if isinstance(effect, Run)]
        if began:
            served.append(round((job.due - start) / period))
            busy_until = now + length * period
        assert len(job.going) <= 1
    assert len(set(served)) == len(served)
    assert served == sorted(served)
