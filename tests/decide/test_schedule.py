"""When a job runs next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncolony.decide.schedule import Action, Every, every, step


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(99.0, 100.0), (100.0, 110.0), (100.1, 110.0), (109.9, 110.0), (110.0, 120.0), (475.0, 480.0)],
)
def test_due_moments_are_start_plus_whole_periods(moment: float, expected: float) -> None:
    """The next due moment is the first start + k * period that is later."""
    assert Every(start=100.0, period=10.0).after(moment) == expected


@pytest.mark.parametrize(
    ("now", "running", "action", "due"),
    [
        (99.9, False, Action.WAIT, 100.0),
        (99.9, True, Action.WAIT, 100.0),
        (100.0, False, Action.RUN, 110.0),
        (100.0, True, Action.SKIP, 110.0),
        (109.0, False, Action.RUN, 110.0),
        (137.0, False, Action.RUN, 140.0),
        (137.0, True, Action.SKIP, 140.0),
    ],
)
def test_each_case_of_a_step(now: float, running: bool, action: Action, due: float) -> None:
    """Early waits, due runs, due while running skips; lateness makes one run and keeps the grid."""
    schedule, decision = step(every(100.0, 10.0), now, running=running)
    assert (decision.action, schedule.due) == (action, due)
    assert decision.reason


def test_the_first_run_is_due_at_once() -> None:
    """A job is due the moment its schedule starts."""
    _, decision = step(every(5.0, 3600.0), 5.0, running=False)
    assert decision.action is Action.RUN


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


@given(
    start=starts,
    period=periods,
    wakes=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=30),
)
def test_never_two_runs_at_once_never_early_and_one_run_per_period(
    start: float, period: float, wakes: list[tuple[float, float]]
) -> None:
    """However late the clock wakes us and however long runs take: no overlap, nothing early, one run per due moment."""
    schedule = every(start, period)
    now, busy_until = start, start - 1.0
    served: list[int] = []
    for late, length in wakes:
        now = max(now, schedule.due) + late * period
        running = now < busy_until
        due = schedule.due
        schedule, decision = step(schedule, now, running=running)
        assert schedule.due > now
        assert decision.action is (Action.SKIP if running else Action.RUN)
        if decision.action is Action.RUN:
            assert now >= due
            served.append(round((due - start) / period))
            busy_until = now + length * period
    assert len(set(served)) == len(served)
    assert served == sorted(served)


@given(start=starts, period=periods, late=st.floats(0, 1e6))
def test_a_free_job_waits_less_than_a_period(start: float, period: float, late: float) -> None:
    """After any lateness the next run is at most one period away."""
    now = start + late
    schedule, _ = step(every(start, period), now, running=False)
    # One rounding of a moment this size is allowed.
    assert schedule.due - now <= period + 2e-6
