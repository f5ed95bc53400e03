"""What is told of processes: once when something goes wrong, once when it is well again, and never too much."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.decide import alerts
from ncolony.decide.alerts import (
    KINDS,
    LASTING,
    Alert,
    Ended,
    Happened,
    Held,
    Known,
    Limit,
    News,
    Passed,
    Rate,
    Rules,
    Seen,
    Unwatched,
)

RULES = Rules(frozenset(KINDS), deaths=3, within=60.0, steady=30.0)


def told(*news: News, rules: Rules = RULES, now: float | None = None) -> list[tuple[str, bool, float]]:
    """What is told of a process with this history, without the reasons."""
    return [(one.event, one.resolved, one.at) for one in all_told(*news, rules=rules, now=now)]


def all_told(*news: News, rules: Rules = RULES, now: float | None = None) -> list[Alert]:
    known, found = Known(), list[Alert]()
    for one in news:
        known, some = alerts.step(known, one, one.at if now is None else now, rules)
        found += some
    return found


def ended(*times: float, first: int = 1, success: bool = False) -> list[Ended]:
    """An instance each that ended at these times."""
    return [Ended(at, number, "exit code 1", success) for number, at in enumerate(times, first)]


ONLY = {kind: Rules(frozenset({kind}), deaths=3, within=60.0, steady=30.0) for kind in KINDS}


@pytest.mark.parametrize(
    ("news", "expected"),
    [
        (ended(10, 20), []),
        (ended(10, 20, 30), [("crash-loop", False, 30)]),
        (ended(10, 20, 70), [("crash-loop", False, 70)]),
        (ended(10, 20, 71), []),
        (ended(10, 20, 71, 75), [("crash-loop", False, 75)]),
        (ended(10, 20, 30, 40, 50, 60), [("crash-loop", False, 30)]),
        (ended(10, 20, 30, success=True), [("crash-loop", False, 30)]),
        ([*ended(10, 20), *ended(30, 40, first=2)], [("crash-loop", False, 40)]),
    ],
)
def test_a_crash_loop(news: list[News], expected: list[tuple[str, bool, float]]) -> None:
    """So many ends within so many seconds are a crash loop, told once; no end counts twice."""
    assert told(*news, rules=ONLY["crash-loop"]) == expected


LOOP = ended(10, 20, 30)
WELL = [("crash-loop", False, 30.0)]


@pytest.mark.parametrize(
    ("news", "over_at"),
    [
        ([Happened("running", 40), Passed(69.9)], None),
        ([Happened("running", 40), Passed(70)], 70),
        ([Happened("running", 40), Passed(500)], 70),
        ([Happened("adopted", 40), Passed(70)], 70),
        ([Happened("running", 40), *ended(50, first=4), Passed(500)], None),
        ([Happened("running", 40), *ended(71, first=4)], 70),
        ([Happened("running", 40), Happened("stopping", 50), Happened("starting", 51), Passed(500)], None),
        ([Happened("starting", 40), Passed(500)], None),
        ([Happened("stopped", 40, "stopped on request"), Passed(70)], 70),
        ([Happened("stopped", 40), Happened("starting", 50), Happened("running", 51), Passed(80)], None),
        ([Happened("stopped", 40), Happened("starting", 50), Happened("running", 51), Passed(81)], 81),
        ([Happened("gone", 40)], 40),
        ([Ended(40, 4, "exit code 0", success=True, final=True), Passed(70)], 70),
        ([Ended(40, 4, "exit code 1", success=False, final=True), Passed(500)], None),
        ([Happened("running", 40), Unwatched(80), Passed(500)], None),
        ([Happened("running", 40), Unwatched(80), Happened("adopted", 81), Passed(111)], 111),
        ([Happened("stopped", 40), Unwatched(80)], 70),
        ([Seen(40, state="RUNNING"), Passed(70)], 70),
        ([Seen(40, state="BACKOFF"), Passed(500)], None),
        ([Seen(40, state="STOPPED"), Passed(70)], 70),
        ([Seen(40, gone=True)], 40),
        ([Happened("running", 40), Happened("ready", 45), Happened("message", 46), Passed(70)], 70),
    ],
)
def test_when_a_crash_loop_is_over(news: list[News], over_at: float | None) -> None:
    """It is over when the process has run, been stopped or succeeded for long enough, or was removed; and only then."""
    expected = WELL if over_at is None else [*WELL, ("crash-loop", True, over_at)]
    assert told(*LOOP, *news, rules=ONLY["crash-loop"]) == expected


def test_deaths_from_before_count_no_more() -> None:
    """After a crash loop is over, the next one takes as many ends as the first."""
    rules = Rules(frozenset({"crash-loop"}), deaths=3, within=1000.0, steady=5.0)
    news = [*LOOP, Happened("running", 31), *ended(40, 41, first=4)]
    assert told(*news, rules=rules) == [("crash-loop", False, 30), ("crash-loop", True, 36)]
    assert told(*news, *ended(42, first=6), rules=rules)[2:] == [("crash-loop", False, 42)]


@pytest.mark.parametrize(
    ("kind", "bad", "good"),
    [
        ("fatal", Happened("fatal", 10, "no such program"), Happened("running", 20)),
        ("fatal", Seen(10, state="FATAL", reason="no such program"), Seen(20, state="RUNNING")),
        ("unhealthy", Happened("unhealthy", 10, "503"), Happened("healthy", 20)),
        ("unhealthy", Seen(10, state="RUNNING", healthy=False, health="503"), Seen(20, state="RUNNING", healthy=True)),
        ("unhealthy", Happened("unhealthy", 10, "503"), Seen(20, state="RUNNING", checked=False)),
        ("unhealthy", Happened("unhealthy", 10, "503"), Happened("stopped", 20)),
        ("late", Happened("late", 10, "due at 9"), Happened("on-time", 20)),
        ("late", Seen(10, late="due at 9"), Seen(20)),
        ("problem", Happened("problem", 10, "no args"), Happened("healed", 20)),
        ("problem", Seen(10, problem="no args"), Seen(20)),
        ("rolled-back", Happened("rolled-back", 10, "not ready"), Seen(20)),
        ("rolled-back", Seen(10, rolled_back="not ready"), Seen(20)),
    ],
)
def test_what_is_wrong_for_a_while(kind: str, bad: News, good: News) -> None:
    """Each lasting kind is told once, and that it is over when that has been so for long enough."""
    again = [type(bad)(**{**as_dict(bad), "at": at}) for at in (11, 12)]
    assert told(bad, *again) == [(kind, False, 10)]
    assert told(bad, good, Passed(49)) == [(kind, False, 10)]
    assert told(bad, good, Passed(50)) == [(kind, False, 10), (kind, True, 50)]
    relapse = type(bad)(**{**as_dict(bad), "at": 40})
    assert told(bad, good, relapse, Passed(1000)) == [(kind, False, 10)]
    removed = all_told(bad, Happened("gone", 20))
    assert [(one.event, one.resolved, one.at, one.since) for one in removed] == [
        (kind, False, 10, 10),
        (kind, True, 20, 10),
    ]
    assert removed[1].reason == "removed"


def as_dict(news: News) -> dict[str, object]:
    return {field: getattr(news, field) for field in news.__struct_fields__}


@pytest.mark.parametrize(
    "news",
    [
        [Seen(10, state="FATAL", reason="bad file", problem="bad file")],
        [Happened("problem", 10, "bad file"), Seen(20, state="FATAL", reason="bad file", problem="bad file")],
    ],
)
def test_a_file_that_never_came_to_be_a_process(news: list[News]) -> None:
    """Its status is FATAL, but what is wrong is its file, and that is told once."""
    assert told(*news) == [("problem", False, 10)]


def test_unhealthy_while_nobody_has_looked_yet() -> None:
    """A new instance that will be checked, and was not yet, is not healthy for that."""
    news = [Happened("unhealthy", 10), Happened("starting", 11), Happened("running", 12)]
    assert told(*news, Seen(20, state="RUNNING", checked=True), Passed(500)) == [("unhealthy", False, 10)]


@pytest.mark.parametrize(
    ("news", "kinds", "expected"),
    [
        (Ended(5, 1, "exit code 3"), KINDS, [("exit", False, 5)]),
        (Ended(5, 1, "exit code 3", final=True), KINDS, [("exit", False, 5)]),
        (Ended(5, 1, "exit code 0", success=True), KINDS, []),
        (Ended(5, 1, "signal KILL", oom=True), KINDS, [("oom", False, 5)]),
        (Ended(5, 1, "signal KILL", oom=True), ["exit"], [("exit", False, 5)]),
        (Ended(5, 1, "exit code 3"), ["oom"], []),
        (Happened("unhealthy", 5), ["fatal"], []),
        (Happened("fatal", 5), ["exit"], []),
    ],
)
def test_what_just_happens(news: News, kinds: list[str], expected: list[tuple[str, bool, float]]) -> None:
    """A failure, or an end for want of memory, is told by itself; nothing is that nobody asked for."""
    assert told(news, rules=Rules(frozenset(kinds), 3, 60.0, 30.0)) == expected


def test_single_ends_are_not_told_in_a_crash_loop() -> None:
    """The ends that make the loop, and those after it, are told as the loop alone."""
    assert told(*ended(10, 20, 30, 40)) == [("exit", False, 10), ("exit", False, 20), ("crash-loop", False, 30)]


def test_a_clock_that_is_set_back() -> None:
    """Times that lie in the future are now: nothing waits for them, and no end is forgotten."""
    assert told(*ended(1000, 1001, 1002), now=10.0, rules=ONLY["crash-loop"]) == [("crash-loop", False, 10)]
    known, _ = alerts.step(Known(), Happened("fatal", 1000), 1000, RULES)
    known, _ = alerts.step(known, Happened("running", 1000), 1000, RULES)
    known, none = alerts.step(known, Passed(100), 100, RULES)
    assert not none
    assert alerts.deadline(known, RULES) == 130
    known, some = alerts.step(known, Passed(130), 130, RULES)
    assert [one.resolved for one in some] == [True]
    assert alerts.deadline(known, RULES) is None


# Whatever happens

words = st.sampled_from(
    "starting running backoff stopping stopped exited fatal gone adopted problem healed rolled-back ready healthy"
    " unhealthy late on-time message waiting".split()
)
states = st.sampled_from("RUNNING STOPPED FATAL BACKOFF STARTING EXITED".split())
flags = st.booleans()
faults = st.sampled_from(["", "", "x"])
news = st.one_of(
    st.builds(Happened, words, st.just(0.0)),
    st.builds(Ended, st.just(0.0), st.integers(1, 9), st.just("x"), flags, flags, flags),
    st.builds(Seen, st.just(0.0), flags, states, faults, st.sampled_from([None, True, False]), faults, flags, faults,
              faults, faults),
    st.builds(Unwatched, st.just(0.0)),
    st.builds(Passed, st.just(0.0)),
)  # fmt: skip
histories = st.lists(st.tuples(news, st.floats(0, 40)), max_size=40)
kinds = st.frozensets(st.sampled_from(KINDS))


def moved(news: News, at: float) -> News:
    return type(news)(**{**as_dict(news), "at": at})  # type: ignore[return-value]


@settings(max_examples=500)
@given(histories, kinds)
def test_whatever_happens(history: list[tuple[News, float]], wanted: frozenset[str]) -> None:
    """Never are two of a kind open; each is followed by at most one end, of its own; nothing else is told.

    What is remembered as open is what was told and is not over; and all of it is over once the process is removed.
    """
    rules = Rules(wanted, 3, 60.0, 30.0)
    now, known, open_now = 1000.0, Known(), dict[str, float]()
    last_over: dict[str, float] = {}
    for one, passed in [*history, (Happened("gone", 0.0), 0.0)]:
        now += passed
        known, some = alerts.step(known, moved(one, now), now, rules)
        for alert in some:
            assert alert.event in wanted
            if alert.event not in LASTING:
                assert not alert.resolved
            elif alert.resolved:
                assert open_now.pop(alert.event) == alert.since
                last_over[alert.event] = alert.at
            else:
                assert alert.event not in open_now
                assert alert.at >= last_over.get(alert.event, 0.0)
                open_now[alert.event] = alert.at
            assert alert.at <= now
        assert {kind: one.at for kind, one in known.open.items()} == open_now
        assert len(known.deaths) <= 3
    assert known == Known()


@settings(max_examples=300)
@given(histories)
def test_left_alone_it_settles(history: list[tuple[News, float]]) -> None:
    """Whatever was, when all is well for long enough, everything that was told is over."""
    now, known = 1000.0, Known()
    for one, passed in history:
        now += passed
        known, _ = alerts.step(known, moved(one, now), now, RULES)
    known, _ = alerts.step(known, Seen(now, state="RUNNING", healthy=True), now, RULES)
    while (at := alerts.deadline(known, RULES)) is not None:
        now = max(now, at)
        known, some = alerts.step(known, Passed(now), now, RULES)
        assert some
    assert known.open == {}


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(["running", "fatal", "healthy", "unhealthy"]), st.floats(0, 29)), max_size=60)
)
def test_flapping(history: list[tuple[str, float]]) -> None:
    """What goes to and fro faster than it can count as well is told once of each kind."""
    now, known, count = 0.0, Known(), 0
    for word, passed in history:
        now += passed
        # In between it is never well for long enough.
        for kind in ("fatal", "unhealthy"):
            known, some = alerts.step(known, Happened(kind, now), now, RULES)
            count += len(some)
        known, some = alerts.step(known, Happened(word, now), now, RULES)
        count += len(some)
    assert count == (2 if history else 0)


# One receiver

rates = st.builds(Rate, st.integers(1, 5), st.floats(0.5, 100))


@settings(max_examples=300)
@given(rates, st.lists(st.tuples(st.floats(0, 20), flags), max_size=80))
def test_the_rate(rate: Rate, calls: list[tuple[float, bool]]) -> None:
    """No more letters go than the rate says in any stretch of its length, and what they tell of adds up to all."""
    now, limit, sent, said, asked = 0.0, Limit(), list[float](), 0, 0
    for passed, summary in calls:
        now += passed
        if summary and not limit.count:
            continue
        asked += not summary
        after = alerts.admit(limit, now, rate)
        free = alerts.next_letter(limit, now, rate)
        assert (after is None) == (free > now)
        if after is not None:
            sent.append(now)
            said += limit.count + (not summary)
            limit = after
            assert (limit.count, limit.held) == (0, ())
        elif not summary:
            limit = alerts.hold(limit, "exit", f"web{asked}", False)
            assert alerts.admit(limit, free, rate) is not None
    assert said + limit.count == asked
    assert len(limit.held) == min(limit.count, alerts.MOST_NAMED)
    for first, last in zip(sent, sent[rate.most :], strict=False):
        assert last - first >= rate.seconds * (1 - 1e-9)


def test_what_did_not_arrive_is_told_later() -> None:
    """What a letter told of that did not arrive is held back again, before what came after it."""
    limit = alerts.hold(Limit(), "exit", "b", False)
    limit = alerts.give_back(limit, 30, (Held("fatal", "a", False),))
    assert (limit.count, [one.name for one in limit.held]) == (31, ["a", "b"])


def test_a_rate_and_a_clock_that_is_set_back() -> None:
    """Letters of the future do not keep back others for longer than the rate says."""
    limit = Limit((1000.0, 1001.0))
    assert alerts.admit(limit, 10.0, Rate(2, 60)) is None
    assert alerts.next_letter(limit, 10.0, Rate(2, 60)) == 70.0


@pytest.mark.parametrize(
    ("failures", "luck", "asked", "expected"),
    [
        (1, 0.0, None, 1.0),
        (2, 0.0, None, 2.0),
        (4, 1.0, None, 6.0),
        (9, 0.0, None, 256.0),
        (10, 0.0, None, 300.0),
        (10_000, 0.0, None, 300.0),
        (1, 0.0, 17.0, 17.0),
        (5, 0.0, 3.0, 16.0),
        (1, 0.0, 1e9, 3600.0),
    ],
)
def test_pauses(failures: int, luck: float, asked: float | None, expected: float) -> None:
    """The wait doubles up to five minutes, some of it is left to chance, and what the receiver asks is kept to."""
    assert alerts.pause(failures, luck, asked) == expected
