"""Results of checks become verdicts, and one restart of an instance at most."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.decide.health import Health, Rule, Step, begin, changed, noted

START = 100.0


def run(rules: list[Rule], results: str, *, health: Health | None = None, at: float = START + 1000) -> list[Step]:
    """Feed results of check 0: "+" is good, "-" is not; all at the same time."""
    state = health or begin(len(rules), 1, START)
    steps = []
    for sign in results:
        steps.append(noted(state, rules, state.instance, 0, sign == "+", "" if sign == "+" else "bad", at))
        state = steps[-1].health
    return steps


def told(steps: list[Step]) -> str:
    """What is told after each result: "h", "u", or "." for nothing; capital with a restart."""
    words = ["." if step.tell is None else "h" if step.tell else "u" for step in steps]
    return "".join(word.upper() if step.restart else word for word, step in zip(words, steps, strict=True))


TABLE = [
    # rule, results, what is told after each
    (Rule(3, 1), "+", "h"),
    (Rule(3, 1), "+++", "h.."),
    (Rule(3, 1), "---", "..U"),
    (Rule(1, 1), "-", "U"),
    (Rule(3, 1), "--+--+--", "..h....."),
    (Rule(3, 1), "+--+---", "h.....U"),
    (Rule(3, 2), "+-++", "...h"),
    (Rule(3, 3), "++-+++", ".....h"),
    # After a restart was asked for nothing counts.
    (Rule(2, 1), "--++--", ".U...."),
    # Without restarts it may recover, with so many successes as it takes.
    (Rule(2, 1, restarts=False), "--+--+", ".uh.uh"),
    (Rule(2, 2, restarts=False), "--+-++", ".u...h"),
    (Rule(1, 1, restarts=False), "-+-+", "uhuh"),
]


@pytest.mark.parametrize(("rule", "results", "expected"), TABLE)
def test_thresholds_count_runs(rule: Rule, results: str, expected: str) -> None:
    """So many equal results in a row make a verdict; it is told once, and one restart is asked for."""
    assert told(run([rule], results)) == expected


def test_restart_names_the_failure() -> None:
    """The verdict and the restart say what was found last."""
    [step] = run([Rule(1)], "-")
    assert (step.restart, step.health.why, step.health.verdict) == ("bad", "bad", False)


def test_failure_does_not_count_in_grace() -> None:
    """For `grace` seconds after the start no failure counts, but a success does."""
    rules = [Rule(1, 1, grace=10.0)]
    early = run(rules, "--+-", at=START + 9.9)
    assert told(early) == "..h."
    assert told(run(rules, "-", health=early[-1].health, at=START + 10.0)) == "U"


def test_failure_in_grace_interrupts_successes() -> None:
    """Successes that were not in a row make nobody healthy, whenever they were."""
    assert told(run([Rule(1, 2, grace=10.0)], "+-+", at=START + 5)) == "..."


def test_grace_is_that_of_the_instance() -> None:
    """A new instance has its own grace, however old the process is."""
    rules = [Rule(1, 1, grace=10.0)]
    new = begin(1, 2, START + 1000)
    assert told(run(rules, "-", health=new, at=START + 1005)) == "."


@pytest.mark.parametrize("instance", [0, 1, 3])
def test_late_result_changes_nothing(instance: int) -> None:
    """What is said about another instance than the present one leaves everything as it is."""
    state = begin(1, 2, START)
    assert noted(state, [Rule(1)], instance, 0, False, "late", START + 50) == Step(state)


@pytest.mark.parametrize("check", [-1, 1, 7])
def test_result_of_a_check_that_is_no_more(check: int) -> None:
    """A result of a check that was removed meanwhile changes nothing."""
    state = begin(1, 2, START)
    assert noted(state, [Rule(1)], 2, check, False, "late", START + 50) == Step(state)


def test_one_of_several_is_enough_for_unhealthy_all_for_healthy() -> None:
    """With several checks it is healthy when all say so, and unhealthy when one does."""
    rules = [Rule(1, restarts=False), Rule(1, restarts=False)]
    state = begin(2, 1, START)
    words = []
    for check, good in ((0, True), (1, True), (1, False), (0, False), (1, True), (0, True)):
        step = noted(state, rules, 1, check, good, f"check {check}", START + 1)
        state = step.health
        words.append((step.tell, state.why))
    assert words == [
        *((None, ""), (True, ""), (False, "check 1")),
        *((None, "check 0; check 1"), (None, "check 0"), (True, "")),
    ]


def test_a_report_alone_restarts_nobody() -> None:
    """Only a failing check whose action is to restart leads to a restart, and it alone is the reason."""
    rules = [Rule(1, restarts=False), Rule(1)]
    first = noted(begin(2, 1, START), rules, 1, 0, False, "slow", START + 1)
    assert (first.tell, first.restart) == (False, "")
    second = noted(first.health, rules, 1, 1, False, "dead", START + 1)
    assert (second.tell, second.restart) == (None, "dead")


def test_what_an_earlier_checker_told_is_not_told_again() -> None:
    """A checker that comes after another one tells only what is new, and asks for no second restart."""
    rules = [Rule(1, 1)]
    assert told(run(rules, "+", health=begin(1, 4, START, told=True))) == "."
    assert told(run(rules, "-", health=begin(1, 4, START, told=False))) == ".".upper()
    assert run(rules, "-", health=begin(1, 4, START, told=False))[0].restart == "bad"
    assert not any(step.restart or step.tell is not None for step in run(rules, "--", health=begin(1, 4, 0, held=True)))


def test_other_checks_begin_anew() -> None:
    """When the checks change, what was found is forgotten; that a restart was asked for is not."""
    steps = run([Rule(2)], "-")
    assert told(run([Rule(2)], "-", health=changed(steps[-1].health, 1))) == "."
    held = run([Rule(1)], "-")[-1].health
    assert told(run([Rule(1), Rule(1)], "--", health=changed(held, 2))) == ".."


RULES = st.builds(
    Rule, st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 5.0, 30.0]), st.booleans()
)  # fmt: skip
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("result"), st.integers(-1, 3), st.booleans(), st.integers(-2, 1)),
        st.just(("next",)),
        st.just(("checks",)),
        st.just(("wait",)),
    ),
    max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(RULES, min_size=1, max_size=3), EVENTS)
def test_whatever_comes(rules: list[Rule], events: list[tuple[object, ...]]) -> None:
    """Whatever results come in whatever order: never two restarts of an instance, none without enough failures in a
    row after grace of a check that restarts, no verdict told twice, none healthy without successes of all."""
    now, number = START, 1
    state = begin(len(rules), number, now)
    runs: list[list[bool]] = [[] for _ in rules]  # what counts, of this instance
    restarts = 0
    last: bool | None = None
    for event in events:
        now += 1.0
        if event[0] == "next":
            number += 1
            state, runs, restarts, last = begin(len(rules), number, now), [[] for _ in rules], 0, None
        elif event[0] == "checks":
            state, runs = changed(state, len(rules)), [[] for _ in rules]
        elif event[0] == "wait":
            now += 20.0
        else:
            _, check, good, off = event
            assert isinstance(check, int) and isinstance(good, bool) and isinstance(off, int)
            before = state
            step = noted(state, rules, number + off, check, good, "x", now)
            state = step.health
            if off or not 0 <= check < len(rules) or before.held:
                assert step == Step(before)
                continue
            in_grace = not good and now - state.started < rules[check].grace
            runs[check] = [] if in_grace else [*runs[check], good]
            if step.tell is not None:
                assert step.tell is not last
                last = step.tell
            if step.tell is True:
                assert all(any(one) for one in runs)
                assert all(runs[check][-rules[check].success_threshold :])
                assert len(runs[check]) >= rules[check].success_threshold
            if step.restart:
                restarts += 1
                tail = runs[check][-rules[check].failure_threshold :]
                guilty = rules[check].restarts and len(tail) == rules[check].failure_threshold and not any(tail)
                assert guilty and now - state.started >= rules[check].grace
            assert restarts <= 1
