"""When a job runs next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncolony.decide.schedule import Every


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
